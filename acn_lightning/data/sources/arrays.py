"""Images that are given in Python."""

import os
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from acn_lightning.data.convert import as_bytes, resized
from acn_lightning.data.files import (
    Reader,
    decoded_size,
    identity,
    look_at_files,
    read_files,
    settled,
)
from acn_lightning.data.items import (
    Items,
    decoded_item_size,
    look_at_items,
    read_items,
    split_item,
)
from acn_lightning.data.labels import Label, number_labels, plain_label, plain_labels
from acn_lightning.data.opener import MAX_PIXELS
from acn_lightning.data.pixels import Form, Glance
from acn_lightning.data.sources.base import Outline, Source, Split, Splits, split_off_test
from acn_lightning.data.sources.huggingface import (
    class_names,
    column_labels,
    image_columns,
    is_table,
    label_columns,
    named,
    table_items,
)
from acn_lightning.data.storage import PIECE, Storage
from acn_lightning.utils.errors import UsageError, check_choice, foreign
from acn_lightning.utils.text import as_text, counted


class Given(NamedTuple):
    """Images and labels of a split, as they are given.

    Attributes:
        images: an array, a tensor, a list of images or paths, a torch `Dataset` or a Hugging Face
            one.
        labels: of any kind that `plain_labels` takes; None takes those of a data set.
        name: what errors call one image.
        classes: the classes that its labels are of, if they are a table's.
    """

    images: Any
    labels: Any = None
    name: str = "image"
    classes: Sequence[str] | None = None


class Known(NamedTuple):
    """A split that has been read.

    Attributes:
        labels: as they were given.
        names: of the files; empty if there are none.
        own: whether the images' memory is not the user's.
        bits: bits used of 16-bit grey values; None if there are none.
    """

    images: Tensor
    labels: list[Label]
    names: tuple[str, ...] = ()
    own: bool = True
    bits: int | None = None


