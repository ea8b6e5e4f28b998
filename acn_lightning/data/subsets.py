"""Chooses which images of a data set to use."""

import torch
from jaxtyping import Int
from torch import Tensor

from acn_lightning.utils.errors import UsageError


def held_out_rows(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Splits 0 ... size - 1 at random into (the rest, `count` held out), each sorted.

    The split is always the same: what one run holds out, the next does not train on, whatever its
    seed.
    """
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    return order[count:].sort().values, order[:count].sort().values


def some_rows(size: int, count: int, seed: int) -> Int[Tensor, " n"]:
    """Chooses `count` of 0 ... size - 1 at random, sorted.

    Raises:
        UsageError: `count` is not between 2 and `size`.
    """
    if not 2 <= count <= size:
        raise UsageError(
            f"data.subset: {count} is not between 2 and {size}, the number of training images."
        )
    chosen = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]
    return chosen.sort().values


def spread(size: int, count: int) -> list[int]:
    """Chooses `count` of 0 ... size - 1, evenly spread from the first on; all if there are no more.

    Example:
        >>> spread(100, 4), spread(3, 4)
        ([0, 25, 50, 75], [0, 1, 2])
    """
    count = min(size, count)
    return [place * size // count for place in range(count)]


def stratified(labels: Int[Tensor, " size"], count: int, seed: int = 0) -> Int[Tensor, " n"]:
    """Chooses the rows of `count` images at random, sorted, with each class in proportion. Returns
    all rows if there are no more than `count`.

    Example:
        >>> labels = torch.tensor([0] * 60 + [1] * 30)
        >>> torch.bincount(labels[stratified(labels, 9)])
        tensor([6, 3])
    """
    if count >= len(labels):
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]  # by class, random within each
    # Evenly spaced picks give each class its share, give or take one.
    places = (torch.arange(count, dtype=torch.double) + 0.5) * len(labels) / count
    return order[places.long()].sort().values
