"""Codes z as discrete variables: the posterior, the prior and the marginal, on a grid.

The grid is finer than the posterior's noise, and bits-back takes what it costs back.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import ndtr
from torch import Tensor

from acn_lightning.compression.ans import TOTAL, Stacks
from acn_lightning.compression.pixels import softmax
from acn_lightning.compression.symbols import Interval, TwoStage, Weighted, push_intervals
from acn_lightning.networks.exact import bell, cumulative, normal, prior_scale, settle
from acn_lightning.networks.priors import MixturePrior


class Grid(NamedTuple):
    """Places of a code's numbers: `radix`^2 multiples of `step` around 0."""

    step: float
    radix: int

    @property
    def middle(self) -> int:
        """The symbol of 0."""
        return self.radix**2 // 2

    def nearest(self, value: Float[Tensor, "..."], margin: int = 0) -> Int[Tensor, "..."]:
        """The symbols nearest to given values, at least `margin` from both ends."""
        symbols = (value / self.step).round().long() + self.middle
        return symbols.clamp(margin, self.radix**2 - 1 - margin)

    def value(self, symbols: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Their values."""
        return (symbols - self.middle).double() * self.step


FINE = Grid(1 / 8, 32)
"""For codes that are drawn from the posterior. Spans -64 to 64."""

COARSE = Grid(3.0, 7)
"""For the first codes, when there are no bits to draw with: about as wide as the posterior."""

REACH = 48
"""Steps of the fine grid to which the posterior extends on both sides: six standard deviations."""


DISTANCES = 1 << 22
"""Distances that are in memory at once."""

CACHED = 1 << 28
"""Most numbers of each part of the priors of all stored codes that are kept in memory."""


class Mixture(NamedTuple):
    """A mixture of Gaussians for each of n numbers, in exact arithmetic: each part (n, M)."""

    weights: Float[Tensor, "n mixture"]
    means: Float[Tensor, "n mixture"]
    scales: Float[Tensor, "n mixture"]

    def on(self, grid: Grid) -> TwoStage:
        """The numbers' variables on a grid."""
        total = self.weights.sum(1, keepdim=True)

        def below(edges: Int[Tensor, "n edge"]) -> Float[Tensor, "n edge"]:
            at = (edges - grid.middle).double().sub_(0.5).mul_(grid.step)
            apart = (at[:, None] - self.means[..., None]) / self.scales[..., None]
            parts = cumulative(normal(), settle(apart))
            return ((self.weights[..., None] * parts).sum(1) / total).clamp(max=1.0)

        return TwoStage(len(self.means), grid.radix, below)


class Posterior:
    """q(z|x) on the fine grid, with the code rounded to it: one table for all.

    The nearest places come first. So if a stack runs out of bits, places near the code are drawn.
    """

    def __init__(self) -> None:
        edges = np.arange(-REACH, REACH + 2) - 0.5
        probabilities = np.diff(ndtr(edges * FINE.step))
        self.offsets = torch.tensor(sorted(range(-REACH, REACH + 1), key=abs))
        counts = np.floor(probabilities * TOTAL).clip(1)[self.offsets.numpy() + REACH]
        counts = counts.astype(np.int64)
        counts[0] += TOTAL - counts.sum()
        self.table: list[int] = [0, *counts.cumsum().tolist()]

    def pop(self, stacks: Stacks, codes: Float[Tensor, "batch code"]) -> Int[Tensor, "batch code"]:
        """Draws z, as symbols of the fine grid, with bits of the stacks."""
        symbols = torch.tensor(stacks.pop_all([self.table] * codes.numel()))
        return FINE.nearest(codes, REACH) + self.offsets[symbols].view(codes.shape)

    def push(
        self, stacks: Stacks, codes: Float[Tensor, "batch code"], z: Int[Tensor, "batch code"]
    ) -> None:
        """Gives the bits of z back.

        Raises:
            IndexError: z cannot come from these codes.
        """
        offsets = (z - FINE.nearest(codes, REACH) + REACH).flatten()
        if len(offsets) and not 0 <= int(offsets.min()) <= int(offsets.max()) <= 2 * REACH:
            raise IndexError("A code is out of its posterior's reach.")
        symbols = self.offsets.argsort()[offsets]
        table = torch.tensor(self.table)
        low, high = table[symbols], table[symbols + 1]
        push_intervals(stacks, [Interval(low, high - low)])


class ExactPrior:
    """p(z|c) in exact arithmetic, and the marginal over stored codes.

    Args:
        prior: a `MixturePrior` in exact arithmetic; None for a standard normal.
        codes: the stored codes c_j, settled, (N, D).
        nearest: number of stored codes, those nearest to z, among which the marginal's is chosen.
    """

    def __init__(
        self, prior: MixturePrior | None, codes: Float[Tensor, "n code"], nearest: int
    ) -> None:
        self.prior, self.codes = prior, codes
        self.nearest = min(nearest, len(codes))
        self.stored: tuple[Tensor, ...] | None = None  # weights, means, scales of all codes
        self.known = torch.zeros(len(codes), dtype=torch.bool)
        # Coarser than the codes, so that distances are exact.
        self.keys = (codes * 2.0**10).round() / 2.0**10
        self.squares = self.keys.square().sum(1)

    def given(self, codes: Float[Tensor, "batch code"]) -> Mixture:
        """p(z|c) for given codes: B x D mixtures."""
        return Mixture(*(part.flatten(0, 1) for part in self._parts(codes)))

    def of_rows(self, rows: Int[Tensor, " batch"]) -> Mixture:
        """p(z|c_j) for rows of the stored codes."""
        return Mixture(*(part.double().flatten(0, 1) for part in self._of_rows(rows)))

    def _parts(self, codes: Tensor) -> tuple[Float[Tensor, "batch code mixture"], ...]:
        """Weights, means and standard deviations."""
        if self.prior is None:
            return tuple(codes.new_full((*codes.shape, 1), one) for one in (1.0, 0.0, 1.0))
        logits, means, log_widths = self.prior.describe(codes).unbind(-1)
        weights = softmax(logits.flatten(0, 1)).view_as(logits)
        return weights, means.clamp(-256, 256), prior_scale()(log_widths).double()

    def _of_rows(self, rows: Int[Tensor, " n"]) -> list[Float[Tensor, "n code mixture"]]:
        """The parts of stored codes, each computed once if they fit. float32 holds them without
        loss."""
        if self.prior is not None and self.codes.numel() * self.prior.mixtures > CACHED:
            rows, places = rows.unique(return_inverse=True)
            each = zip(*(self._parts(self.codes[some]) for some in rows.split(2048)), strict=True)
            return [torch.cat(parts).float()[places] for parts in each]
        anew = rows[~self.known[rows]].unique()
        for some in anew.split(2048):
            parts = [part.float() for part in self._parts(self.codes[some])]
            if self.stored is None:
                size = len(self.codes)
                self.stored = tuple(part.new_empty(size, *part.shape[1:]) for part in parts)
            for kept, part in zip(self.stored, parts, strict=True):
                kept[some] = part
        self.known[anew] = True
        assert self.stored is not None
        return [part.index_select(0, rows) for part in self.stored]

    # ------------------------------------------------------------ the marginal

    @property
    def has_rows(self) -> bool:
        """Whether the marginal needs a stored code: a standard normal is the same for all."""
        return self.prior is not None

    def candidates(self, z: Float[Tensor, "batch code"]) -> Int[Tensor, "batch nearest"]:
        """Rows of the stored codes nearest to z, in ascending order; of several as near as the last
        one, the first."""
        found = []
        for some in z.split(max(1, DISTANCES // len(self.codes))):
            far = self.squares - 2 * some @ self.keys.T  # exact, up to what all have in common
            limit = far.topk(self.nearest, largest=False).values[:, -1:]
            chosen = far <= limit
            if int(chosen.sum()) > self.nearest * len(some):  # ties at the limit
                nearer, ties = far < limit, far == limit
                wanted = self.nearest - nearer.sum(1, keepdim=True)
                chosen = nearer | (ties & (ties.cumsum(1) <= wanted))
            found.append(chosen.nonzero()[:, 1].view(len(some), self.nearest))
        return torch.cat(found)

    def posterior(
        self, z: Float[Tensor, "batch code"], rows: Int[Tensor, "batch nearest"]
    ) -> Int[Tensor, "batch nearest"]:
        """Integer weights of stored codes given z: how likely p(z|c_j) makes it."""
        pieces = zip(z.split(4), rows.split(4), strict=True)
        return torch.cat([self._posterior(*piece) for piece in pieces])

    def _posterior(self, z: Tensor, rows: Tensor) -> Tensor:
        parts = self._of_rows(rows.flatten())
        weights, means, scales = (part.unflatten(0, rows.shape) for part in parts)
        apart = (z.float()[:, None, :, None] - means).div_(scales)
        densities = bell()(apart).mul_(weights).div_(scales)
        # In order: the rounding of sums and products depends on it.
        first, *others = densities.unbind(3)
        total = sum(others, first) + 2.0**-30
        product = torch.ones(rows.shape, dtype=torch.float64)
        for density in total.double().unbind(2):
            product = product * density
            product = (product / product.amax(1, keepdim=True)).clamp_(min=2.0**-60)
        return (product * 2.0**20).floor().clamp(min=1).long()

    def pop_rows(
        self, stacks: Stacks | None, grid: Grid, symbols: Int[Tensor, "batch code"]
    ) -> Int[Tensor, " batch"]:
        """Draws a stored code for each z with bits of the stacks; the best one without stacks."""
        z = grid.value(symbols)
        rows = self.candidates(z)
        weights = self.posterior(z, rows)
        chosen = weights.argmax(1) if stacks is None else Weighted(weights).pop(stacks)
        return rows.gather(1, chosen[:, None])[:, 0]

    def push_rows(
        self,
        stacks: Stacks,
        grid: Grid,
        symbols: Int[Tensor, "batch code"],
        drawn: Int[Tensor, " batch"],
    ) -> None:
        """Gives the bits of drawn rows back.

        Raises:
            IndexError: a row is not among the candidates.
        """
        z = grid.value(symbols)
        rows = self.candidates(z)
        found = rows == drawn[:, None]
        if not bool(found.any(1).all()):
            raise IndexError("A stored code is not near enough.")
        stages = Weighted(self.posterior(z, rows)).intervals(found.int().argmax(1))
        push_intervals(stacks, stages)
