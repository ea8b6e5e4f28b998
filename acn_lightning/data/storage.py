"""Where decoded images lie: in memory, or in files that are mapped into it."""

import errno
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from acn_lightning.data.convert import shared
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.files import FULL, partial_name
from acn_lightning.utils.memory import check_memory

PIECE = 2**12
"""Number of images copied at once."""


class Storage:
    """Makes room for images. Those on disk cost no memory: the system keeps in its page cache, once
    for all processes, what fits beside everything else.

    Args:
        folder: where the files lie; None keeps images in memory.
        named: whether the files keep their names. Else they end with the process.

    Attributes:
        files: the arrays, by the paths of files that keep their names.
    """

    def __init__(self, folder: Path | None = None, named: bool = False) -> None:
        self.folder, self.named = folder, named
        self.numbers = count()
        self.files: dict[Path, Tensor] = {}

    def empty(
        self, shape: Sequence[int], what: str = "images"
    ) -> UInt8[Tensor, "size channel height width"]:
        """Room for images, (N, C, H, W).

        Raises:
            UsageError: there is too little.
        """
        size = math.prod(shape)
        if self.folder is None or not size:
            check_memory(what, size)
            return torch.from_numpy(np.empty(tuple(shape), np.uint8))
        number = f"{next(self.numbers)}.u8"
        path = self.folder / number if self.named else partial_name(self.folder / number)
        with roomy(self.folder, size, what):
            reserve(path, size)
            try:
                array = np.memmap(path, np.uint8, "r+", shape=tuple(shape))
            finally:
                if not self.named:
                    path.unlink()  # the content stays as long as it is mapped
        tensor = torch.from_numpy(array)
        if self.named:
            self.files[path] = tensor
        return tensor

    def take(
        self, images: UInt8[Tensor, "size channel height width"], rows: Int[Tensor, " n"]
    ) -> UInt8[Tensor, "n channel height width"]:
        """A copy of these rows."""
        room = self.empty((len(rows), *images.shape[1:]))
        copy_rows(images, rows, room)
        return room

    def divide(
        self,
        images: UInt8[Tensor, "size channel height width"],
        first: Int[Tensor, " n"],
        last: Int[Tensor, " m"],
    ) -> tuple[Tensor, Tensor]:
        """Moves the rows `last` behind the rows `first`, in place; returns both parts.

        Args:
            images: made by `empty`.
            first, last: ascending; together all rows.
        """
        aside = self.take(images, last)
        copy_rows(images, first, images)  # ascending: none is overwritten before it is copied
        images[len(first) :] = aside
        self.drop(aside)
        return images[: len(first)], images[len(first) :]

    def drop(self, images: Tensor) -> None:
        """Deletes the file of images that are not needed any more."""
        for path, own in list(self.files.items()):
            if own.data_ptr() == images.data_ptr():
                del self.files[path]
                path.unlink()


IN_MEMORY = Storage()


def copy_rows(images: Tensor, rows: Tensor, room: Tensor) -> None:
    """Copies rows of images to the beginning of `room`, in pieces."""
    start = 0
    for some in rows.split(PIECE):
        room[start : start + len(some)] = images.index_select(0, some)
        start += len(some)


def mapped(path: Path, offset: int, shape: Sequence[int]) -> UInt8[Tensor, "size c h w"]:
    """Images in a file, to read only.

    Raises:
        OSError, ValueError: the file is too short or cannot be read.
    """
    return shared(np.memmap(path, np.uint8, "r", offset, tuple(shape)))


def reserve(path: Path, size: int) -> None:
    """Creates a file of that size. Its place on the disk is taken now: a process that writes to a
    mapped file on a full disk is killed without a word."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.ftruncate(descriptor, size)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


@contextmanager
def roomy(folder: Path, size: int, what: str) -> Iterator[None]:
    """Converts the error of a disk with too little room.

    Raises:
        UsageError: it has too little.
    """
    free = shutil.disk_usage(folder).free
    try:
        if size > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except OSError as error:
        if error.errno not in (*FULL, errno.EFBIG):
            raise
        raise UsageError(
            f"data.cache_folder: {what} need {size / 2**30:,.1f} GiB; {folder.parent} has "
            f"{free / 2**30:,.1f} GiB free. Name another folder, or make room."
        ) from error
