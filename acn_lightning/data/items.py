"""Reads images that come one at a time from Python: from lists, data sets and tables."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from acn_lightning.data.convert import as_bytes
from acn_lightning.data.files import settled
from acn_lightning.data.opener import COMPLAINT, open_bytes, open_image
from acn_lightning.data.pixels import (
    DEEP,
    Form,
    Glance,
    Picture,
    glance_at,
    to_picture,
)
from acn_lightning.data.storage import Storage
from acn_lightning.utils.errors import UnreadableError, UsageError, foreign, keyed
from acn_lightning.utils.progress import progress_bar

AT_ONCE = 256
"""Number of images that are read before the next ones are asked for."""


class Items(NamedTuple):
    """Images to read.

    Attributes:
        size: how many.
        get: returns an image and its label, None for none. An image is one of PIL's, a path, the
            content of a file, an array or a tensor; {"bytes", "path"} stands for the one that is
            not None.
        name: of all, for errors.
        together: whether several may be asked for at once.
    """

    size: int
    get: Callable[[int], tuple[Any, Any]]
    name: str
    together: bool = False

    def at(self, row: int) -> tuple[Any, Any]:
        """An image and its label.

        Raises:
            UsageError: the user's own code, or another package's, raised an error.
        """
        with foreign(f"{self.name} {row} of {self.size:,} cannot be had", self.name):
            return self.get(row)


class ReadItems(NamedTuple):
    """Images that have been read.

    Attributes:
        images: all of them.
        labels: theirs, as they were given.
        bits: bits used of 16-bit grey values; None if there are none.
    """

    images: UInt8[Tensor, "size channel height width"]
    labels: list[Any]
    bits: int | None


def read_items(items: Items, form: Form, storage: Storage) -> ReadItems:
    """Reads images to one form.

    Args:
        items: at least one.
        form: as for `read_files`. What is open in it takes a pass over all images.
        storage: where the images are to lie.

    Raises:
        UsageError: an image cannot be read, or sizes differ and the form names none.
    """
    if not form.settled:
        form = settled(form, look_at_items(items, form))
    first = picture(items.at(0)[0], form, f"{items.name} 0").pixels
    shape = (items.size, form.channels or 3, *first.shape[:2])
    images = storage.empty(shape, f"{items.size:,} images of {words(first)} pixels")
    pixels = images.numpy()
    labels: list[Any] = [None] * items.size
    deep: list[int] = []

    def fill(row: int) -> None:
        given, labels[row] = items.at(row)
        own, _, changes = picture(given, form, f"{items.name} {row}")
        if DEEP in changes:
            deep.append(row)
        if own.shape != first.shape:
            raise UsageError(
                f"data.image_size: images differ in size: {items.name} 0 is {words(first)}, "
                f"{items.name} {row} is {words(own)}. Give one size for all: "
                "data.image_size=[64,64]."
            )
        pixels[row] = own if own.ndim == 2 else own.transpose(2, 0, 1)

    run(fill, items, "reading")
    return ReadItems(images, labels, form.bits if deep else None)


def look_at_items(items: Items, form: Form) -> set[Glance]:
    """What is seen of the images.

    Raises:
        UsageError: one is no image.
    """
    looks: set[Glance] = set()  # of few values

    def one(row: int) -> None:
        looks.add(look(items.at(row)[0], form, f"{items.name} {row}"))

    run(one, items, "looking at")
    return looks


def run(do: Callable[[int], None], items: Items, doing: str) -> None:
    """Calls `do` with each row, several at once if they may be."""
    pool = ThreadPoolExecutor() if items.together else nullcontext()
    with progress_bar(f"{doing} images", "image", total=items.size) as shown, pool as workers:
        for start in range(0, items.size, AT_ONCE):
            rows = range(start, min(start + AT_ONCE, items.size))
            apply = workers.map if isinstance(workers, Executor) else map
            for _ in apply(do, rows):
                pass
            shown.update(len(rows))


def decoded_item_size(items: Items, form: Form) -> int:
    """Bytes that one image takes when it is decoded, at most."""
    channels = form.channels or 3
    if form.image_size is not None:
        return channels * math.prod(form.image_size)
    own = Form(channels=1, background=form.background, bits=16, max_pixels=form.max_pixels)
    return channels * picture(items.at(0)[0], own, f"{items.name} 0").pixels.size


def split_item(item: Any) -> tuple[Any, Any]:
    """(image, label) of an item of a torch `Dataset`.

    Raises:
        UsageError: it is neither an image nor an image with its label.
    """
    if isinstance(item, Mapping) and "image" in item:
        if item.keys() > {"image"} and item.keys() != {"image", "label"}:
            raise UsageError(
                f"the data set's items have the keys {', '.join(map(str, item))}: give image, or "
                "image and label."
            )
        return item["image"], item.get("label")
    if isinstance(item, tuple | list):
        if not 1 <= len(item) <= 2:
            raise UsageError(
                f"the data set's items have {len(item)} parts: give an image, or (image, label)."
            )
        return item[0], item[1] if len(item) == 2 else None
    return item, None


# ---------------------------------------------------------------- one image


def look(given: Any, form: Form, name: str) -> Glance:
    """`glance` at an image of any kind.

    Raises:
        UnreadableError: it is no image.
    """
    with opened(given, form, name) as (image, known_as):
        return glance_at(image, form, known_as)


def picture(given: Any, form: Form, name: str) -> Picture:
    """`read_picture` of an image of any kind.

    Raises:
        UnreadableError: it is no image.
    """
    with opened(given, form, name) as (image, known_as):
        return to_picture(image, form, known_as)


@contextmanager
def opened(given: Any, form: Form, name: str) -> Iterator[tuple[Image.Image, object]]:
    """An image of any kind, open as `open_image` opens files, and what errors call it.

    Raises:
        UnreadableError: it is no image.
    """
    given = only(given)
    if isinstance(given, str | os.PathLike):
        with open_image(Path(given), form.max_pixels) as image:
            yield image, Path(given)
    elif isinstance(given, bytes):
        with open_bytes(given, name, form.max_pixels) as image:
            yield image, name
    else:
        whole = given if isinstance(given, Image.Image) else pil_of(given, name)
        with foreign(name + COMPLAINT, name):
            yield whole, name


def only(given: Any) -> Any:
    """What a table holds of an image: its file's content, else its path."""
    if isinstance(given, Mapping) and given.keys() <= {"bytes", "path"}:
        return given.get("bytes") or given.get("path")
    return given


def pil_of(given: Any, name: str) -> Image.Image:
    """An array (H, W), (H, W, C) or (C, H, W) as an image.

    Raises:
        UsageError: it is no such array.
    """
    if isinstance(given, list):  # as tables hold arrays
        with foreign(name + COMPLAINT, name):
            numbers = np.asarray(given)  # floats must not be cut down to bytes
            given = np.asarray(given, np.uint8) if numbers.dtype.kind in "iu" else numbers
    if not isinstance(given, np.ndarray | Tensor):
        raise UnreadableError(
            f"{name} is of type {type(given).__name__}, not an array, a tensor, a Pillow image "
            "or a file's path."
        )
    with keyed(name, UsageError):
        pixels = as_bytes(given[None])[0].permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))


def words(pixels: np.ndarray) -> str:
    """Width x height."""
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
