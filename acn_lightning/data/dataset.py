"""Images in memory, gathered one batch at a time."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset


class Batch(NamedTuple):
    """Examples and their indices.

    Attributes:
        index: row in the data set, (B,). For training data, the key into the code bank.
        image: (B, C, H, W); uint8 as stored, float in [0, 1] once it is on its device.
        label: class, (B,); -1 if there is none.
        view: what the encoder sees instead of the image, of the same shape; None if it sees the
            image itself.
    """

    index: Int[Tensor, " batch"]  # type: ignore[assignment]  # hides tuple.index
    image: Float[Tensor, "batch channel height width"]
    label: Int[Tensor, " batch"]
    view: Float[Tensor, "batch channel height width"] | None = None

    def in_floats(self) -> "Batch":
        """The batch with its images, uint8 before, as floats in [0, 1]."""
        return self._replace(image=self.image.float() / 255)


class IndexedImages(Dataset[Batch]):
    """Some rows of a data set of uint8 images.

    A DataLoader fetches a whole batch with one indexing operation per tensor, so it needs
    `collate_fn=keep_whole`.

    Args:
        images: of the whole data set, (N, C, H, W).
        labels: (N,).
        rows: rows of the data set that are in this set; an example carries its row as index.
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
        # Through NumPy and copied row by row: several times as fast as indexing.
        rows = self.rows.index_select(0, torch.from_numpy(np.asarray(positions, np.int64)))
        return Batch(rows, self.images.index_select(0, rows), self.labels.index_select(0, rows))
