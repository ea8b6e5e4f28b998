"""Communication between the ranks of a distributed run; a single process has world size 1."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from acn_lightning.utils.errors import UsageError

T = TypeVar("T")

CHUNK = 2**14
"""Number of rows sent at once."""


def single_process() -> bool:
    """Whether the world size is 1."""
    return world_size() == 1


def started() -> tuple[int, int]:
    """(how many processes of this run torchrun or srun has started, how many of them on this host);
    1 and 1 without them.

    A batch script of SLURM's has its number of tasks in the environment too, before srun starts
    them; what goes by these names is started by hand, as Lightning has it.
    """
    told = os.environ
    if "TORCHELASTIC_RUN_ID" in told:
        return int(told.get("WORLD_SIZE", 1)), int(told.get("LOCAL_WORLD_SIZE", 1))
    if told.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return 1, 1
    if (tasks := int(told.get("SLURM_STEP_NUM_TASKS", 1))) > 1:
        return tasks, int(told.get("SLURM_NTASKS_PER_NODE", 1))
    return 1, 1


def world_size() -> int:
    """The number of ranks."""
    known = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if known else 1


def rank() -> int:
    """The rank of this process."""
    return 0 if single_process() else torch.distributed.get_rank()


def is_rank_zero() -> bool:
    """Whether this process is rank 0; also works before the processes are connected."""
    return not getattr(rank_zero_only, "rank", 0)


def gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all ranks, in rank order. Their sizes may differ."""
    if single_process():
        return [tensor]
    everyones: list[Tensor] = gather_all_tensors(tensor)
    return everyones


@contextmanager
def waiting_for_first() -> Iterator[None]:
    """For work that only rank 0 does: the others wait at the end, for days if need be.

    Other communication ends a run if a rank is waited for longer than the process group's timeout,
    30 minutes with Lightning. All ranks must come here at about the same time.
    """
    if single_process():
        yield
        return
    # Only gloo waits reliably for so long. Lightning prepares data in such a group too.
    group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=10_000))
    yield
    torch.distributed.monitored_barrier(group)
    torch.distributed.destroy_process_group(group)


def share_of(rows: Tensor, unit: int) -> Tensor:
    """This rank's share of the rows: whole units of so many rows (the last may be shorter). The
    shares of all ranks, in rank order, are the rows."""
    units = -(-len(rows) // unit)
    first, end = (units * one // world_size() * unit for one in (rank(), rank() + 1))
    return rows[first:end]


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of all ranks' tensors; gradients flow back to each of them."""
    if single_process():
        return tensor
    from torch.distributed.nn.functional import all_reduce

    summed: Tensor = all_reduce(tensor)
    return summed


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Gives all ranks rank 0's buffers, such as the running statistics of batch normalisation.

    DDP does so before each step only. After a step, each rank's are of its own images.
    """
    if single_process():
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():  # others are counts, the same on all ranks
            values = buffer.contiguous()
            torch.distributed.broadcast(values, 0)
            buffer.copy_(values)


def of_this_rank(everyones: Sequence[T]) -> T:
    """This rank's entry of a list that `gather` returned when a checkpoint was saved.

    Raises:
        UsageError: the world size was different then.
    """
    if len(everyones) != world_size():
        raise UsageError(
            f"The checkpoint was saved within an epoch by {len(everyones)} processes that shared "
            f"the images; this run has {world_size()}. Use {len(everyones)}, or a checkpoint from "
            "the end of an epoch."
        )
    return everyones[rank()]


def broadcast_rows(table: Tensor, rows: Tensor, source: int) -> int:
    """Copies these rows of one rank's table into all the others', a chunk at a time.

    Args:
        table: has the same shape on all ranks.
        rows: the same on all ranks.
        source: rank to copy from.

    Returns:
        The bytes that this rank received.
    """
    if single_process():
        return 0
    for some in rows.split(CHUNK):
        values = table[some]
        torch.distributed.broadcast(values, source)
        table[some] = values
    return 0 if rank() == source else table[rows[:1]].nbytes * len(rows)
