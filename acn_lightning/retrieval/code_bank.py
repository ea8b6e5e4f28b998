"""The code bank: the posterior mean of each training image, kept under its data-set index."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.distributed import (
    broadcast_rows,
    gather,
    of_this_rank,
    rank,
    single_process,
    world_size,
)
from acn_lightning.utils.errors import UsageError


class RefreshReport(NamedTuple):
    """Figures of one rebuild of the neighbour table.

    Attributes:
        refreshed: number of codes written since the last rebuild.
        unseen: number of training rows whose code is still its initial noise.
        seconds: wall time of the rebuild, including synchronisation.
        recall: fraction of the true K nearest that the index finds; None while all codes are
            noise, as it is not measured then.
        received: bytes that this rank received over the network.
    """

    refreshed: int
    unseen: int
    seconds: float
    recall: float | None
    received: int


class CodeBank:
    """Stored posterior means c_i, i = 0 ... N - 1, and the table of each one's K neighbours.

    The bank is a plain object, neither parameter nor buffer of a module. DDP would overwrite a
    buffer with rank 0's copy before every forward pass. Either one would prevent loading the
    weights for a data set of another size. So the bank has its own state in the checkpoint.

    Args:
        labels: class of each of the N images of the training data; -1 if it has none.
        rows: rows of the N images that are trained on. The others (held out for validation) keep a
            row, so that an index means the same image everywhere, but are never neighbours.
        code_size: D.
        seed: seed of the initial codes, c_i ~ N(0, I), which are the same on every rank.
    """

    def __init__(
        self, labels: Int[Tensor, " size"], rows: Int[Tensor, " n"], code_size: int, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels, self.rows = labels, rows
        self.codes = torch.randn(len(labels), code_size, generator=generator)
        # Number of the boundary that a code was last written after; -1 if never written.
        self.written = torch.full((len(labels),), -1, dtype=torch.int32)
        self.boundary = 0
        self.neighbours: Tensor | None = None

    def write(self, index: Int[Tensor, " batch"], mean: Float[Tensor, "batch code"]) -> None:
        """Overwrites c_i with the posterior mean of x_i. No gradient flows into the bank."""
        self.codes[index] = mean.detach()
        self.written[index] = self.boundary

    def draw(self, index: Int[Tensor, " batch"]) -> Float[Tensor, "batch code"]:
        """For each x_i, the stored code of one of its K neighbours, drawn uniformly.

        Raises:
            UsageError: there is no neighbour table yet.
        """
        neighbours = self.require_neighbours()
        choice = torch.randint(neighbours.shape[1], index.shape, device=index.device)
        return self.codes[neighbours[index, choice]]

    def require_neighbours(self) -> Int[Tensor, "size k"]:
        """The table: K data-set rows for each image, -1 for images not trained on. Entries have 32
        bits, because every checkpoint holds a copy of the table.

        Raises:
            UsageError: there is none yet.
        """
        if self.neighbours is None:
            raise UsageError(
                "The code bank has no neighbour table: give the Trainer the callback "
                "acn_lightning.callbacks.RefreshNeighbours()."
            )
        return self.neighbours

    def refresh(self, index: NeighbourIndex) -> RefreshReport:
        """Does the work of an epoch boundary. Every rank gets all codes and rebuilds `index` from
        them; the ranks divide the assignment of codes to its lists. Each rank searches the
        neighbours of its share of the rows, and all get the whole table, which the next epoch draws
        from.

        Args:
            index: index to rebuild.
        """
        start = time.perf_counter()
        received = self.synchronise()
        self.neighbours = None  # frees its memory before the next one is made
        recall = self.rebuild(index, divide=True)
        received += index.received
        self.neighbours = self.rows.new_full((len(self.codes), index.k), -1, dtype=torch.int32)
        shares = self.rows.tensor_split(world_size())
        index.write_neighbours(self.neighbours, shares[rank()])
        table = self.neighbours
        received += sum(broadcast_rows(table, share, one) for one, share in enumerate(shares))
        written = self.written[self.rows]
        refreshed, unseen = int((written == self.boundary).sum()), int((written < 0).sum())
        self.boundary += 1
        return RefreshReport(refreshed, unseen, time.perf_counter() - start, recall, received)

    def rebuild(self, index: NeighbourIndex, divide: bool = False) -> float | None:
        """Builds `index` from the stored codes, without changing the neighbour table.

        Codes that were never written are noise, and not candidates as long as there are enough
        others. At the start all codes are noise, as in the paper.

        Args:
            index: index to rebuild.
            divide: whether the ranks divide the work that can be. All must then call this at once,
                just after `synchronise`: within an epoch their codes differ.

        Returns:
            The index's recall; None if all codes are noise.
        """
        seen = self.written[self.rows] >= 0
        candidates = self.rows if seen.all() else self.rows[seen]
        if len(candidates) <= index.k:
            candidates = self.rows
        index.build(self.codes, candidates, divide)
        return index.tune() if seen.any() else None

    def synchronise(self) -> int:
        """Gives every rank the codes that any rank wrote since the last boundary.

        Only those rows are sent, each once and a chunk at a time. If a sampler's padding gave one
        image to two ranks, all ranks take the code of the lowest one.

        Returns:
            The bytes that this rank received.
        """
        if single_process():
            return 0
        everyones = gather((self.written == self.boundary).nonzero()[:, 0])
        received = sum(rows.nbytes for one, rows in enumerate(everyones) if one != rank())
        taken = torch.zeros_like(self.written, dtype=torch.bool)
        for one, rows in enumerate(everyones):
            first = rows[~taken[rows]]
            taken[first] = True
            received += broadcast_rows(self.codes, first, one)
        self.written[taken] = self.boundary
        return received

    @property
    def nbytes(self) -> int:
        """Bytes held by codes, table and all other tensors here."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))

    def to(self, device: torch.device) -> "CodeBank":
        """Moves every tensor to `device`."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def state_dict(self) -> dict[str, Any]:
        """Tensors, lists and numbers only, so that `torch.load(..., weights_only=True)` reads it.
        Call it on all ranks at once.

        Within an epoch, each rank has codes that the others get only at the boundary. They are
        stored separately as `pending`, (rows, codes) by rank, beside what all ranks shared before.
        """
        state = dict(vars(self))
        rows = (self.written == self.boundary).nonzero()[:, 0]
        state["pending"] = list(zip(gather(rows), gather(self.codes[rows]), strict=True))
        if not single_process():
            # Rank 1 still has the shared codes that rank 0 has overwritten. (Two ranks never train
            # on the same image before the epoch's last step, where a sampler pads.)
            firsts = state["pending"][0][0]
            state["codes"], state["written"] = self.codes.clone(), self.written.clone()
            broadcast_rows(state["codes"], firsts, 1)
            broadcast_rows(state["written"], firsts, 1)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            UsageError: the state belongs to other data, or to codes of another size.
        """
        same_data = all(
            torch.equal(state[name].cpu(), getattr(self, name).cpu()) for name in ("labels", "rows")
        )
        if not same_data or state["codes"].shape != self.codes.shape:
            raise UsageError(
                "The checkpoint's bank belongs to other data: codes "
                f"{tuple(state['codes'].shape)}, {len(state['rows'])} of them trained on; this run "
                f"has {tuple(self.codes.shape)} and {len(self.rows)}, or other labels."
            )
        device = self.codes.device
        for name in vars(self):
            value = state[name]
            # A copy, because the loaded state belongs to the caller.
            setattr(self, name, value.to(device, copy=True) if isinstance(value, Tensor) else value)
        # A different world size cannot resume mid-epoch, so it loads every rank's pending codes.
        pending = state.get("pending", [])
        for rows, codes in [of_this_rank(pending)] if len(pending) == world_size() else pending:
            self.write(rows.to(device), codes.to(device))
