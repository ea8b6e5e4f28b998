"""Collections of images to encode and to show."""

from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from acn_lightning.data import ImageData
from acn_lightning.data.binarise import binarise, binarise_alike
from acn_lightning.data.convert import as_images
from acn_lightning.data.listing import Part
from acn_lightning.utils.text import as_text


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


def of_files(images: Tensor, part: Part, name: str, how: str, seed: int) -> Collection:
    """Images of a folder, with their files and classes."""
    classes = sorted({label for label in part.labels if label is not None})
    number = {label: i for i, label in enumerate(classes)}
    labels = torch.tensor([-1 if label is None else number[label] for label in part.labels])
    seen = binarise_alike(images, how, seed)
    names, rows = tuple(map(as_text, part.files)), torch.arange(len(images))
    return Collection(name, images, seen, labels, tuple(classes), names, rows)
