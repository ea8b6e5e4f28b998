"""The code bank: the posterior mean of each training image, kept under its data-set index."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.distributed import alone, count, gather, own, rank, spread
from acn_lightning.utils.errors import UsageError


class Refresh(NamedTuple):
    """What a rebuild of the neighbour table found.

    Attributes:
        refreshed: codes written since the rebuild before.
        unseen: training rows whose code is still the noise that it started from.
        seconds: wall time of the rebuild, synchronisation included.
        recall: the part of the true K nearest that the index finds; None as long as all codes are
            noise, when nobody asks.
        received: bytes that came to this process over the network.
    """

    refreshed: int
    unseen: int
    seconds: float
    recall: float | None
    received: int


class CodeBank:
    """Stored posterior means c_i, i = 0 ... N - 1, and the table of each one's K neighbours.

    A plain object, neither parameter nor buffer of a module. As a buffer, DDP would overwrite it
    with rank 0's copy before every forward pass; as either, it would stand in the way of loading
    the weights for a data set of another size. So it has its own state in the checkpoint.

    Args:
        labels: class of each of the N images of the training data; -1 where it has none.
        rows: which of the N are trained on. The others (held out for validation) keep a row, so
            that an index means the same image everywhere, but are nobody's neighbours.
        code_size: D.
        seed: of the codes to start from, c_i ~ N(0, I): the same ones in every process.
    """

    def __init__(
        self, labels: Int[Tensor, " size"], rows: Int[Tensor, " n"], code_size: int, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels, self.rows = labels, rows
        self.codes = torch.randn(len(labels), code_size, generator=generator)
        # Which boundary a code was last written after; -1 never.
        self.written = torch.full((len(labels),), -1, dtype=torch.int32)
        self.boundary = 0
        self.neighbours: Tensor | None = None

    def write(self, index: Int[Tensor, " batch"], mean: Float[Tensor, "batch code"]) -> None:
        """Overwrites c_i by the posterior mean of x_i. No gradient flows into the bank."""
        self.codes[index] = mean.detach()
        self.written[index] = self.boundary

    def draw(self, index: Int[Tensor, " batch"]) -> Float[Tensor, "batch code"]:
        """For each x_i the stored code of one of its K neighbours, drawn uniformly.

        Raises:
            UsageError: there is no neighbour table yet.
        """
        neighbours = self.require_neighbours()
        choice = torch.randint(neighbours.shape[1], index.shape, device=index.device)
        return self.codes[neighbours[index, choice]]

    def require_neighbours(self) -> Int[Tensor, "size k"]:
        """The table: a row of K data-set rows for each image, -1 for those not trained on; 32 bits
        each, it is copied into every checkpoint.

        Raises:
            UsageError: there is none yet.
        """
        if self.neighbours is None:
            raise UsageError(
                "The code bank has no neighbour table: give the Trainer the callback "
                "acn_lightning.callbacks.RefreshNeighbours()."
            )
        return self.neighbours

    def refresh(self, index: NeighbourIndex, show: bool = False) -> Refresh:
        """The work of an epoch boundary: every process gets all codes and rebuilds `index` from
        them; each asks it for the neighbours of its share of the rows, and all get the table that
        the next epoch draws from.

        Args:
            index: to rebuild.
            show: whether to show progress, if it takes more than some seconds.
        """
        start = time.perf_counter()
        received = self.synchronise()
        self.neighbours = None  # its memory goes before the next one's comes
        recall = self.rebuild(index, show)
        self.neighbours = self.rows.new_full((len(self.codes), index.k), -1, dtype=torch.int32)
        shares = self.rows.tensor_split(count())
        index.write_neighbours(self.neighbours, shares[rank()], show)
        received += sum(spread(self.neighbours, share, one) for one, share in enumerate(shares))
        written = self.written[self.rows]
        refreshed, unseen = int((written == self.boundary).sum()), int((written < 0).sum())
        self.boundary += 1
        return Refresh(refreshed, unseen, time.perf_counter() - start, recall, received)

    def rebuild(self, index: NeighbourIndex, show: bool = False) -> float | None:
        """Builds `index` from the stored codes, and leaves the neighbour table alone.

        Codes that were never written are noise, and nobody's neighbours as long as there are
        enough others. At the start all of them are noise, as in the paper.

        Returns:
            Its recall; None where all codes are noise.
        """
        seen = self.written[self.rows] >= 0
        candidates = self.rows if seen.all() else self.rows[seen]
        if len(candidates) <= index.k:
            candidates = self.rows
        index.build(self.codes, candidates, show)
        return index.tune(show) if seen.any() else None

    def synchronise(self) -> int:
        """Afterwards all processes hold the codes that any of them wrote since the last boundary.

        Only those rows travel, each once and a chunk at a time. Where a sampler's padding gave one
        image to two processes, the lowest rank's code counts in all of them.

        Returns:
            The bytes that came here.
        """
        if alone():
            return 0
        everyones = gather((self.written == self.boundary).nonzero()[:, 0])
        received = sum(rows.nbytes for one, rows in enumerate(everyones) if one != rank())
        taken = torch.zeros_like(self.written, dtype=torch.bool)
        for one, rows in enumerate(everyones):
            first = rows[~taken[rows]]
            taken[first] = True
            received += spread(self.codes, first, one)
        self.written[taken] = self.boundary
        return received

    @property
    def nbytes(self) -> int:
        """What codes, table and all else here hold, in bytes."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))

    def to(self, device: torch.device) -> "CodeBank":
        """Moves every tensor to `device`."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def state_dict(self) -> dict[str, Any]:
        """Tensors, lists and numbers only, so that `torch.load(..., weights_only=True)` reads it.
        To be called in all processes at once.

        Within an epoch each process has codes that the others get at the boundary only. They are
        kept apart, `pending`: (rows, codes) by rank, beside what all had in common before.
        """
        state = dict(vars(self))
        rows = (self.written == self.boundary).nonzero()[:, 0]
        state["pending"] = list(zip(gather(rows), gather(self.codes[rows]), strict=True))
        if not alone():
            # What this process has overwritten, another still has. (No image is trained on by two
            # before the epoch's last step, where a sampler pads.)
            firsts = state["pending"][0][0]
            state["codes"], state["written"] = self.codes.clone(), self.written.clone()
            spread(state["codes"], firsts, 1)
            spread(state["written"], firsts, 1)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises:
        UsageError: the state is of other data, or of codes of another size.
        """
        same_data = all(
            torch.equal(state[name].cpu(), getattr(self, name).cpu()) for name in ("labels", "rows")
        )
        if not same_data or state["codes"].shape != self.codes.shape:
            raise UsageError(
                f"The checkpoint's bank is of other data: codes {tuple(state['codes'].shape)}, "
                f"{len(state['rows'])} of them trained on; here {tuple(self.codes.shape)} and "
                f"{len(self.rows)}, or other labels."
            )
        device = self.codes.device
        for name in vars(self):
            value = state[name]
            # A copy: what is loaded belongs to the caller.
            setattr(self, name, value.to(device, copy=True) if isinstance(value, Tensor) else value)
        # Another number of processes does not go on within that epoch: it may have all of them.
        pending = state.get("pending", [])
        for rows, codes in [own(pending)] if len(pending) == count() else pending:
            self.write(rows.to(device), codes.to(device))
