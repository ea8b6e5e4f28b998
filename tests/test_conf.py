"""Every file in conf/ composes, is instantiated and takes a step, on small data in its layout."""

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image

from acn_lightning.callbacks import RefreshNeighbours
from acn_lightning.config.compose import compose, experiments, layers
from acn_lightning.experiment.budget import Choice, is_open, with_choice
from acn_lightning.experiment.build import build
from tests.conftest import write_idx

GENERATOR = np.random.default_rng(0)


def pixels(*shape):
    return GENERATOR.integers(0, 256, shape, dtype=np.uint8)


def write_mnist(folder):
    for prefix, size in [("train", 40), ("t10k", 12)]:
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", pixels(size, 28, 28))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", np.arange(size) % 10)


def write_cifar10(folder):
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        records = np.concatenate([np.arange(8)[:, None].astype(np.uint8), pixels(8, 3072)], 1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)))


def write_celeba(folder):
    (folder / "img_align_celeba").mkdir()
    names = [f"{i + 1:06}.jpg" for i in range(40)]
    for name in names:
        Image.fromarray(pixels(218, 178, 3)).save(folder / "img_align_celeba" / name)
    rows = [f"{name} {2 * (i % 2) - 1} 1" for i, name in enumerate(names)]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["40", "Smiling Young", *rows]))
    parts = [f"{name} {2 * (i % 4 == 0)}" for i, name in enumerate(names)]
    (folder / "list_eval_partition.txt").write_text("\n".join(parts))


def write_imagenet(folder):
    for name in [*(f"train_data_batch_{i}" for i in range(1, 11)), "val_data"]:
        np.savez(folder / f"{name}.npz", data=pixels(4, 3072), labels=np.arange(1, 5))


def write_folder(folder):
    for i in range(40):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(20, 20, 3)).save(path)


WRITE = {
    "mnist": write_mnist,
    "fashion_mnist": write_mnist,
    "cifar10": write_cifar10,
    "celeba": write_celeba,
    "imagenet": write_imagenet,
    "folder": write_folder,
}

SMALL = ["data.batch_size=2", "data.validation=2", "neighbours.k=2", "trainer.precision=null"]


def step(experiment, tmp_path):
    """Builds an experiment at its full size and runs one batch of everything that trains."""
    source = experiment.partition("+")[0]
    overrides = [*SMALL, "data.download=false"]
    if source in WRITE:
        WRITE[source](tmp_path)
        overrides.append(f"data.root={tmp_path}")
    config = compose(experiment, overrides)
    data, module = build(with_choice(config, Choice(16, 1, 0.0)) if is_open(config) else config)
    before = [weight.clone() for weight in module.decoder.parameters()]
    trainer = Trainer(
        fast_dev_run=1, callbacks=[RefreshNeighbours()], accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert torch.isfinite(trainer.callback_metrics["val/total"])
    after = module.decoder.parameters()
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.filterwarnings("ignore:Only .* codes were refreshed")
@pytest.mark.parametrize("experiment", sorted(experiments()))
def test_every_experiment_takes_a_step(experiment, tmp_path):
    step(experiment, tmp_path)


@pytest.mark.filterwarnings("ignore:Only .* codes were refreshed")
@pytest.mark.parametrize(
    "experiment",
    ["mnist+small"]
    + [
        f"{base}+{name}"
        for base in ("mnist+small", "digits", "folder")
        for name in layers()
        if name != "small"  # not for the other two, which say so
    ],
)
def test_every_layer_takes_a_step(experiment, tmp_path):
    step(experiment, tmp_path)
