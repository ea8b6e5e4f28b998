"""Times what follows training: the test phase, and writing codes for other programs."""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from acn_lightning import callbacks as cb
from acn_lightning.commands.export import write_npz
from acn_lightning.config.compose import Plain, compose
from acn_lightning.data import ImageData
from acn_lightning.experiment.build import build
from acn_lightning.experiment.results import evaluate
from acn_lightning.experiment.trainer import make_trainer
from acn_lightning.inference.collection import of_data
from acn_lightning.inference.embedding import embed
from acn_lightning.inference.parquet import write_parquet
from acn_lightning.module import ACN
from acn_lightning.retrieval.faiss_backend import save_index
from benchmarks import references
from benchmarks.measure import Figure, alternate
from benchmarks.training import quieten

CHANNELS = ("model.encoder.channels=16", "model.decoder.channels=16")
"""Chosen by hand: `folder` otherwise fits them to a budget of training."""


@quieten()
def evaluating(size: int = 5000, overrides: Sequence[str] = ()) -> Figure:
    """Compares the test phase of `folder` on coloured images of 32 x 32, a tenth of them test
    images, with the same phase in which three parts are as they first were: a fit of scikit-learn's
    for each classifier, its PCA, and each density of the unconditional cost computed on its own.
    All else is the same on both sides: encoding, decoding, searching, clusters, pictures.

    The images are scikit-learn's digits, enlarged, moved and coloured; the networks are untrained.
    Each side is timed once, because the reference takes more than a minute.
    """
    with TemporaryDirectory() as folder:
        data, module, config = folder_experiment(Path(folder), size, overrides)

        def phase() -> dict[str, Any]:
            return run_test(data, module, config, Path(folder) / "images")

        def earlier() -> dict[str, Any]:
            with references.earlier_test_phase():
                return phase()

        timed = alternate(phase, earlier, 1, warm_up=False)
    apart = difference(timed.ours, timed.reference)
    note = f"{size:,} images, accuracies at most {apart:.1%} apart"
    return Figure(timed.ours_s, timed.reference_s, ">= 3", note, {"apart": apart})


def run_test(data: ImageData, module: ACN, config: Plain, folder: Path) -> dict[str, Any]:
    """What `acn test` does once the model has been read; returns its results."""
    measure = cb.MeasureTest(**config["evaluation"])
    pictures = cb.DrawPictures(folder, **config["pictures"])
    parts = [cb.SeedEpochs(config["seed"]), cb.RefreshNeighbours(), measure, pictures]
    trainer = make_trainer(config, parts, [], folder)
    return evaluate(trainer, module, data, measure, time.perf_counter(), {}, folder)


def difference(ours: dict[str, Any], reference: dict[str, Any]) -> float:
    """Returns how far the accuracies of linear classifiers lie apart at most.

    Raises:
        RuntimeError: so far that they are not of the same classifiers, or the costs differ.
    """
    costs = [found["nats_per_image"] for found in (ours, reference)]
    if not np.allclose(list(costs[0].values()), list(costs[1].values()), rtol=1e-5):
        raise RuntimeError(f"the costs are {costs[0]}, the reference's are {costs[1]}.")
    measured = [
        (own, reference["accuracy"][name])
        for name, own in ours["accuracy"].items()
        if own is not None
    ]
    apart = max(abs(own - other) for own, other in measured)
    if apart > max(0.03, 1.5 / ours["images"]):  # an image may always differ
        raise RuntimeError(f"the accuracies are up to {apart:.1%} apart.")
    return float(apart)


@quieten()
def exporting(size: int = 10_000, overrides: Sequence[str] = ()) -> Figure:
    """Compares what `acn export` does with images that have been read, thumbnails and map included,
    with encoding them and searching their codes by bare FAISS. Each side is timed once."""
    with TemporaryDirectory() as folder:
        data, module, config = folder_experiment(Path(folder), size, overrides)
        module.eval()
        shape, how = data.image_shape, data.binarisation
        collection = of_data(data, config["experiment"], "train", shape, how, data.seed)

        def ours() -> None:
            embedding = embed(module, collection, 8)
            write_parquet(Path(folder) / "codes.parquet", collection, embedding, 64)
            write_npz(Path(folder) / "codes.npz", collection, embedding)
            save_index(embedding.searched.index, Path(folder) / "index.faiss")

        timed = alternate(
            ours,
            lambda: references.encode_and_search(module, collection.seen, 8),
            1,
            warm_up=False,
        )
    return Figure(timed.ours_s, timed.reference_s, "<= 2", f"{len(collection.images):,} images")


# ---------------------------------------------------------------- the images


def folder_experiment(
    folder: Path, size: int, overrides: Sequence[str]
) -> tuple[ImageData, ACN, Plain]:
    """`folder`, on coloured digits: its data, its untrained networks, its config."""
    where = ["data.source=npz", f"data.root={write_digits(folder, size)}"]
    config = compose("folder", [*where, *CHANNELS, *overrides])
    return *build(config), config


def write_digits(folder: Path, size: int) -> Path:
    """Writes an .npz file of coloured digits, uint8 (N, 32, 32, 3), a tenth as test images."""
    digits, random = load_digits(), np.random.default_rng(0)
    rows = random.integers(0, len(digits.images), size)
    large = np.kron(digits.images[rows] * (255 / 16), np.ones((3, 3)))
    images = np.zeros((size, 32, 32))
    for image, one, (top, left) in zip(
        images, large, random.integers(0, 9, (size, 2)), strict=True
    ):
        image[top : top + 24, left : left + 24] = one
    noisy = images[..., None] * random.uniform(0.4, 1, (size, 1, 1, 3))
    noisy = (noisy + random.normal(0, 4, noisy.shape)).clip(0, 255).astype(np.uint8)
    test, labels = size // 10, digits.target[rows]
    path = folder / "digits.npz"
    np.savez(path, images=noisy[test:], labels=labels[test:], test_images=noisy[:test],
             test_labels=labels[:test])  # fmt: skip
    return path
