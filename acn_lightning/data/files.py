"""Reads many image files to one form, several at a time."""

import math
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from acn_lightning.data.opener import open_image
from acn_lightning.data.pixels import DEEP, DEPTHS, Form, Glance, Picture, glance, read_picture
from acn_lightning.data.storage import IN_MEMORY, Storage, copy_rows
from acn_lightning.utils.errors import (
    MACHINE,
    UnreadableError,
    UsageError,
    check_choice,
    keyed,
)
from acn_lightning.utils.progress import progress_bar

S = TypeVar("S")
T = TypeVar("T")

NOTHING = np.empty(0, np.uint8)


class Read(NamedTuple):
    """Images that have been read.

    Attributes:
        images: those that could be read, in the order of their files.
        rows: their rows among the files.
        sizes: (width, height) that each has in its file.
        changes: what was changed in each.
        failed: why the others cannot be read, by file.
        bits: bits used of 16-bit grey values; None if there are none.
    """

    images: UInt8[Tensor, "size channel height width"]
    rows: list[int]
    sizes: list[tuple[int, int]]
    changes: list[tuple[str, ...]]
    failed: dict[Path, str]
    bits: int | None


class Reader:
    """Reads files to one form; notes those that cannot be read, or stops at the first.

    Args:
        unreadable: "stop" or "skip".

    Attributes:
        failed: why files cannot be read, by file.
    """

    def __init__(self, unreadable: str) -> None:
        check_choice("unreadable", unreadable, ("stop", "skip"))
        self.stop = unreadable == "stop"
        self.failed: dict[Path, str] = {}

    def attempt(self, do: Callable[[Path, Form], T], file: Path, form: Form) -> T | None:
        """What `do` makes of a file; None if it cannot be read now or could not before.

        Raises:
            UnreadableError: it cannot be read, and that is to stop.
        """
        if file in self.failed:
            return None
        try:
            return do(file, form)
        except UnreadableError as error:
            if self.stop:
                raise
            self.failed[file] = str(error)
            return None


def read_files(
    files: Sequence[Path],
    form: Form,
    unreadable: str = "stop",
    storage: Storage = IN_MEMORY,
) -> Read:
    """Reads files to one size and number of channels, several in parallel, with a progress bar if
    it takes long.

    Args:
        files: at least one.
        form: what to convert to. Channels that are None become 1 if all images are grey, else 3.
            Bits that are None become as many as the brightest pixel of all 16-bit images needs.
        unreadable: "stop" raises at a file that cannot be read; "skip" leaves it out.
        storage: where the images are to lie.

    Raises:
        UnreadableError: a file cannot be read; with "skip", no file can be read.
        UsageError: sizes differ, and the form names none.
        OSError: the machine failed.
    """
    reader = Reader(unreadable)
    if not form.settled:
        form = settled(form, look_at_files(files, form, reader))
    read = partial(reader.attempt, read_picture, form=form)
    first, pixels = next(
        ((file, one.pixels) for file in files if (one := read(file))), (None, None)
    )
    if first is None or pixels is None:
        why = next(iter(reader.failed.values()))
        raise UnreadableError(f"none of the {len(files):,} images can be read: {why}")
    # Filled in place: a large collection may not fit in memory twice.
    shape = (len(files), form.channels or 3, *pixels.shape[:2])
    stored = storage.empty(shape, f"{len(files):,} images of {size_in_pixels(pixels)} pixels")
    images = stored.numpy()

    def fill(row: int) -> Picture | None:
        picture = read(files[row])
        if picture:
            check_shape(picture.pixels, files[row], pixels, first)
            own = picture.pixels
            images[row] = own if own.ndim == 2 else own.transpose(2, 0, 1)
        return picture and picture._replace(pixels=NOTHING)

    pictures = in_parallel(fill, range(len(files)), "reading images")
    rows = [row for row, picture in enumerate(pictures) if picture]
    kept = [picture for picture in pictures if picture]
    if len(rows) < len(files):
        copy_rows(stored, torch.tensor(rows), stored)
    return Read(
        stored[: len(rows)],
        rows,
        [one.size for one in kept],
        [one.changes for one in kept],
        {file: reader.failed[file] for file in files if file in reader.failed},
        form.bits if any(DEEP in one.changes for one in kept) else None,
    )


