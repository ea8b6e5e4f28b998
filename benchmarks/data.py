"""Random images of MNIST's size, and how fast the loader feeds them to a step."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from acn_lightning.data import ImageData
from benchmarks import references
from benchmarks.measure import Figure, alternate


def loader(size: int = 60_000, repeats: int = 5) -> Figure:
    """Compares an epoch of batches of 64, converted to floats in one process, with a map-style data
    set of PIL images and two worker processes."""
    with TemporaryDirectory() as folder:
        data = ImageData(
            source="npz",
            root=str(write_images(Path(folder), size)),
            binarisation="none",
            validation=0,
            batch_size=64,
        )
        data.setup()
    per_image = references.per_image_loader(data.train_set.images, data.labels, data.batch_size)
    timed = alternate(lambda: count(batches(data)), lambda: count(per_image), repeats)
    if timed.ours != timed.reference:
        raise RuntimeError(f"{timed.ours} images an epoch, the reference has {timed.reference}.")
    return Figure(timed.ours_s, timed.reference_s, ">= 20", f"{size:,} images")


def batches(data: ImageData) -> Iterable[Any]:
    """Returns the batches of an epoch, as a step on the CPU receives them."""
    return (data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader())


def count(epoch: Iterable[Any]) -> int:
    """Counts the images in an epoch."""
    return sum(len(batch[0]) for batch in epoch)


def images_in(folder: str, size: int) -> list[str]:
    """Writes random binary images of MNIST's size to a folder; returns overrides that read them."""
    return ["data.source=npz", f"data.root={write_images(Path(folder), size, binary=True)}"]


def photos_in(folder: str, size: int) -> list[str]:
    """Writes random colour images of 28 x 28 to a folder; returns overrides that read them."""
    path = write_images(Path(folder), size, colour=True)
    return ["data.source=npz", f"data.root={path}"]


def write_images(
    folder: Path, size: int, test: int = 64, binary: bool = False, colour: bool = False
) -> Path:
    """Writes an .npz file of random 28 x 28 images in ten classes."""
    random = np.random.default_rng(0)
    arrays = {}
    for prefix, count in [("", size), ("test_", test)]:
        shape = (count, 28, 28, 3) if colour else (count, 28, 28)
        images = random.integers(0, 256, shape, np.uint8)
        arrays[f"{prefix}images"] = images // 128 * 255 if binary else images
        arrays[f"{prefix}labels"] = random.integers(0, 10, count)
    path = folder / "images.npz"
    np.savez(path, **arrays)
    return path
