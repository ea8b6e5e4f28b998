"""In which order images are coded, and how many at once."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import NamedTuple

from acn_lightning.compression.ans import Stack
from acn_lightning.compression.symbols import uniform_edge, uniform_number

MAX_IMAGES = 1 << 20
"""Most images in a block, so that each has its part of 24 bits of precision."""


class Schedule(NamedTuple):
    """How many images are coded at once: few while the stack has few bits to draw codes with.

    Attributes:
        growth: images in a step of the sender for each 16 images before it.
        lanes: most images in a step.
    """

    growth: int
    lanes: int

    def sizes(self, images: int) -> list[int]:
        """Images in each of the receiver's steps, which go from the sender's last to its first."""
        sizes: list[int] = []
        sent = 0
        while sent < images:
            sizes.append(max(1, min(self.lanes, images - sent, sent * self.growth // 16)))
            sent += sizes[-1]
        return sorted(sizes, reverse=True)


def schedule_for(nats: float, needed: float, lanes: int) -> Schedule:
    """A schedule that hardly ever lacks bits.

    Args:
        nats: cost of an image.
        needed: nats drawn from the stack for an image before its own are pushed.
        lanes: most images in a step.
    """
    return Schedule(min(255, max(1, int(10 * nats / needed))), lanes)  # 10 of 16, as some cost less


def lanes_of(steps: list[int]) -> list[list[int]]:
    """For each lane, the positions of its images in the receiver's order. A lane is a chain of
    images, one in each step. All lanes start in the first step; some end early."""
    starts = [sum(steps[:step]) for step in range(len(steps))]
    return [
        [start + lane for start, size in zip(starts, steps, strict=True) if lane < size]
        for lane in range(steps[0] if steps else 0)
    ]


class Multiset:
    """Images of which only the set matters: the order in which they are sent is drawn with bits of
    the stack, and so gives these bits back (Severo et al., arXiv 2107.09202).

    Args:
        keys: the images as bytes; equal images share one interval.
    """

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self.keys = sorted(keys)

    def pop(self, stack: Stack | None) -> bytes:
        """Removes and returns an image drawn with bits of the stack; any one without a stack."""
        if stack is None:
            return self.keys.pop()
        key = self.keys[uniform_number(stack.top, len(self.keys))]
        stack.pop(*self._interval(key))
        self.keys.pop(bisect_left(self.keys, key))
        return key

    def push(self, stack: Stack | None, key: bytes) -> None:
        """Adds an image and gives the bits of its choice back, to a stack that they came from."""
        insort(self.keys, key)
        if stack is None:
            return
        low, high = self._interval(key)
        stack.push(low, high - low)

    def _interval(self, key: bytes) -> tuple[int, int]:
        size = len(self.keys)
        return (
            uniform_edge(bisect_left(self.keys, key), size),
            uniform_edge(bisect_right(self.keys, key), size),
        )