class ArraysSource(Source, kind="arrays"):
    """Images that are given in Python, to `acn_lightning.fit`.

    Args:
        train: the training images; None if the source is made from a config.
        test: the test images; None holds out a fixed tenth of the training images.
        classes: names of the classes; None takes those of a table's column, else the labels.
        image_size: [height, width] to resize images to; one number for squares. null keeps their
            size; auto does too if all share one of at most 32 x 32, else it is 32.
        channels: 1 for grey or 3 for RGB; null takes 1 if all images are grey, else 3.
        background: colour behind transparent pixels: a name or `rgb(240,240,240)`.
        bits: how many of 16 bits grey values use, from 8 to 16; null takes as many as the brightest
            pixel of all 16-bit images needs, of 8, 10, 12, 14 and 16.
        unreadable: "stop" at a file that cannot be read, or "skip" it; for lists of paths.
        max_pixels: images of more pixels cannot be read; at most 178956970.
    """

    def __init__(
        self,
        train: Given | None = None,
        test: Given | None = None,
        classes: Sequence[str] | None = None,
        *,
        image_size: Any = None,
        channels: int | None = None,
        background: str = "white",
        bits: int | None = None,
        unreadable: str = "stop",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_choice("data.unreadable", unreadable, ("stop", "skip"))
        self.form = Form.of(
            image_size,
            channels=channels,
            background=background,
            bits=bits,
            max_pixels=max_pixels,
        )
        self.train, self.test, self.classes = train, test, classes
        self.unreadable = unreadable

    @property
    def parts(self) -> list[Given]:
        """What is given.

        Raises:
            UsageError: nothing is, or it is of another kind.
        """
        if self.train is None:
            raise UsageError(
                "data.source: the images of source 'arrays' were given in Python, to "
                "acn_lightning.fit, so they cannot be read from a config. Name another source, "
                "such as data.source=folder data.root=DIR."
            )
        found = [part for part in (self.train, self.test) if part]
        for part in found:
            check_given(part)
        return found

    def outline(self) -> Outline:
        size = sum(self.size_of(part) for part in self.parts)
        if not all(is_paths(part.images) for part in self.parts):
            return Outline(size, None)
        files = [Path(path) for part in self.parts for path in part.images]
        labels = [plain_labels(part.labels, len(part.images)) for part in self.parts]
        options = (self.form, self.unreadable, labels, self.classes, len(self.parts[0].images))
        try:
            return Outline(size, identity(files, *options))
        except (OSError, ValueError):  # which reading reports
            return Outline(size, None)

    def size_of(self, part: Given) -> int:
        """Bytes that the images of a part have when they are decoded, at most."""
        if isinstance(part.images, np.ndarray | Tensor):
            return int(np.prod(part.images.shape))
        if is_paths(part.images):
            files = [Path(path) for path in islice(part.images, 100)]
            return len(part.images) * decoded_size(files, self.form)
        items = items_of(part)
        return items.size * decoded_item_size(items, self.form)

    def read(self) -> Splits:
        """Reads all images and labels.

        Raises:
            UsageError: they have another form, or were not given.
        """
        given = [with_labels(with_bytes(part)) for part in self.parts]
        form = self.form
        if not form.settled:
            form = settled(form, *(look_at(part, form, self.unreadable) for part in given))
        parts = [read_given(part, form, self.storage, self.unreadable) for part in given]
        self.prepared = {"bits": form.bits} if any(part.bits for part in parts) else {}
        known = classes_of(given) if self.classes is None else self.classes
        labels, classes = number_labels([part.labels for part in parts], known)
        splits = [
            Split(part.images, own, part.names) for part, own in zip(parts, labels, strict=True)
        ]
        self.report = told(splits, classes)
        if len(splits) == 1:
            return self.hold_out(parts[0], splits[0], classes)
        refuse_half_labelled(splits)
        return Splits(splits[0], splits[1], classes)

    def hold_out(self, part: Known, split: Split, classes: tuple[str, ...]) -> Splits:
        """Makes a fixed tenth the test split. Arrays of the user's stay as they are."""
        if not part.own:
            split = split._replace(
                images=self.storage.take(split.images, torch.arange(len(split.images)))
            )
        return split_off_test(split, classes, 0.1, "the data set", self.storage, "images")


def told(splits: Sequence[Split], classes: tuple[str, ...]) -> str:
    """What was given, in one line."""
    channels, height, width = splits[0].images.shape[1:]
    count = sum(len(split.images) for split in splits)
    among = f" in {counted(len(classes), 'class', 'classes')}" if classes else ""
    kind = "grey" if channels == 1 else "colour"
    return f"{counted(count, kind + ' image')} of {width} x {height} pixels{among}."


def refuse_half_labelled(splits: Sequence[Split]) -> None:
    """Checks that both splits are labelled, or neither.

    Raises:
        UsageError: only one of them is.
    """
    with_labels = [bool((split.labels >= 0).any()) for split in splits]
    if with_labels[0] != with_labels[1]:
        raise UsageError(
            "test: only one of the training and test images is labelled: test=(images, labels)."
        )


def check_given(part: Given) -> None:
    """Checks that a part holds images, by their number.

    Raises:
        UsageError: it does not.
    """
    images, name = part.images, f"{part.name}s"
    numbered = hasattr(images, "__len__") and hasattr(images, "__getitem__")
    if not numbered or isinstance(images, Mapping | str | bytes | memoryview):
        raise UsageError(
            f"{name} are {type(images).__name__}: give an array, a tensor, a list of images or "
            "paths, or a data set with a length and items by number."
        )
    with foreign(f"{name}: how many there are cannot be told", name):
        size = len(images)
    if not size:
        raise UsageError(f"there are no {name}.")


def with_bytes(part: Given) -> Given:
    """The part; an array is in the form in which images are stored.

    Raises:
        UsageError: an array has another form.
    """
    array = isinstance(part.images, np.ndarray | Tensor)
    return part._replace(images=as_bytes(part.images)) if array else part


def with_labels(part: Given) -> Given:
    """The part; a table's labels are names of its own classes, unless others are given.

    Raises:
        UsageError: it is not clear which column they are.
    """
    if part.labels is not None or not is_table(part.images):
        return part
    found = label_columns(part.images)
    if len(found) > 1:
        raise UsageError(
            f"labels: the data set has several columns of classes: {', '.join(found)}. Choose one: "
            f'fit(ds.rename_column("{found[0]}", "label")), or give labels=ds["{found[0]}"].'
        )
    column = found[0] if found else None
    labels, classes = column_labels(part.images, column), class_names(part.images, column)
    return part._replace(labels=named(labels, classes) if classes else labels, classes=classes)


def classes_of(given: Sequence[Given]) -> list[str] | None:
    """The classes of tables, in their own order; None if labels of a part are others."""
    known = [part.classes for part in given if part.classes]
    return list(dict.fromkeys(chain(*known))) if len(known) == len(given) else None


def look_at(part: Given, form: Form, unreadable: str) -> Collection[Glance]:
    """What is seen of the images of a part, which `with_bytes` returned.

    Raises:
        UsageError: one cannot be looked at.
    """
    images = part.images
    if isinstance(images, Tensor):
        _, channels, height, width = images.shape
        return [Glance(channels == 1, size=(height, width))]
    if is_paths(images):
        return look_at_files(list(map(Path, images)), form, Reader(unreadable))
    return look_at_items(items_of(part), form)


def read_given(part: Given, form: Form, storage: Storage, unreadable: str) -> Known:
    """Reads a part that `with_bytes` returned.

    Args:
        part: the images.
        form: settled.
        storage: where the images are to lie.
        unreadable: see the source.

    Raises:
        UsageError: it has another form.
    """
    images = part.images
    if isinstance(images, Tensor):
        labels = plain_labels(part.labels, len(images))
        return Known(convert(images, form, storage), labels, own=False)
    if is_paths(images):
        return read_paths(part, form, storage, unreadable)
    items = items_of(part)
    given = None if part.labels is None else plain_labels(part.labels, items.size)
    read = read_items(items, form, storage)
    labels = given or [plain_label(one) for one in read.labels]
    return Known(read.images, labels, bits=read.bits)


def read_paths(part: Given, form: Form, storage: Storage, unreadable: str) -> Known:
    """Reads a list of files.

    Raises:
        UsageError: one cannot be read.
    """
    files = [Path(path) for path in part.images]
    labels = plain_labels(part.labels, len(files))
    read = read_files(files, form, unreadable, storage)
    names = tuple(as_text(files[row]) for row in read.rows)
    return Known(read.images, [labels[row] for row in read.rows], names, bits=read.bits)


def items_of(part: Given) -> Items:
    """The images of a list, of a data set or of a table, one at a time."""
    images = part.images
    if is_table(images):
        return table_items(images, part.name, image_column(images))
    if isinstance(images, list | tuple):
        return Items(len(images), lambda row: (images[row], None), part.name)
    return Items(len(images), lambda row: split_item(images[row]), part.name)


def image_column(table: Any) -> str:
    """The column of a table's images.

    Raises:
        UsageError: it is not clear which.
    """
    found = image_columns(table)
    if len(found) != 1:
        names = found or table.column_names
        raise UsageError(
            f"images: it is not clear which column holds them: {', '.join(names)}. Choose one: "
            f'fit(ds.rename_column("{names[0]}", "image")).'
        )
    return found[0]


def is_paths(images: Any) -> bool:
    """Whether images are given as a list of paths."""
    known = isinstance(images, list | tuple) and len(images) > 0
    return known and all(isinstance(one, str | os.PathLike) for one in images)


def convert(images: Tensor, form: Form, storage: Storage) -> Tensor:
    """Arrays in the channels and the size of the form; the same object if they have them."""
    channels = form.channels or images.shape[1]
    shape = (channels, *(form.image_size or images.shape[2:]))
    if tuple(images.shape[1:]) == shape:
        return images
    room = storage.empty((len(images), *shape))
    for some, own in zip(images.split(PIECE), room.split(PIECE), strict=True):
        own.copy_(resized(some, shape))
    return room


def as_given(images: Any, labels: Any, test: Any) -> tuple[Given, Given | None]:
    """What the arguments of `acn_lightning.fit` mean: the training and test images."""
    if isinstance(images, Mapping) and "train" in images:  # a DatasetDict
        test = test if test is not None else images.get("test")
        images = images["train"]
    train = Given(images, labels)
    if test is None:
        return train, None
    pair = test if isinstance(test, tuple) and len(test) == 2 else (test, None)
    return train, Given(pair[0], pair[1], "test image")
