"""ImageNet's ILSVRC2012 (https://image-net.org) as published, downsampled or as JPEG files."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from acn_lightning.data.files import decoded_size, identity, published_form, read_images
from acn_lightning.data.listing import Part, list_part
from acn_lightning.data.pixels import parse_size
from acn_lightning.data.sources.base import (
    Outline,
    Source,
    Split,
    Splits,
    check_counts,
    folder_of,
    read_lines,
    require_files,
    require_folder,
    require_size,
    size_words,
)
from acn_lightning.data.sources.npz import load_npz
from acn_lightning.data.storage import IN_MEMORY, Storage
from acn_lightning.utils.errors import UsageError, keyed
from acn_lightning.utils.text import as_text

TRAIN = tuple(f"train_data_batch_{number}" for number in range(1, 11))
VALIDATION = "val_data"
CLASSES = tuple(str(number) for number in range(1, 1001))
"""The downsampled version numbers its classes from 1."""
SOLUTION = "LOC_val_solution.csv"
LAYOUTS = (
    "ImageNet is train_data_batch_1.npz to train_data_batch_10.npz and val_data.npz, or train/ and "
    "val/ with a sub-folder for each class, or these in Kaggle's ILSVRC/Data/CLS-LOC."
)


class ImageNetSource(Source, kind="imagenet"):
    """ImageNet's ILSVRC2012: the npz files of the downsampled version, or JPEG files.

    Args:
        root: the folder of train_data_batch_1.npz ... and val_data.npz, or of train/WNID/*.JPEG and
            val/WNID/*.JPEG, also as Kaggle has them. JPEG files need `data.image_size`.
        image_size: [height, width] to resize JPEG files to; one number for squares; auto is 32.
            null for the downsampled version, whose images have one size.
    """

    def __init__(self, *, root: str | None = None, image_size: Any = None) -> None:
        self.root: Path = folder_of(root, "imagenet")
        self.image_size = parse_size(image_size)

    def outline(self) -> Outline | None:
        base = base_of(self.root)
        if self.image_size is None or not ((base / "train").is_dir() and (base / "val").is_dir()):
            return None
        files = [file for part in list_parts(base) for file in part.files]
        table = self.root / SOLUTION
        known = identity([*files, *([table] if table.is_file() else [])], self.image_size)
        return Outline(len(files) * decoded_size(files, published_form(self.image_size)), known)

    def read(self) -> Splits:
        return read_imagenet(self.root, self.image_size, self.storage)


def read_imagenet(
    root: Path, image_size: Sequence[int] | None, storage: Storage = IN_MEMORY
) -> Splits:
    """Reads ILSVRC2012. Its published test part has no labels, so its validation part is the test
    split.

    Args:
        root: a folder in one of three layouts. Downsampled (Chrabaszcz, Loshchilov and Hutter
            2017, https://arxiv.org/abs/1707.08819), npz version: `train_data_batch_1.npz` ...
            `train_data_batch_10.npz` and `val_data.npz`, each with `data` (N, 3 x side x side)
            and `labels` from 1 to 1000. Or files `train/WNID/*.JPEG` and `val/WNID/*.JPEG`. Or
            Kaggle's: both under `ILSVRC/Data/CLS-LOC`, where `val/*.JPEG` has no sub-folders and
            `LOC_val_solution.csv` gives the classes.
        image_size: (height, width) to resize JPEG files to; None for the downsampled version.
        storage: where decoded JPEG files are to lie.

    Returns:
        Images (N, 3, height, width); the classes are "1" to "1000" for the downsampled version,
        else the sorted WNIDs.

    Raises:
        UsageError: a part is missing, damaged or has another form; or `image_size` is given for the
            downsampled version or missing for JPEG files.
    """
    require_folder(root)
    names = (*TRAIN, VALIDATION)
    if any((root / f"{name}.npz").is_file() for name in names):
        if image_size is not None:
            raise UsageError(
                f"data.image_size: the images in {root} are downsampled already. Leave it out, or "
                "download the version of that size."
            )
        return read_downsampled(root)
    if any((root / name).is_file() for name in names):
        raise UsageError(
            f"data.root: {root} has the pickled version of downsampled ImageNet. Take the npz "
            "version, from the same page of https://image-net.org: a pickle can run code."
        )
    return read_files(root, image_size, storage)


def read_downsampled(root: Path) -> Splits:
    """Reads the npz version."""
    train, test = [root / f"{name}.npz" for name in TRAIN], root / f"{VALIDATION}.npz"
    layout = f"Downsampled ImageNet consists of {TRAIN[0]}.npz to {TRAIN[-1]}.npz and {test.name}."
    require_files(root, [path.name for path in (*train, test)], layout)
    parts = read_batches(train), read_batches([test])
    if parts[0].images.shape[1:] != parts[1].images.shape[1:]:
        raise UsageError(
            f"data.root: in {root} training images are {size_words(parts[0].images)} and those of "
            f"{test.name} {size_words(parts[1].images)}."
        )
    return Splits(*parts, CLASSES)


def read_batches(paths: Sequence[Path]) -> Split:
    """Reads all batches into one split. Labels are read first, to know how much to allocate: only
    one batch's images are ever in memory twice."""
    labels = [batch_labels(path) for path in paths]
    images, start = torch.empty(0, dtype=torch.uint8), 0
    for path, own in zip(paths, labels, strict=True):
        batch = batch_images(path)
        check_counts(len(batch), path, len(own), "the same file")
        if not images.numel():
            images = batch.new_empty(sum(map(len, labels)), *batch.shape[1:])
        if batch.shape[1:] != images.shape[1:]:
            raise UsageError(
                f"data.root: images in {path} are {size_words(batch)}, in {paths[0].name} "
                f"{size_words(images)}."
            )
        images[start : start + len(batch)] = batch
        start += len(batch)
    return Split(images, torch.cat(labels))


def batch_labels(path: Path) -> Int[Tensor, " size"]:
    """Reads the array `labels`, renumbered from 0."""
    labels = load_npz(path, ("labels",)).get("labels", np.empty(0))
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise UsageError(f"data.root: {path} has no array 'labels' (N,) of integers.")
    if labels.min() < 1 or labels.max() > len(CLASSES):
        raise UsageError(
            f"data.root: {path} has labels from {labels.min()} to {labels.max()}, not within 1 to "
            f"{len(CLASSES)}."
        )
    return torch.from_numpy(labels.astype(np.int64)) - 1


def batch_images(path: Path) -> UInt8[Tensor, "size 3 side side"]:
    """Reads the array `data`: an image is its rows of red, then of green, then of blue."""
    data = load_npz(path, ("data",)).get("data", np.empty(0))
    side = math.isqrt(data.shape[1] // 3) if data.ndim == 2 else 0
    if not side or data.dtype != np.uint8 or data.shape[1] != 3 * side**2:
        raise UsageError(
            f"data.root: {path} has no array 'data' of uint8 (N, 3 x side x side), but "
            f"{data.dtype} {data.shape}."
        )
    return torch.from_numpy(data).view(-1, 3, side, side)


def base_of(root: Path) -> Path:
    """The folder of `train` and `val`, the publisher's or Kaggle's."""
    inner = root / "ILSVRC" / "Data" / "CLS-LOC"
    return inner if inner.is_dir() else root


def list_parts(base: Path) -> tuple[Part, Part]:
    """The JPEG files of `train` and `val`."""
    with keyed("data.root", UsageError):
        return list_part(base / "train"), list_part(base / "val")


def read_files(root: Path, image_size: Sequence[int] | None, storage: Storage) -> Splits:
    """Reads the JPEG files, in the publisher's folders or Kaggle's."""
    base = base_of(root)
    require_files(base, ("train/", "val/"), LAYOUTS)
    size = require_size(image_size, "ImageNet")
    train, test = list_parts(base)
    wnids = [wnid for wnid in train.labels if wnid]
    if not wnids:
        raise UsageError(f"data.root: {base / 'train'} has no sub-folders. Give each class one.")
    test_wnids = [wnid for wnid in test.labels if wnid]
    test_wnids = test_wnids or read_solution(root / SOLUTION, test.files)
    classes = sorted(set(wnids))
    label = {wnid: number for number, wnid in enumerate(classes)}
    if unknown := next((wnid for wnid in test_wnids if wnid not in label), None):
        raise UsageError(
            f"data.root: images in {base / 'val'} are of class {unknown}, which {base / 'train'} "
            "does not have."
        )
    form = published_form(size)
    train_part, test_part = (
        Split(
            read_images(files, form, storage),
            torch.tensor([label[wnid] for wnid in names]),
            tuple(map(as_text, files)),
        )
        for files, names in ((train.files, wnids), (test.files, test_wnids))
    )
    return Splits(train_part, test_part, tuple(classes))


def read_solution(path: Path, files: Sequence[Path]) -> list[str]:
    """Reads the class of each file from Kaggle's table. ImageId is the file's name without .JPEG,
    and PredictionString begins with the WNID."""
    require_files(
        path.parent, [path.name], "Images of val/ need it, or a sub-folder for each class."
    )
    try:
        rows = csv.DictReader(read_lines(path))
        wnids = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (KeyError, AttributeError, IndexError, csv.Error) as error:
        raise UsageError(
            f"data.root: {path} is not a table of ImageId,PredictionString, or is truncated."
        ) from error
    check_counts(len(files), files[0].parent, len(wnids), path)
    if absent := next((file for file in files if file.stem not in wnids), None):
        raise UsageError(f"data.root: {path} has no row for {absent}.")
    return [wnids[file.stem] for file in files]
