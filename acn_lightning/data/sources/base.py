"""What every reader of images returns, and what they share."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from acn_lightning.utils.errors import UsageError


class Part(NamedTuple):
    """Images and their classes; -1 where an image has none.

    Attributes:
        names: their files; empty where they are rows of a larger file.
    """

    images: UInt8[Tensor, "size channel height width"]
    labels: Int[Tensor, " size"]
    names: tuple[str, ...] = ()

    def at(self, rows: Int[Tensor, " n"]) -> "Part":
        """Some of them."""
        names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        return Part(self.images[rows], self.labels[rows], names)


class Source(NamedTuple):
    """A data set: what to train on, what to test on, and the names of the classes."""

    train: Part
    test: Part
    classes: tuple[str, ...]


def held_out_rows(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Divides 0 ... size - 1 at random into (the rest, `count` held out), each in order.

    Always the same division: what was held out from one run is not trained on by the next one,
    whatever its seed.
    """
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    return order[count:].sort().values, order[:count].sort().values


def some_of(part: Part, count: int, seed: int) -> Part:
    """So many of its images, chosen at random, in their order.

    Raises:
        UsageError: it has not so many, or the number is below 2.
    """
    size = len(part.images)
    if not 2 <= count <= size:
        raise UsageError(f"data.subset: {count} is not from 2 to {size}, the training images.")
    chosen = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]
    return part.at(chosen.sort().values)


def stratified(labels: Int[Tensor, " size"], count: int, seed: int = 0) -> Int[Tensor, " n"]:
    """Rows of `count` images at random, in order, of each class its share; all where there are no
    more.

    Example:
        >>> labels = torch.tensor([0] * 60 + [1] * 30)
        >>> torch.bincount(labels[stratified(labels, 9)])
        tensor([6, 3])
    """
    if count >= len(labels):
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]  # by class, at random within each
    # Evenly spaced: a class has as many as its share, give or take one.
    places = (torch.arange(count, dtype=torch.double) + 0.5) * len(labels) / count
    return order[places.long()].sort().values


def divide(part: Part, classes: tuple[str, ...], fraction: float, name: str) -> Source:
    """A source whose publisher has no test set: a fixed `fraction` of it becomes one."""
    count = round(len(part.images) * fraction)
    if count < 1:
        raise UsageError(
            f"data.root: {name} has {len(part.images)} images, too few to hold any out for testing."
        )
    train, test = held_out_rows(len(part.images), count)
    return Source(part.at(train), part.at(test), classes)


def read_digits() -> Source:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 (UCI, Alpaydin and Kaynak); a fixed fifth
    of them is the test set."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 17 grey values
    part = Part(torch.from_numpy(grey)[:, None], torch.from_numpy(digits.target).long())
    return divide(part, tuple(str(name) for name in digits.target_names), 0.2, "digits")


def require_folder(root: Path) -> None:
    """Raises:
    UsageError: there is none.
    """
    if not root.is_dir():
        what = f"{root} is a file, no folder" if root.exists() else f"there is no folder {root}"
        raise UsageError(f"data.root: {what}.")


def require(root: Path, names: Iterable[str], layout: str) -> None:
    """Files, and folders where a name ends in "/".

    Args:
        root: where they have to be.
        names: of the files and folders.
        layout: a sentence for the error, on what belongs there.

    Raises:
        UsageError: one is missing.
    """
    require_folder(root)
    for name in names:
        path = root / name
        if not (path.is_dir() if name.endswith("/") else path.is_file()):
            raise UsageError(f"data.root: {root} has no {name}. {layout}")


def require_size(image_size: Sequence[int] | None, name: str) -> Sequence[int]:
    """Raises:
    UsageError: there is none.
    """
    if image_size is None:
        raise UsageError(f"data.image_size: images of {name} need one: data.image_size=64.")
    return image_size


def read_lines(path: Path) -> list[str]:
    """A text file without the blank lines at its end.

    Raises:
        UsageError: it cannot be read, is no text or is empty.
    """
    try:
        lines = path.read_text("utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"data.root: {path} cannot be read as text ({error}).") from error
    if not lines:
        raise UsageError(f"data.root: {path} is empty.")
    return lines


def check_counts(images: int, images_name: object, labels: int, labels_name: object) -> None:
    """Raises:
    UsageError: they differ.
    """
    if images != labels:
        raise UsageError(
            f"data.root: {images:,} images in {images_name}, but {labels:,} labels in "
            f"{labels_name}."
        )


def size_words(images: Tensor) -> str:
    """Channels x height x width."""
    return " x ".join(str(side) for side in images.shape[1:])
