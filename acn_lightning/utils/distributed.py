"""What the processes of a distributed run know together; a single process is a run of one."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from acn_lightning.utils.errors import UsageError

T = TypeVar("T")

CHUNK = 2**14
"""Rows that travel at once."""


def alone() -> bool:
    """Whether there is no other process."""
    return count() == 1


def count() -> int:
    """How many processes there are."""
    known = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if known else 1


def rank() -> int:
    """Which of them this one is."""
    return 0 if alone() else torch.distributed.get_rank()


def gather(tensor: Tensor) -> list[Tensor]:
    """Each process's tensor, by rank. Their sizes may differ."""
    if alone():
        return [tensor]
    everyones: list[Tensor] = gather_all_tensors(tensor)
    return everyones


def total(tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors; gradients go back to each of them."""
    if alone():
        return tensor
    from torch.distributed.nn.functional import all_reduce

    summed: Tensor = all_reduce(tensor)
    return summed


def own(everyones: Sequence[T]) -> T:
    """This process's of what `gather` returned.

    Raises:
        UsageError: there were another number of processes then.
    """
    if len(everyones) != count():
        raise UsageError(
            f"The checkpoint was saved within an epoch by {len(everyones)} processes, each of "
            f"which had its share of the images; here are {count()}. Use as many, or a checkpoint "
            "of an epoch's end."
        )
    return everyones[rank()]


def spread(table: Tensor, rows: Tensor, source: int) -> int:
    """Writes these rows of one process's table into all the others', a chunk at a time.

    Args:
        table: of the same shape in all processes.
        rows: the same in all processes.
        source: the rank whose rows count.

    Returns:
        The bytes that came here.
    """
    if alone():
        return 0
    for some in rows.split(CHUNK):
        values = table[some]
        torch.distributed.broadcast(values, source)
        table[some] = values
    return 0 if rank() == source else table[rows[:1]].nbytes * len(rows)
