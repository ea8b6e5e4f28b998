"""Codes blocks of images with a trained model, by bits-back (Townsend et al., arXiv 1901.04866).

A step of the sender codes several images: it draws codes z from the posterior *with bits of the
stack*, then pushes the images given z and z given its prior. The receiver pops z and the images,
and pushes the posterior's bits back. So an image costs its reconstruction and the KL, not more.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from acn_lightning.compression.ans import PRECISION, Stack, Stacks
from acn_lightning.compression.latents import COARSE, FINE, ExactPrior, Grid, Mixture, Posterior
from acn_lightning.compression.orders import Multiset, Schedule, lanes_of, schedule_for
from acn_lightning.compression.pixels import channels_of, levels_of
from acn_lightning.compression.symbols import (
    Interval,
    pop_numbers,
    push,
    push_numbers,
)
from acn_lightning.networks.decoders import Decoder

ORDERS = ("keep", "free", "tour")
"""Orders of the images: as they are given; none, a set; one in which each is like the last."""

NUMBERS = 1 << 24
"""About the numbers of one layer that are in memory at once."""

LANES = 4
"""Batches that are coded at once: most of the time goes into calls, not into numbers."""

TOUR = 40
"""Images of a lane of a tour. Shorter lanes are faster, and cost more."""

PIXELS = 1 << 14
"""Pixels whose probabilities the sender computes at once."""


class DamagedError(Exception):
    """A block cannot be decoded."""


class Step(NamedTuple):
    """Images that are coded at once.

    Attributes:
        start: position of the first one in the receiver's order.
        size: number of images.
        before: position of the image that precedes the first one in a tour; None at its start, and
            if there is no tour.
        draws: whether codes are drawn with bits of the stack. Not in the sender's first step.
    """

    start: int
    size: int
    before: int | None
    draws: bool

    @property
    def grid(self) -> Grid:
        """Where codes lie."""
        return FINE if self.draws else COARSE


def steps_of(sizes: list[int], tour: bool) -> list[Step]:
    """The receiver's steps."""
    starts = [sum(sizes[:step]) for step in range(len(sizes))]
    before = [None, *starts[:-1]] if tour else [None] * len(sizes)
    draws = [step + 1 < len(sizes) for step in range(len(sizes))]
    return [Step(*one) for one in zip(starts, sizes, before, draws, strict=True)]


