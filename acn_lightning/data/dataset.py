"""Images in memory, gathered a batch at a time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from acn_lightning.utils.errors import check_choice

BINARISATIONS = ("none", "threshold", "static", "dynamic")


class Batch(NamedTuple):
    """Examples and who they are.

    Attributes:
        index: row in the data set, (B,). For training data the key into the code bank.
        image: (B, C, H, W). uint8 as stored; float in [0, 1] once it is on its device.
        label: class, (B,); -1 where there is none.
        view: what the encoder sees in place of the image, the same shape; None for the image.
    """

    index: Int[Tensor, " batch"]  # type: ignore[assignment]  # hides tuple.index
    image: Float[Tensor, "batch channel height width"]
    label: Int[Tensor, " batch"]
    view: Float[Tensor, "batch channel height width"] | None = None


class IndexedImages(Dataset[Batch]):
    """Some rows of a data set of uint8 images.

    A DataLoader gets a whole batch from it in one indexing operation per tensor, so it has to be
    given `collate_fn=whole`.

    Args:
        images: of the whole data set, (N, C, H, W).
        labels: (N,).
        rows: which of them are in this set; what an example carries as its index.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "size channel height width"],
        labels: Int[Tensor, " size"],
        rows: Int[Tensor, " n"],
    ) -> None:
        self.images, self.labels, self.rows = images, labels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Batch:
        """One example, without a batch dimension."""
        row = self.rows[position]
        return Batch(row, self.images[row], self.labels[row])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        # By way of numpy, and copied row by row: several times as quick as indexing.
        rows = self.rows.index_select(0, torch.from_numpy(np.asarray(positions, np.int64)))
        return Batch(rows, self.images.index_select(0, rows), self.labels.index_select(0, rows))


def whole(batch: Any) -> Any:
    """Collates nothing: `IndexedImages` hands over batches that are whole."""
    return batch


def binarise(
    images: UInt8[Tensor, "size channel height width"], how: str, seed: int
) -> UInt8[Tensor, "size channel height width"]:
    """Images of 0 and 255 only, the same ones whenever asked.

    Args:
        images: grey values, 0 to 255.
        how: "none" leaves them alone; "threshold" sets what is 128 or more; "static" and
            "dynamic" set a pixel with its grey value's probability, by one draw that `seed` and
            the image's row fix. (What "dynamic" draws afresh, `draw_binary` draws.)
        seed: of the draw.

    Raises:
        UsageError: `how` is none of these.
    """
    check_choice("data.binarisation", how, BINARISATIONS)
    if how == "none":
        return images
    if how == "threshold":
        return (images >= 128).to(torch.uint8) * 255
    generator = torch.Generator().manual_seed(seed)
    # In pieces, as the probabilities take four times the memory of the images.
    pieces = [torch.bernoulli(piece / 255, generator=generator) for piece in images.split(4096)]
    return torch.cat([piece.to(torch.uint8) * 255 for piece in pieces])


def binarise_alike(
    images: UInt8[Tensor, "size channel height width"], how: str, seed: int
) -> UInt8[Tensor, "size channel height width"]:
    """The same for images that are no rows of a data set: the draw of "static" and "dynamic" is one
    for all of them, so that what becomes of an image hangs on that image alone.

    Raises:
        UsageError: `how` is none that there is.
    """
    if how not in ("static", "dynamic"):
        return binarise(images, how, seed)
    generator = torch.Generator().manual_seed(seed)
    bounds = torch.rand(images.shape[1:], generator=generator) * 255
    return (images > bounds).to(torch.uint8) * 255  # a pixel with its grey value's probability


def draw_binary(image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A fresh sample of binary pixels, each 1 with its grey value's probability."""
    return torch.bernoulli(image)
