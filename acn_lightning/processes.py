"""What the processes of a distributed run know together; a single process is a run of one."""

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors


def alone() -> bool:
    """Whether there is no other process."""
    known = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not known or torch.distributed.get_world_size() == 1


def broadcast(tensor: Tensor, rank: int) -> Tensor:
    """The tensor of that rank, of the same shape in all processes; it is written over."""
    torch.distributed.broadcast(tensor, rank)
    return tensor


def gather(tensor: Tensor) -> list[Tensor]:
    """Each process's tensor, by rank. Their sizes may differ."""
    if alone():
        return [tensor]
    everyones: list[Tensor] = gather_all_tensors(tensor)
    return everyones