class Codec:
    """A model, in the form in which it codes images.

    Args:
        encode: maps images (n, C, H, W), uint8, to codes (n, D), settled and alike on both sides.
        prior: p(z|c) and the marginal.
        decoder: in exact arithmetic.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        prior: ExactPrior,
        decoder: Decoder,
    ) -> None:
        self.encode, self.prior, self.decoder = encode, prior, decoder
        self.posterior = Posterior()
        self.likelihood = decoder.likelihood
        self.scale = 255 // (levels_of(self.likelihood) - 1)
        self.batch = batch_of(decoder)

    def schedule(
        self, images: UInt8[Tensor, "n channel height width"], block: int, order: str
    ) -> Schedule:
        """A schedule that suits what these images cost, judged by some of them.

        Args:
            images: what to code.
            block: images in a block.
            order: "keep", "free" or "tour".
        """
        count = min(64, self.batch)
        some = images[:: max(1, len(images) // count)][:count]
        codes = self.encode(some)
        z = FINE.value(FINE.nearest(codes))
        frequencies = self._intervals_of(some, z)[1].double()
        cost = float((PRECISION * math.log(2) - frequencies.log()).sum()) / len(some)
        needed = codes.shape[1] * (0.5 * math.log(2 * math.pi * math.e) - math.log(FINE.step))
        needed += math.log(self.prior.nearest) if self.prior.has_rows and order != "tour" else 0
        needed += math.log(block) if order == "free" else 0
        lanes = LANES * self.batch
        if order == "tour":  # each lane begins with an image that is given none like it
            lanes = min(lanes, max(1, block // TOUR))
        return schedule_for(cost, needed, lanes)

    # ------------------------------------------------------------ blocks

    def push_blocks(
        self,
        blocks: Sequence[UInt8[Tensor, "n channel height width"]],
        sizes: list[int],
        order: str,
        done: Callable[[int], object] = lambda images: None,
    ) -> Stacks:
        """Codes blocks of equally many images.

        Args:
            blocks: images of each block; for a tour, in its order.
            sizes: of the receiver's steps within a block.
            order: "keep", "free" or "tour".
            done: called with the number of images after each step.
        """
        stacks = Stacks([Stack() for _ in blocks])
        images = torch.stack(list(blocks))
        codes = self.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        choosers = [Chooser(block) for block in blocks] if order == "free" else []
        places = at_positions(sizes, order)
        for step in reversed(steps_of(sizes, order == "tour")):
            own = places[step.start : step.start + step.size].expand(len(blocks), -1)
            if choosers:
                each = zip(choosers, stacks.each, strict=True)
                own = torch.stack([one.pop(stack, step) for one, stack in each])
            before = None
            if step.before is not None:
                before = codes[:, places[step.before : step.before + step.size]].flatten(0, 1)
            row = torch.arange(len(blocks))[:, None]
            self._push_step(
                stacks, step, images[row, own].flatten(0, 1), codes[row, own].flatten(0, 1), before
            )
            done(own.numel())
        return stacks

    def _push_step(
        self, stacks: Stacks, step: Step, images: Tensor, codes: Tensor, before: Tensor | None
    ) -> None:
        grid = step.grid
        z = self.posterior.pop(stacks, codes) if step.draws else grid.nearest(codes)
        drawn = None
        if before is None and self.prior.has_rows:
            drawn = self.prior.pop_rows(stacks if step.draws else None, grid, z)
        self._push_images(stacks, images, grid.value(z))
        mixture = self._mixture(codes if before is None else before, drawn)
        push(stacks, mixture.on(grid), z.flatten())
        if drawn is not None:
            push_numbers(stacks, drawn, len(self.prior.codes))

    def pop_blocks(
        self,
        stacks: Stacks,
        sizes: list[int],
        order: str,
        done: Callable[[int], object] = lambda images: None,
    ) -> UInt8[Tensor, "block n channel height width"]:
        """Decodes blocks: their images as they were given, or with "free" in any order.

        Raises:
            DamagedError: this is not what `push_blocks` returned.
        """
        found = [Multiset() for _ in stacks.each]
        steps: list[Tensor] = []
        codes = torch.empty(len(stacks.each), 0)
        for step in steps_of(sizes, order == "tour"):
            before = None
            if step.before is not None:
                before = codes.unflatten(0, (len(found), -1))[:, : step.size].flatten(0, 1)
            try:
                images, codes = self._pop_step(stacks, step, before)
            except IndexError as error:
                raise DamagedError(str(error)) from error
            steps.append(images.unflatten(0, (len(found), -1)))
            if order == "free":
                for known, stack, some in zip(found, stacks.each, steps[-1], strict=True):
                    for image in reversed(some):
                        known.push(stack if step.draws else None, key_of(image))
            done(len(images))
        if any(stacks.each):
            raise DamagedError("Bits are left over.")
        together = torch.cat(steps, 1)
        given = torch.empty_like(together)
        given[:, at_positions(sizes, order)] = together
        return given

    def _pop_step(self, stacks: Stacks, step: Step, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """The images of a step, and their codes."""
        grid, count, drawn = step.grid, step.size * len(stacks.each), None
        if before is None and self.prior.has_rows:
            drawn = pop_numbers(stacks, count, len(self.prior.codes))
        like = self.prior.codes[:1].expand(count, -1) if before is None else before
        z = self._mixture(like, drawn).on(grid).pop(stacks).view(count, -1)
        images = self._pop_images(stacks, grid.value(z))
        codes = self.encode(images)
        if step.draws:
            if drawn is not None:
                self.prior.push_rows(stacks, grid, z, drawn)
            self.posterior.push(stacks, codes, z)
        return images, codes

    def _mixture(self, codes: Tensor, drawn: Tensor | None) -> Mixture:
        return self.prior.given(codes) if drawn is None else self.prior.of_rows(drawn)

    # ------------------------------------------------------------ images

    def _push_images(self, stacks: Stacks, images: Tensor, z: Tensor) -> None:
        """Pushes images given their codes."""
        some = zip(images.split(self.batch), z.split(self.batch), strict=True)
        pieces = [self._intervals_of(*one) for one in some]
        count = len(stacks.each)
        # Of each stack: pixel by pixel, as the receiver pops them, then channels, stages, images.
        lows, frequencies = (
            torch.cat(part, 2).unflatten(2, (count, -1)).permute(2, 0, 1, 3).flatten(1).tolist()
            for part in zip(*pieces, strict=True)
        )
        stacks.push_all(lows, frequencies)

    def _intervals_of(self, images: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Starts and lengths of intervals (pixels, stages, images), by one pass over all pixels."""
        parameters = self.decoder.describe(z, pixels_of(images))
        of_pixels = parameters.permute(2, 3, 0, 1).flatten(0, 2).split(PIXELS)
        levels = (images // self.scale).permute(2, 3, 0, 1).flatten(0, 2).long().split(PIXELS)
        pieces = [self._intervals(*one) for one in zip(of_pixels, levels, strict=True)]
        low, frequency = (
            torch.cat([torch.stack([getattr(stage, name) for stage in some], 1) for some in pieces])
            for name in Interval._fields
        )
        shape = (-1, len(images), low.shape[1])
        return low.view(shape).transpose(1, 2), frequency.view(shape).transpose(1, 2)

    def _intervals(self, parameters: Tensor, levels: Tensor) -> list[Interval]:
        """The intervals of pixels (n, C): of each channel's stages."""
        channel, earlier = channels_of(self.likelihood, parameters), levels.unbind(1)
        return [
            stage
            for number, own in enumerate(earlier)
            for stage in channel(number, earlier[:number]).intervals(own)
        ]

    def _pop_images(self, stacks: Stacks, z: Tensor) -> Tensor:
        """Pops images given their codes, pixel by pixel."""

        def choose(parameters: Tensor) -> Tensor:
            channel = channels_of(self.likelihood, parameters[:, :, 0, 0])
            levels: list[Tensor] = []
            while len(levels) < channels:
                levels.append(channel(len(levels), levels).pop(stacks))
            return pixels_of(torch.stack(levels, 1) * self.scale)[:, :, None, None]

        channels = self.decoder.image_shape[0]
        return (self.decoder.fill(z, choose) * 255).round().byte()


def batch_of(decoder: Decoder) -> int:
    """Images that a network sees at once, so that they fit into memory."""
    channels, height, width = decoder.image_shape
    wide = max(decoder.likelihood.per_pixel, 64 * channels)
    return max(1, min(256, NUMBERS // (height * width * wide)))


def pixels_of(images: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Bytes as networks take them: from 0 to 1, such that 2 x - 1 is settled."""
    return (images.double() / 255 * 2.0**17).round() / 2.0**17


def key_of(image: UInt8[Tensor, "channel height width"]) -> bytes:
    """An image as bytes."""
    return image.contiguous().numpy().tobytes()


class Chooser:
    """Chooses the images of a set in an order drawn with bits of the stack."""

    def __init__(self, images: UInt8[Tensor, "n channel height width"]) -> None:
        self.rows: dict[bytes, list[int]] = {}
        for row, image in enumerate(images):
            self.rows.setdefault(key_of(image), []).append(row)
        self.left = Multiset(key for key, rows in self.rows.items() for _ in rows)

    def pop(self, stack: Stack, step: Step) -> Int[Tensor, " size"]:
        """The rows of a step's images."""
        bits = stack if step.draws else None
        return torch.tensor([self.rows[self.left.pop(bits)].pop() for _ in range(step.size)])


def at_positions(sizes: list[int], order: str) -> Int[Tensor, " n"]:
    """The image at each position of the receiver's order. A tour is cut into lanes."""
    if order != "tour":
        return torch.arange(sum(sizes))
    return torch.tensor([position for lane in lanes_of(sizes) for position in lane]).argsort()