def look_at_files(files: Sequence[Path], form: Form, reader: Reader) -> list[Glance]:
    """What is seen of the files that can be looked at.

    Raises:
        UnreadableError: a file cannot be looked at, and that is to stop.
    """
    looks = in_parallel(partial(reader.attempt, glance, form=form), files, "looking at images")
    return [look for look in looks if look]


def settled(form: Form, first: Collection[Glance], *others: Collection[Glance]) -> Form:
    """The form with channels and bits that suit all images, so that all are scaled alike, and with
    a size that suits those of the first part.

    Args:
        form: with parts that are open.
        first: what was seen of the images, or of the training images alone.
        others: of the test images then.
    """
    looks = list(chain(first, *others))
    brightest = max((look.brightest for look in looks), default=0)
    return replace(
        form.with_size_of(look.size for look in first),
        channels=form.channels or (1 if all(look.grey for look in looks) else 3),
        bits=form.bits or next(bits for bits in DEPTHS if brightest < 2**bits),
    )


def in_parallel(do: Callable[[S], T], things: Sequence[S], doing: str) -> list[T]:
    """What `do` returns for each thing, in order."""

    def some(start: int) -> list[T]:
        return [do(thing) for thing in things[start : start + 16]]

    # A task per image would take more memory than the images, if those are small.
    with (
        progress_bar(doing, "image", total=len(things)) as shown,
        ThreadPoolExecutor() as pool,
    ):
        done: list[T] = []
        for results in pool.map(some, range(0, len(things), 16)):
            done += results
            shown.update(len(results))
    return done


def check_shape(pixels: np.ndarray, file: Path, expected: np.ndarray, first: Path) -> None:
    """Checks that an image has the size of the first.

    Raises:
        UsageError: it has not.
    """
    if pixels.shape != expected.shape:
        raise UsageError(
            f"data.image_size: images differ in size: {first} is "
            f"{size_in_pixels(expected)}, {file} is {size_in_pixels(pixels)}. Give one "
            "size for all: data.image_size=[64,64]."
        )


def published_form(image_size: Sequence[int]) -> Form:
    """How colour photographs of a published data set become pixels: they have 8 bits."""
    return Form(image_size=image_size, channels=3, bits=16)


def read_images(
    files: Sequence[Path], form: Form, storage: Storage = IN_MEMORY
) -> UInt8[Tensor, "size channel height width"]:
    """Reads the files of a published data set.

    Raises:
        UsageError: a file cannot be read.
    """
    with keyed("data.root", UnreadableError):
        return read_files(files, form, storage=storage).images


def decoded_size(files: Sequence[Path], form: Form) -> int:
    """Bytes that an image of these files takes when it is decoded, at most."""
    channels = form.channels or 3
    if form.image_size is not None:
        return channels * math.prod(form.image_size)
    for file in files:
        try:
            with open_image(file, form.max_pixels) as image:
                return channels * image.width * image.height
        except UnreadableError:  # which reading reports
            continue
    return 0


def identity(files: Iterable[Path], *options: Any) -> str:
    """A digest by which the same files, decoded in the same way, are known again: from paths, sizes
    and times of change. A file that cannot be looked at, such as a link that leads nowhere, is
    known by its path alone: reading reports it.

    Raises:
        OSError: the machine failed.
    """
    import PIL

    digest = blake2b(repr((PIL.__version__, *options)).encode(), digest_size=16)
    for file in files:
        words = f"{os.fsencode(file)!r}"
        try:
            status = file.stat()
            words += f" {status.st_size} {status.st_mtime_ns} {status.st_ino}"
        except OSError as error:
            if error.errno in MACHINE:
                raise
        digest.update(f"{words}\n".encode())
    return digest.hexdigest()


def size_in_pixels(array: np.ndarray) -> str:
    """Width x height, the order that image programs use."""
    return f"{array.shape[1]} x {array.shape[0]}"
