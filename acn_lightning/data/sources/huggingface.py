"""Data sets in the formats of Hugging Face's `datasets`: Parquet, Arrow, folders of images, and its
hub."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from acn_lightning.data.files import identity, settled
from acn_lightning.data.items import Items, decoded_item_size, look_at_items, read_items
from acn_lightning.data.labels import Label, number_labels, plain_labels
from acn_lightning.data.opener import MAX_PIXELS
from acn_lightning.data.pixels import Form
from acn_lightning.data.sources.base import Outline, Source, Split, Splits, split_off_test
from acn_lightning.utils.errors import UsageError, foreign, nearest
from acn_lightning.utils.files import local_path
from acn_lightning.utils.optional import require_packages
from acn_lightning.utils.text import as_text, counted

OLDEST = 4
"""The first major version of `datasets` that never runs a data set's own code."""

FILES = {".parquet": "parquet", ".arrow": "arrow"}
"""Kinds of single files, by suffix."""

NONE = "none"
"""The value of `data.label` that leaves labels out."""


class HuggingFaceSource(Source, kind="huggingface"):
    """A data set in one of the formats of Hugging Face's `datasets`. No code of a data set is run.

    Args:
        path: a folder of Parquet files, of images, or that `save_to_disk` wrote; a .parquet or
            .arrow file; or the name of a data set on the hub, OWNER/NAME.
        subset_name: which of the data set's configurations; null for its only one.
        split: the training split.
        test_split: the test split; null takes "test", else "validation", else a fixed tenth of
            `split`.
        image: the column of the images; null takes the only one.
        label: the column of the labels; null takes the only column of classes, else "label";
            "none" takes none.
        image_size: [height, width] to resize images to; one number for squares. null keeps their
            size; auto does too if all share one of at most 32 x 32, else it is 32.
        channels: 1 for grey or 3 for RGB; null takes 1 if all images are grey, else 3.
        background: colour behind transparent pixels: a name or `rgb(240,240,240)`.
        bits: how many of 16 bits grey values use, from 8 to 16; null takes as many as the brightest
            pixel of all 16-bit images needs, of 8, 10, 12, 14 and 16.
        max_pixels: images of more pixels cannot be read; at most 178956970.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        subset_name: str | None = None,
        split: str = "train",
        test_split: str | None = None,
        image: str | None = None,
        label: str | None = None,
        image_size: Any = None,
        channels: int | None = None,
        background: str = "white",
        bits: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if path is None:
            raise UsageError(
                "data.path: source 'huggingface' needs a folder or a name: data.path=DIR."
            )
        self.form = Form.of(
            image_size,
            channels=channels,
            background=background,
            bits=bits,
            max_pixels=max_pixels,
        )
        self.path, self.subset_name = path, subset_name
        self.split, self.test_split = split, test_split
        self.image, self.label = image, label
        self.online = False
        self.tables: list[Any] | None = None

    def prepare(self) -> None:
        """Allows that a data set of the hub is downloaded, to the library's own cache."""
        self.online = True

    def outline(self) -> Outline:
        tables = self.load()
        items = [self.items(table) for table in tables]
        size = sum(one.size * decoded_item_size(one, self.form) for one in items)
        known = [getattr(table, "_fingerprint", None) for table in tables]
        files = [Path(one["filename"]) for table in tables for one in table.cache_files]
        options = (self.form, self.image, self.label, *known)
        return Outline(size, identity(files, *options) if all(known) else None)

    def load(self) -> list[Any]:
        """The tables of the training and test splits; only the first if there is no test split.

        Raises:
            UsageError: they cannot be read, or there is no such split.
        """
        if self.tables is None:
            found = load_tables(self.path, self.subset_name, self.online)
            names = [pick_split(found, self.split, "split", self.path)]
            if self.test_split is not None:
                names.append(pick_split(found, self.test_split, "test_split", self.path))
            else:
                others = ("test", "validation")
                names += [one for one in others if one in found and one != self.split][:1]
            self.tables = [found[name] for name in names]
        return self.tables

    def items(self, table: Any) -> Items:
        """The images of a table."""
        return table_items(table, "image", pick_image(table, self.image))

    def read(self) -> Splits:
        """Reads all images and labels.

        Raises:
            UsageError: the data set cannot be read, or has no such split or column; an image cannot
                be read, or sizes differ; or labels are no classes.
        """
        tables, self.tables = self.load(), None
        column = pick_label(tables[0], self.label)
        labels = [column_labels(table, column) for table in tables]
        names = [class_names(table, column) for table in tables]
        known = [one for one in names if one is not None]
        if len(known) == len(tables) and known[0] != known[-1]:
            # The splits number their classes each in its own way, so names are what they share.
            labels = [named(*one) for one in zip(labels, known, strict=True)]
        numbers, classes = number_labels(labels, names[0], "data.label")
        parts = [self.items(table) for table in tables]
        form = self.form
        if not form.settled:
            form = settled(form, *(look_at_items(part, form) for part in parts))
        read = [read_items(part, form, self.storage) for part in parts]
        self.prepared = {"bits": form.bits} if any(part.bits for part in read) else {}
        splits = [Split(part.images, own) for part, own in zip(read, numbers, strict=True)]
        count = sum(len(split.images) for split in splits)
        among = f" in {counted(len(classes), 'class', 'classes')}" if classes else ""
        self.report = f"{as_text(self.path)}: {counted(count, 'image')}{among}."
        if len(splits) == 1:
            return split_off_test(splits[0], classes, 0.1, self.path, self.storage, "data.path")
        return Splits(splits[0], splits[1], classes)


# ---------------------------------------------------------------- tables


