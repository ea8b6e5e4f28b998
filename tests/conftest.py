"""What tests share. Shape annotations are checked in every call while tests run."""

import os

# Two test processes on two cores, each with two threads that spin while they wait, are fifty
# times slower than one thread each. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ctypes
import gzip
import struct
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest


def pytest_configure(config):
    """Imports all that tests use, with the checks of shapes. Of several processes the first only
    hands out tests, and has no use for it."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    # Before the hook, under which Python would compile all that is imported anew: half of the time
    import jaxtyping
    import lightning  # noqa: F401
    import wandb  # noqa: F401

    with jaxtyping.install_import_hook("acn_lightning", "beartype.beartype"):
        import acn_lightning.callbacks
        import acn_lightning.commands._inputs
        import acn_lightning.experiment.train  # noqa: F401  # the two import all the rest


FIRST = ("test_two_hosts", "test_processes", "test_quicker")
"""Modules of the longest tests: none of them should be what the last process is waited for."""


def pytest_collection_modifyitems(items):
    """Begins with the longest tests."""
    items.sort(key=lambda item: item.path.stem not in FIRST)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Each test works in an empty folder, with W&B offline and its seeds set."""
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    torch.manual_seed(0)


@pytest.fixture
def acn(capsys):
    """Runs the command in this process: `status, out, err = acn("fit", ...)`."""

    from acn_lightning.cli import main

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def locked():
    """Takes away all rights to a path, from root too: `locked(path)`. The test's end gives them
    back."""
    before = {}
    with without_overrides():

        def lock(path):
            before[path] = path.stat().st_mode
            path.chmod(0)

        yield lock
        for path, mode in reversed(before.items()):
            path.chmod(mode)


@contextmanager
def without_overrides():
    """This thread obeys the rights of files as other users do, even if root runs it."""
    if os.geteuid():
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root may read all files")
    libc, head = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice
    assert libc.capget(head, held) == 0
    fewer = (ctypes.c_uint32 * 6)(held[0] & ~0b110, *held[1:])  # to override, and to search
    assert libc.capset(head, fewer) == 0
    yield
    assert libc.capset(head, held) == 0


QUICK = (
    "model.encoder.channels=8",
    "model.decoder.channels=8",
    "model.prior.width=16",
    "model.code_size=4",
    "schedule.kind=constant",
    "model.warmup_epochs=0",
    "trainer.enable_model_summary=false",
    "pictures.samples=0",
    "pictures.points=0",
    "probe.every_n_epochs=0",
    "evaluation.linear=none",
    "evaluation.unconditional_codes=16",
)
"""Overrides for a model that trains in a moment."""

CHEAP = ("model.likelihood.kind=logistic_mixture", "model.likelihood.mixtures=1")
"""Overrides for steps in half of the time, where the likelihood is not what is tested."""

BESIDE = tuple(word for word in QUICK if not word.startswith(("model.", "schedule.")))
"""Those that a checkpoint does not decide."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with `photos/`, 150 PNG files of digits 0, 1 and 2, and a run on them,
    `runs/folder/mine`; 12 x 12 pixels in grey. Its decoder has mean images."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    from acn_lightning.cli import main

    folder = tmp_path_factory.mktemp("trained")
    digits = load_digits()
    for label in range(3):
        (folder / "photos" / f"digit {label}").mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:50]):
            pixels = Image.fromarray((image * (255 / 16)).astype(np.uint8)).resize((12, 12))
            pixels.save(folder / "photos" / f"digit {label}" / f"{number:02}.png")
    words = [
        "fit", "folder", *QUICK, f"data.root={folder / 'photos'}", "trainer.max_epochs=4",
        "data.image_size=12", "run=mine", f"trainer.default_root_dir={folder / 'runs'}",
        "pictures.every_n_epochs=0", "evaluation.linear=none", "trainer.accelerator=cpu",
        "model.decoder.kind=conv",
    ]  # fmt: skip
    assert main(words) == 0
    return folder


@pytest.fixture
def checkpoint(trained):
    """Of that run."""
    return trained / "runs/folder/mine/checkpoints/best.ckpt"


def only_run(root=Path("runs")):
    """The folder of the only run."""
    (folder,) = root.glob("*/*")
    return folder


def bank_of(size=20, code_size=3, k_rows=None, seed=0):
    """A bank of `size` images of three classes."""
    import torch

    from acn_lightning.retrieval.code_bank import CodeBank

    rows = torch.arange(size) if k_rows is None else torch.as_tensor(k_rows)
    return CodeBank(torch.arange(size) % 3, rows, code_size, seed)


def names_of(collection):
    """The name of each image's class."""
    return [(*collection.classes, "no label")[label] for label in collection.labels.tolist()]


def naive_vote(labels):
    """The most frequent of a list of labels, the first among equals."""
    counts = Counter(labels)
    return max(labels, key=lambda label: (counts[label], -labels.index(label)))


def write_idx(path, array, compress=True):
    """An IDX file of unsigned bytes."""
    import numpy as np

    array = np.asarray(array, np.uint8)
    content = struct.pack(">HBB", 0, 8, array.ndim)
    content += struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


@pytest.fixture
def idx_folder(tmp_path):
    """A small data set in MNIST's layout: 60 training and 20 test images of 6 x 5."""
    import numpy as np

    folder = tmp_path / "idx"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for prefix, size, compress in [("train", 60, True), ("t10k", 20, False)]:
        suffix = ".gz" if compress else ""
        images = generator.integers(0, 256, (size, 6, 5))
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images, compress)
        labels = np.arange(size) % 4
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels, compress)
    return folder
