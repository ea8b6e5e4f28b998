"""Compresses images to a file's content, and back."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from acn_lightning.compression.ans import Stack, Stacks, from_words, to_words
from acn_lightning.compression.codec import LANES, ORDERS, Codec, DamagedError, key_of
from acn_lightning.compression.container import MAX_NEAREST, Block, Container, check_names, invalid
from acn_lightning.compression.model import ARITHMETICS, codec_of, fingerprint, probe
from acn_lightning.compression.orders import MAX_IMAGES, Schedule
from acn_lightning.evaluation.tours import greedy_tour
from acn_lightning.inference.trained_model import TrainedACN
from acn_lightning.utils.errors import UsageError, check_choice

KEPT_BLOCK = 256
"""Images in a block if their order is kept and nothing else was asked for."""


class Options(NamedTuple):
    """How to compress.

    Attributes:
        order: "keep", "free" or "tour".
        block: images in a block; None for the usual number, see `block_of`.
        arithmetic: of the encoder, "exact" or "float".
        nearest: stored codes, those nearest to z, among which the unconditional prior's is chosen.
    """

    order: str = "keep"
    block: int | None = None
    arithmetic: str = "exact"
    nearest: int = 1024

    def block_of(self, count: int) -> int:
        """Images in a block of `count` images. If the order is kept, small blocks cost next to
        nothing; a set or a tour is best in one piece."""
        return self.block or (min(count, KEPT_BLOCK) if self.order == "keep" else count)

    def check(self, count: int) -> None:
        """Checks the options for a number of images.

        Raises:
            UsageError: one is not among the known ones, or out of range.
        """
        check_choice("order", self.order, ORDERS)
        check_choice("arithmetic", self.arithmetic, ARITHMETICS)
        if self.block is not None and not 1 <= self.block <= MAX_IMAGES:
            raise UsageError(f"block: {self.block} is not from 1 to {MAX_IMAGES:,}.")
        if not 1 <= self.nearest <= MAX_NEAREST:
            raise UsageError(
                f"evaluation.unconditional_codes: {self.nearest} is not from 1 to {MAX_NEAREST:,}, "
                "which files allow."
            )
        if self.block_of(count) > MAX_IMAGES:
            raise UsageError(f"block: {count:,} images need several: block={MAX_IMAGES}.")


@torch.no_grad()
def compress_images(
    acn: TrainedACN,
    images: UInt8[Tensor, "n channel height width"],
    options: Options,
    names: Sequence[str] = (),
    done: Callable[[int], object] = lambda images: None,
) -> Container:
    """Compresses images.

    Args:
        acn: the model.
        images: in its shape; 0 or 255 only if its pixels are binary.
        options: how.
        names: of the images, to store; or none.
        done: called with the number of images after each step.

    Raises:
        UsageError: an option is out of range, a name cannot be stored, or the model cannot be used
            to compress.
    """
    options.check(len(images))
    check_names(names)
    codec = codec_of(acn.module, options.nearest, options.arithmetic)
    order = order_of(codec, images, options.order)
    images, block = images[order], options.block_of(len(images))
    schedule = codec.schedule(images, block, options.order)
    blocks = images.split(block)
    stacks: list[Stack] = []
    for group in groups(list(map(len, blocks)), schedule, codec.batch):
        some = [blocks[number] for number in group]
        sizes = schedule.sizes(len(some[0]))
        stacks += codec.push_blocks(some, sizes, options.order, done).each
    coded = zip(stacks, blocks, strict=True)
    return Container(
        options.order, options.arithmetic, len(images), acn.image_shape, block, codec.prior.nearest,
        *schedule, fingerprint(acn.module, acn.image_shape),
        probe(codec, acn.image_shape),
        tuple(names[row] for row in order.tolist()) if names else (),
        tuple(Block(to_words(stack.words), checksum(some)) for stack, some in coded),
    )  # fmt: skip


def order_of(codec: Codec, images: Tensor, order: str) -> Int[Tensor, " n"]:
    """The rows of the images in the order in which they come back."""
    if order == "tour":
        return greedy_tour(codec.encode(images))
    if order == "free":
        keys = [key_of(image) for image in images]
        return torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))
    return torch.arange(len(images))


def groups(sizes: list[int], schedule: Schedule, batch: int) -> list[list[int]]:
    """The numbers of blocks that are coded together: of equal size, and not too many.

    Args:
        sizes: images in each block.
        schedule: of the file.
        batch: images that a network sees at once.
    """
    together = max(1, 2 * LANES * batch // max(schedule.sizes(sizes[0])))
    found: list[list[int]] = []
    for number, size in enumerate(sizes):
        last = found[-1] if found else []
        if last and len(last) < together and sizes[last[0]] == size:
            last.append(number)
        else:
            found.append([number])
    return found


@torch.no_grad()
def decompress_images(
    acn: TrainedACN,
    container: Container,
    path: str,
    wanted: Sequence[int] | None = None,
    done: Callable[[int], object] = lambda images: None,
) -> UInt8[Tensor, "n channel height width"]:
    """Decompresses images.

    Args:
        acn: the model that they were compressed with.
        container: the file.
        path: its name, for errors.
        wanted: numbers of images; None for all of them. Only their blocks are decoded.
        done: called with the number of images after each step.

    Raises:
        UsageError: the file was made with another model or in another environment, or is damaged.
    """
    own = fingerprint(acn.module, acn.image_shape)
    if own != container.fingerprint:
        raise UsageError(
            f"{path} was made with another checkpoint: its model is "
            f"{container.fingerprint.hex()[:12]}, this checkpoint's {own.hex()[:12]}."
        )
    if acn.image_shape != container.image_shape:
        raise invalid(path)
    codec = codec_of(acn.module, container.nearest, container.arithmetic)
    if probe(codec, acn.image_shape) != container.probe:
        raise UsageError(
            f"{path} (arithmetic={container.arithmetic}) cannot be read here: this environment "
            "computes other numbers than the one that it was made in."
        )
    sizes, schedule = container.sizes(), Schedule(container.growth, container.lanes)
    numbers = range(container.count) if wanted is None else wanted
    needed = sorted({number // container.block for number in numbers})
    found: dict[int, Tensor] = {}
    for group in groups([sizes[number] for number in needed], schedule, codec.batch):
        blocks = [needed[place] for place in group]
        stacks = Stacks([Stack(from_words(container.blocks[one].content)) for one in blocks])
        try:
            images = codec.pop_blocks(
                stacks, schedule.sizes(sizes[blocks[0]]), container.order, done
            )
        except DamagedError as error:
            raise UsageError(f"{path} is damaged: block {blocks[0]} cannot be decoded.") from error
        for number, block in zip(blocks, images, strict=True):
            block = block[order_of(codec, block, "free")] if container.order == "free" else block
            if checksum(block) != container.blocks[number].check:
                raise UsageError(f"{path} is damaged: block {number} has other images.")
            found[number] = block
    return torch.stack([found[one // container.block][one % container.block] for one in numbers])


def checksum(images: UInt8[Tensor, "n channel height width"]) -> bytes:
    """8 bytes of a digest of a block's images."""
    return hashlib.sha256(key_of(images)).digest()[:8]