def load_tables(path: str, subset_name: str | None, online: bool) -> Mapping[str, Any]:
    """The splits of a data set, by name.

    Raises:
        UsageError: it cannot be read.
    """
    (datasets,) = require_packages("data.source=huggingface", "hf", "datasets")
    if int(datasets.__version__.partition(".")[0]) < OLDEST:
        raise UsageError(
            f"data.source=huggingface needs datasets {OLDEST} or newer, which never runs a data "
            "set's own code: pip install -U datasets."
        )
    local = local_path(path, "data.path")
    if not local.exists():
        refuse_absent(path, online)
    datasets.disable_progress_bars()
    with foreign(f"data.path: {path} cannot be read as a Hugging Face data set", path):
        if local.is_dir() and any((local / name).is_file() for name in SAVED):
            found = datasets.load_from_disk(str(local))
        elif local.is_file():
            if local.suffix not in FILES:
                raise UsageError(f"data.path: {path} is none of {', '.join(FILES)} files.")
            found = datasets.load_dataset(FILES[local.suffix], data_files=str(local))
        else:
            found = datasets.load_dataset(str(local) if local.exists() else path, subset_name)
    return found if isinstance(found, Mapping) else {str(found.split or "train"): found}


SAVED = ("dataset_dict.json", "state.json")
"""Files that `save_to_disk` writes."""


def refuse_absent(path: str, online: bool) -> None:
    """Checks that what is no path here can be the name of a data set on the hub.

    Raises:
        UsageError: it cannot, or downloads are off.
    """
    if path.startswith((".", "~", os.sep)) or path.count("/") > 1 or Path(path).suffix in FILES:
        raise UsageError(f"data.path: there is no {path}.")
    if not online and os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0"):
        raise UsageError(
            f"data.path: there is no folder {path}, and data.download=false. To use what has been "
            "downloaded before, set HF_HUB_OFFLINE=1."
        )


def pick_split(found: Mapping[str, Any], name: str, key: str, path: str) -> str:
    """The name of a split that is there.

    Raises:
        UsageError: it is not there.
    """
    if name not in found:
        raise UsageError(
            f"data.{key}: {path} has no split '{name}', only {', '.join(found)}."
            f"{nearest(name, found)}"
        )
    return name


def is_table(images: Any) -> bool:
    """Whether images are a `Dataset` of Hugging Face's."""
    return type(images).__module__.partition(".")[0] == "datasets" and hasattr(images, "features")


def table_items(table: Any, name: str, column: str) -> Items:
    """The images of a table, without labels. Their files are not decoded by `datasets`, but by our
    own door.

    Args:
        table: a `Dataset` of Hugging Face's.
        name: of its images, for errors.
        column: theirs.
    """
    import datasets

    own = table.select_columns([column]).with_format(None)
    if kind(own, column) == "Image":
        own = own.cast_column(column, datasets.Image(decode=False))
    return Items(len(own), lambda row: (own[row][column], None), name, together=True)


# ---------------------------------------------------------------- columns


def kind(table: Any, column: str) -> str:
    """The name of a column's type."""
    return type(table.features[column]).__name__


def pick_image(table: Any, named: str | None) -> str:
    """The column of the images.

    Raises:
        UsageError: there is no such column, or it is not clear which.
    """
    if named is not None:
        return known_column(table, named, "image")
    found = image_columns(table)
    if len(found) != 1:
        names = ", ".join(found or table.column_names)
        raise UsageError(f"data.image: say which column holds the images: {names}.")
    return found[0]


def pick_label(table: Any, named: str | None) -> str | None:
    """The column of the labels; None for none.

    Raises:
        UsageError: there is no such column, or it is not clear which.
    """
    if named is not None:
        return None if named == NONE else known_column(table, named, "label")
    found = label_columns(table)
    if len(found) > 1:
        raise UsageError(
            f"data.label: say which column holds the labels: {', '.join(found)}, or {NONE}."
        )
    return found[0] if found else None


def image_columns(table: Any) -> list[str]:
    """The columns that may be the images': one, if it is clear which."""
    found = columns_of(table, "Image")
    return ["image"] if len(found) != 1 and "image" in (found or table.column_names) else found


def label_columns(table: Any) -> list[str]:
    """The columns that may be the labels': one, if it is clear which."""
    found = columns_of(table, "ClassLabel")
    return ["label"] if len(found) != 1 and "label" in table.column_names else found


def columns_of(table: Any, wanted: str) -> list[str]:
    """The columns of a kind."""
    return [column for column in table.column_names if kind(table, column) == wanted]


def known_column(table: Any, name: str, key: str) -> str:
    """The name of a column that is there.

    Raises:
        UsageError: it is not there.
    """
    columns: Iterable[str] = table.column_names
    if name not in columns:
        raise UsageError(
            f"data.{key}: there is no column '{name}', only {', '.join(columns)}."
            f"{nearest(name, columns)}"
        )
    return name


def class_names(table: Any, column: str | None) -> Sequence[str] | None:
    """The names that a column of classes gives to its numbers; None for other columns."""
    if column is None or kind(table, column) != "ClassLabel":
        return None
    names: Sequence[str] = table.features[column].names
    return names


def named(labels: list[Label], names: Sequence[str]) -> list[Label]:
    """Labels by the names that their own column gives to its numbers."""
    return [None if one is None else names[int(one)] for one in labels]


def column_labels(table: Any, column: str | None) -> list[Label]:
    """The labels of a table.

    Raises:
        UsageError: they are not classes.
    """
    if column is None:
        return [None] * len(table)
    with foreign(f"data.label: column '{column}' cannot be read", column):
        values = table.select_columns([column]).with_format(None)[:][column]
    return plain_labels(list(values), len(table), "data.label")
