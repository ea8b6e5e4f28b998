"""Collections of images to encode and to show."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from acn_lightning.data import ImageData
from acn_lightning.data.binarise import binarise, binarise_alike
from acn_lightning.data.convert import as_images


class Collection(NamedTuple):
    """Images, as they are shown and as the encoder sees them.

    Attributes:
        name: name of the data set or folder.
        images: to show, not binarised, uint8 (N, C, H, W).
        seen: as the encoder sees them, binarised if the training images were, uint8.
        labels: label of each image, (N,); -1 for none.
        classes: class names.
        files: file of each image; empty if the images are rows of a larger file.
        rows: row of each image in the whole data, (N,).
    """

    name: str
    images: UInt8[Tensor, "size channel height width"]
    seen: UInt8[Tensor, "size channel height width"]
    labels: Int[Tensor, " size"]
    classes: tuple[str, ...]
    files: tuple[str, ...]
    rows: Int[Tensor, " size"]

    def at(self, rows: Int[Tensor, " n"]) -> "Collection":
        """The collection of these rows only."""
        files = tuple(self.files[row] for row in rows.tolist()) if self.files else ()
        return Collection(
            self.name,
            self.images[rows],
            self.seen[rows],
            self.labels[rows],
            self.classes,
            files,
            self.rows[rows],
        )


def part_of_folder(root: Path, part: str) -> Path:
    """The sub-folder `train` or `test` if `root` has both, else `root` itself."""
    both = all((root / name).is_dir() for name in ("train", "test"))
    return root / part if both else root


def of_data(
    data: ImageData, name: str, part: str, shape: tuple[int, ...], how: str, seed: int
) -> Collection:
    """The training or test images of a data set, in the model's shape."""
    assert data.content is not None
    own = data.content.train if part == "train" else data.content.test
    drawn = data.fixed_set if part == "train" else data.test_set
    images = as_images(own.images, shape)
    # Unchanged images keep the binary draw that costs are reported on.
    alike = images.shape == own.images.shape and (how, seed) == (data.binarisation, data.seed)
    seen = drawn.images if alike else binarise(images, how, seed)
    rows = torch.arange(len(images))
    return Collection(name, images, seen, own.labels, tuple(data.classes), own.names, rows)


def of_files(
    images: Tensor, files: Sequence[Path], labelled: bool, name: str, how: str, seed: int
) -> Collection:
    """Images of a folder; if `labelled`, its sub-folders are classes."""
    classes = sorted({path.parent.name for path in files}) if labelled else []
    number = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([number.get(path.parent.name, -1) for path in files])
    seen = binarise_alike(images, how, seed)
    names, rows = tuple(map(str, files)), torch.arange(len(images))
    return Collection(name, images, seen, labels, tuple(classes), names, rows)
