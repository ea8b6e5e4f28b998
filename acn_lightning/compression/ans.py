"""The entropy coder: a stack of symbols (asymmetric numeral systems; Duda, arXiv 1311.2540).

Bits-back coding needs a stack: what is pushed last is popped first, and any distribution's symbols
can be popped from whatever is on it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import numpy as np

PRECISION = 24
"""Probabilities are integers that add up to 2^24."""

TOTAL = 1 << PRECISION
MASK = TOTAL - 1


class Stack:
    """A stack of symbols, each pushed at a cost of log2(2^24 / frequency) bits: rANS with a head of
    64 bits and words of 32, the same as `AnsCoder` of the library constriction.

    Args:
        words: a stack's content, from `words`; none for an empty stack.
    """

    def __init__(self, words: Sequence[int] = ()) -> None:
        self.head, self.bulk = 0, list(words)
        while self.bulk and self.head < 1 << 32:
            self.head = self.head << 32 | self.bulk.pop()

    def push(self, low: int, frequency: int) -> None:
        """Pushes the symbol whose interval of [0, 2^24) starts at `low`."""
        self.push_all([low], [frequency])

    def push_all(self, lows: Sequence[int], frequencies: Sequence[int]) -> None:
        """Pushes symbols, the last one first, so that they are popped in order."""
        head, bulk = self.head, self.bulk
        for low, frequency in zip(reversed(lows), reversed(frequencies), strict=True):
            if head >> 40 >= frequency:
                bulk.append(head & 0xFFFFFFFF)
                head >>= 32
            head = (head // frequency << PRECISION) + low + head % frequency
        self.head = head

    def pop_all(self, tables: Iterable[Sequence[int]]) -> list[int]:
        """Pops a symbol for each table. A table lists where each symbol's interval starts, and 2^24
        at its end. From an empty stack, it pops each table's first symbol."""
        head, bulk, symbols = self.head, self.bulk, []
        for table in tables:
            quantile = head & MASK
            symbol = bisect_right(table, quantile) - 1
            low = table[symbol]
            head = (head >> PRECISION) * (table[symbol + 1] - low) + quantile - low
            if head < 1 << 32 and bulk:
                head = head << 32 | bulk.pop()
            symbols.append(symbol)
        self.head = head
        return symbols

    def pop(self, low: int, high: int) -> None:
        """Pops the symbol whose interval, from `low` to `high`, holds `top`."""
        self.pop_all([(0, low, high, TOTAL)])

    @property
    def top(self) -> int:
        """The 24 bits from which the next symbol would be popped."""
        return self.head & MASK

    @property
    def words(self) -> list[int]:
        """The content, as words of 32 bits."""
        head = [self.head & 0xFFFFFFFF, self.head >> 32]
        while head and not head[-1]:
            head.pop()
        return self.bulk + head

    def __bool__(self) -> bool:
        return bool(self.bulk or self.head)


class Stacks:
    """Several stacks, which take equal shares of each call: the first share is the first stack's.

    Args:
        stacks: the stacks.
    """

    def __init__(self, stacks: Sequence[Stack]) -> None:
        self.each = list(stacks)

    def push_all(self, lows: Sequence[Sequence[int]], frequencies: Sequence[Sequence[int]]) -> None:
        """Pushes symbols on each stack, the last one first."""
        for stack, low, frequency in zip(self.each, lows, frequencies, strict=True):
            stack.push_all(low, frequency)

    def pop_all(self, tables: Sequence[Sequence[int]]) -> list[int]:
        """Pops a symbol for each table."""
        share = len(tables) // len(self.each)
        shares = [tables[share * number : share * (number + 1)] for number in range(len(self.each))]
        popped = zip(self.each, shares, strict=True)
        return [symbol for stack, some in popped for symbol in stack.pop_all(some)]


def to_words(words: Sequence[int]) -> bytes:
    """Words as bytes, little-endian."""
    return np.array(words, dtype="<u4").tobytes()


def from_words(content: bytes) -> list[int]:
    """Words from bytes."""
    words: list[int] = np.frombuffer(content, dtype="<u4").tolist()
    return words
