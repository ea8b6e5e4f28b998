"""Discrete variables with integer probabilities, ready for the entropy coder.

A variable is coded in one or two stages. With two, a value is a coarse digit and a fine one, so
that a receiver computes 2 R probabilities in place of R^2. All arithmetic is exact or a single
operation of IEEE 754, so sender and receiver agree, whatever batches they compute in.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.compression.ans import TOTAL, Stack, Stacks


class Interval(NamedTuple):
    """Where the chosen symbol of each of n variables lies in [0, 2^24).

    Attributes:
        low: its start, (n,).
        frequency: its length, (n,), at least 1.
    """

    low: Int[Tensor, " n"]
    frequency: Int[Tensor, " n"]


class Variables(Protocol):
    """Independent discrete variables, n of them."""

    def intervals(self, symbols: Int[Tensor, " n"]) -> list[Interval]:
        """The intervals to push for given symbols, one for each stage."""
        ...

    def pop(self, stacks: Stacks) -> Int[Tensor, " n"]:
        """Pops a symbol for each variable."""
        ...


def push(stacks: Stacks, variables: Variables, symbols: Int[Tensor, " n"]) -> None:
    """Pushes a symbol for each variable, so that `variables.pop` returns them."""
    push_intervals(stacks, variables.intervals(symbols))


def push_intervals(stacks: Stacks, stages: Sequence[Interval]) -> None:
    """Pushes intervals of several stages, so that the first stage is popped first."""
    count = len(stacks.each)
    lows, frequencies = (
        torch.stack([getattr(stage, name).view(count, -1) for stage in stages], 1).flatten(1)
        for name in Interval._fields
    )
    stacks.push_all(lows.tolist(), frequencies.tolist())


# ---------------------------------------------------------------- one stage


class Binary:
    """Variables of two values.

    Args:
        ones: probability of a 1, (n,).
    """

    def __init__(self, ones: Float[Tensor, " n"]) -> None:
        self.zeros = TOTAL - (ones * TOTAL).floor().clamp(1, TOTAL - 1).long()

    def intervals(self, symbols: Int[Tensor, " n"]) -> list[Interval]:
        one = symbols.bool()
        frequency = torch.where(one, TOTAL - self.zeros, self.zeros)
        return [Interval(torch.where(one, self.zeros, 0), frequency)]

    def pop(self, stacks: Stacks) -> Int[Tensor, " n"]:
        return torch.tensor(stacks.pop_all([(0, zeros, TOTAL) for zeros in self.zeros.tolist()]))


class Weighted:
    """Variables with integer weights.

    Args:
        weights: positive integers, (n, S), of at most 2^20 each and 2^38 in all.
    """

    def __init__(self, weights: Int[Tensor, "n size"]) -> None:
        size = weights.shape[1]
        ends = weights.cumsum(1)
        ends = ends * (TOTAL - size) // ends[:, -1:] + torch.arange(1, size + 1)
        self.edges = torch.cat([ends.new_zeros(len(ends), 1), ends], 1)

    def intervals(self, symbols: Int[Tensor, " n"]) -> list[Interval]:
        low, high = (self.edges.gather(1, symbols[:, None] + one)[:, 0] for one in (0, 1))
        return [Interval(low, high - low)]

    def pop(self, stacks: Stacks) -> Int[Tensor, " n"]:
        return torch.tensor(stacks.pop_all(self.edges.tolist()))


# ---------------------------------------------------------------- two stages


class TwoStage:
    """Variables with R^2 values and a cumulative distribution function.

    Args:
        count: n.
        radix: R.
        cumulative: maps edges (n, E), from 0 to R^2, to the probability of the values below them,
            in [0, 1] and not decreasing. The first and the last edge are not looked up.
    """

    def __init__(
        self,
        count: int,
        radix: int,
        cumulative: Callable[[Int[Tensor, "n edge"]], Float[Tensor, "n edge"]],
    ) -> None:
        self.count, self.radix, self.cumulative = count, radix, cumulative

    def below(self, edges: Int[Tensor, "n edge"]) -> Float[Tensor, "n edge"]:
        """The probability of the values below the edges."""
        inner = self.cumulative(edges.clamp(1, self.radix**2 - 1))
        inner = torch.where(edges <= 0, 0.0, inner)
        return torch.where(edges >= self.radix**2, 1.0, inner)

    def intervals(self, symbols: Int[Tensor, " n"]) -> list[Interval]:
        coarse, fine = symbols // self.radix, symbols % self.radix
        start = coarse * self.radix
        at = torch.stack([start, start + self.radix, symbols, symbols + 1], 1)
        first, last, low, high = self.below(at).unbind(1)
        inside = [
            self.within(one[:, None], first, last, digit[:, None])[:, 0]
            for one, digit in ((low, fine), (high, fine + 1))
        ]
        return [
            between(self.integers(first, coarse), self.integers(last, coarse + 1)),
            between(self.integers(inside[0], fine), self.integers(inside[1], fine + 1)),
        ]

    def pop(self, stacks: Stacks) -> Int[Tensor, " n"]:
        digits = torch.arange(self.radix + 1).expand(self.count, -1)
        edges = self.integers(self.below(digits * self.radix), digits)
        coarse = torch.tensor(stacks.pop_all(edges.tolist()))
        start = coarse[:, None] * self.radix
        below = self.below(start + digits)
        inside = self.within(below, below[:, 0], below[:, -1], digits)
        fine = torch.tensor(stacks.pop_all(self.integers(inside, digits).tolist()))
        return coarse * self.radix + fine

    def within(
        self,
        below: Float[Tensor, "n edge"],
        first: Float[Tensor, " n"],
        last: Float[Tensor, " n"],
        digits: Int[Tensor, "n edge"],
    ) -> Float[Tensor, "n edge"]:
        """Probabilities below edges, given that the value lies between two of them. Where that is
        all but impossible, all values are equally likely."""
        width = (last - first)[:, None]
        inside = (below - first[:, None]) / width.clamp(min=2.0**-30)
        return torch.where(width < 2.0**-23, digits.double() / self.radix, inside)

    def integers(self, below: Tensor, digits: Tensor) -> Tensor:
        """Probabilities below edges as integers, with room for one count for each value."""
        return (below * (TOTAL - self.radix)).floor().long() + digits


def between(low: Int[Tensor, " n"], high: Int[Tensor, " n"]) -> Interval:
    """The interval from `low` to `high`."""
    return Interval(low, high - low)


# ---------------------------------------------------------------- uniform


def uniform_edge(number: int, total: int) -> int:
    """Where the interval of one of `total` equally likely numbers starts."""
    return (number << 24) // total


def uniform_number(quantile: int, total: int) -> int:
    """The number in whose interval a quantile lies."""
    return ((quantile + 1) * total - 1) >> 24


PAGE = 1 << 12
"""Most places on a page."""


def book(total: int) -> tuple[int, int]:
    """(pages, places on each) for `total` numbers, with less than a place on each page too many.

    Example:
        >>> book(9), book(4_097), book(58_000)
        ((1, 9), (2, 2049), (15, 3867))
    """
    pages = -(-total // PAGE)
    return pages, -(-total // pages)


def push_numbers(stacks: Stacks, numbers: Int[Tensor, " n"], total: int) -> None:
    """Pushes numbers from 0 to `total` - 1, all about equally likely: a page and a place on it."""
    pages, places = book(total)
    for stack, some in zip(stacks.each, numbers.view(len(stacks.each), -1).tolist(), strict=True):
        for number in reversed(some):
            for digit, size in ((number % places, places), (number // places, pages)):
                low = uniform_edge(digit, size)
                stack.push(low, uniform_edge(digit + 1, size) - low)


def pop_numbers(stacks: Stacks, count: int, total: int) -> Int[Tensor, " count"]:
    """Pops numbers that `push_numbers` pushed, `count` from all stacks together."""
    pages, places = book(total)
    share = count // len(stacks.each)
    return torch.tensor(
        [
            pop_number(stack, pages) * places + pop_number(stack, places)
            for stack in stacks.each
            for _ in range(share)
        ]
    )


def pop_number(stack: Stack, total: int) -> int:
    """Pops one of `total` equally likely numbers."""
    number = uniform_number(stack.top, total)
    stack.pop(uniform_edge(number, total), uniform_edge(number + 1, total))
    return number
