"""What the processes of a distributed run know together; a single process is a run of one."""

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors


def gather(tensor: Tensor) -> list[Tensor]:
    """Each process's tensor, by rank. Their sizes may differ."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [tensor]
    everyones: list[Tensor] = gather_all_tensors(tensor)
    return everyones
