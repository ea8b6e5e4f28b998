"""NumPy arrays in one file."""

import math
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from acn_lightning.data.sources.base import (
    Source,
    Split,
    Splits,
    check_counts,
    folder_of,
    size_words,
    split_off_test,
)
from acn_lightning.utils.errors import UsageError, foreign, nearest
from acn_lightning.utils.memory import check_memory


class NpzSource(Source, kind="npz"):
    """NumPy arrays in one file, see `read_npz`.

    Args:
        root: the .npz file.
    """

    def __init__(self, *, root: str | None = None) -> None:
        self.root: Path = folder_of(root, "npz")

    def read(self) -> Splits:
        return read_npz(self.root)


def read_npz(path: Path) -> Splits:
    """Reads arrays from one file: `images` (N, H, W) or (N, H, W, C), uint8, and optionally
    `labels` (N,) of integers from 0, -1 for none, `test_images` and `test_labels`. Without
    `test_images`, a fixed tenth becomes the test split.

    Raises:
        UsageError: the file is missing or damaged, or an array is missing or has another form.
    """
    content = load_npz(path)
    train = npz_part(content, "", path)
    labels = [train.labels]
    test = npz_part(content, "test_", path) if "test_images" in content else None
    if test is not None:
        labels.append(test.labels)
        if train.images.shape[1:] != test.images.shape[1:]:
            raise UsageError(
                f"data.root: in {path} images are {size_words(train.images)} and test_images "
                f"{size_words(test.images)}."
            )
    highest = int(torch.cat(labels).max())
    if highest >= len(train.images):
        raise UsageError(
            f"data.root: labels in {path} go up to {highest}, but there are only "
            f"{len(train.images)} images. Number the classes from 0."
        )
    classes = tuple(str(label) for label in range(highest + 1))
    return Splits(train, test, classes) if test else split_off_test(train, classes, 0.1, str(path))


def load_npz(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Reads all arrays of the file, or only those of `names` that it has.

    Raises:
        UsageError: the file is missing or damaged, or an array is pickled.
    """
    if not path.is_file():
        what = (
            f"{path} is a folder, not an .npz file" if path.is_dir() else f"there is no file {path}"
        )
        raise UsageError(f"data.root: {what}.")
    with foreign(f"data.root: {path} is not a readable .npz file", path):
        with zipfile.ZipFile(path) as archive:
            wanted = [one for one in archive.infolist() if is_array(one, names)]
            for one in wanted:
                check_size(archive, one, path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in (one.filename[:-4] for one in wanted)}


def is_array(member: zipfile.ZipInfo, names: Collection[str] | None) -> bool:
    """Whether a file of the archive is one of the arrays."""
    stem, dot, kind = member.filename.rpartition(".")
    return f"{dot}{kind}" == ".npy" and (names is None or stem in names)


def check_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Checks that an array is as large as its header says, and fits into memory. NumPy allocates
    what the header says.

    Raises:
        UsageError: it is not, or does not.
    """
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, kind = read(file)
        promised, has = math.prod(shape) * kind.itemsize, member.file_size - file.tell()
    check_memory(f"data.root: {member.filename} in {path}", max(promised, member.file_size))
    if promised != has and not kind.hasobject:
        raise UsageError(
            f"data.root: {path} is truncated or damaged: {member.filename} promises {promised:,} "
            f"bytes and has {has:,}."
        )


def npz_part(content: dict[str, np.ndarray], prefix: str, path: Path) -> Split:
    """Checks the arrays `{prefix}images` and `{prefix}labels`, and returns them."""
    name = f"{prefix}images"
    if name not in content:
        raise UsageError(
            f"data.root: {path} has no array '{name}', only {', '.join(content) or 'none'}."
            f"{nearest(name, content)}"
        )
    images = content[name]
    if not images.size:
        raise UsageError(f"data.root: '{name}' in {path} has no images.")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UsageError(
            f"data.root: '{name}' in {path} is {images.dtype} {images.shape}, not uint8 "
            "(N, H, W) or (N, H, W, C)."
        )
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        raise UsageError(
            f"data.root: '{name}' in {path} has {images.shape[3]} channels (last axis), not 1 or 3."
        )
    labels = content.get(f"{prefix}labels")
    if labels is None:
        labels = np.full(len(images), -1)
    elif labels.ndim != 1 or labels.dtype.kind not in "iu" or not is_label(labels):
        raise UsageError(
            f"data.root: '{prefix}labels' in {path} are not integers from 0, or -1 for none, (N,)."
        )
    check_counts(len(images), f"'{name}'", len(labels), f"'{prefix}labels' of {path}")
    tensor = torch.from_numpy(images)
    tensor = tensor[:, None] if images.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()
    return Split(tensor, torch.from_numpy(labels.astype(np.int64)))


def is_label(values: np.ndarray) -> bool:
    """Whether all values are -1, or 64-bit numbers from 0."""
    return bool(values.min(initial=0) >= -1 and values.max(initial=0) < 2**63)
