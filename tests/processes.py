"""What a process of a distributed test runs. It stands apart as each such process imports it, and
what the other tests import takes some seconds."""

import torch
from torch import Tensor

from acn_lightning.code_bank import CodeBank
from acn_lightning.neighbours import NeighbourIndex


def synchronise(rank: int, size: int, folder: str) -> None:
    """One of several processes: writes its share, the last row of which all others write also."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size
    )
    bank = CodeBank(torch.arange(11) % 3, torch.arange(11), 2)
    mine = torch.arange(11)[rank::size]
    bank.write(mine, torch.stack([mine, torch.full_like(mine, rank)], 1).float())
    bank.write(torch.tensor([10]), torch.tensor([[10.0, rank]]))  # a sampler's padding
    index = NeighbourIndex(2, k=2)
    searched, write = [], index.write_neighbours

    def count(table: Tensor, rows: Tensor, show: bool) -> None:
        searched.append(len(rows))
        write(table, rows, show)

    index.write_neighbours = count  # type: ignore[method-assign]
    found = bank.refresh(index)
    result = bank.state_dict(), found.refreshed, sum(searched), found.received
    torch.save(result, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
