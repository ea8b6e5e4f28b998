"""NumPy arrays in one file."""

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from acn_lightning.data.sources.base import Part, Source, check_counts, divide, size_words
from acn_lightning.utils.errors import UsageError, nearest


def read_npz(path: Path) -> Source:
    """NumPy arrays in one file: `images` (N, H, W) or (N, H, W, C), uint8, and optionally `labels`
    (N,) of integers from 0, `test_images`, `test_labels`. Without `test_images` a fixed tenth is
    the test set.

    Raises:
        UsageError: the file is missing or damaged, an array is missing or not of that form.
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
            f"data.root: labels in {path} go up to {highest}, for {len(train.images)} images. "
            "Number the classes from 0."
        )
    classes = tuple(str(label) for label in range(highest + 1))
    return Source(train, test, classes) if test else divide(train, classes, 0.1, str(path))


def load_npz(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Its arrays, or those of the `names` that it has; the others are not read.

    Raises:
        UsageError: the file is missing or damaged, or an array is pickled.
    """
    if not path.is_file():
        what = f"{path} is a folder, no .npz file" if path.is_dir() else f"there is no file {path}"
        raise UsageError(f"data.root: {what}.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {n: arrays[n] for n in arrays.files if names is None or n in names}
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        AttributeError,
        TypeError,
    ) as error:
        raise UsageError(f"data.root: {path} is no readable .npz file ({error}).") from error


def npz_part(content: dict[str, np.ndarray], prefix: str, path: Path) -> Part:
    """The arrays `{prefix}images` and `{prefix}labels`, checked."""
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
            f"data.root: '{name}' in {path} has {images.shape[3]} channels (last), not 1 or 3."
        )
    labels = content.get(f"{prefix}labels")
    if labels is None:
        labels = np.full(len(images), -1)
    elif labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise UsageError(f"data.root: '{prefix}labels' in {path} are not integers from 0, (N,).")
    check_counts(len(images), f"'{name}'", len(labels), f"'{prefix}labels' of {path}")
    tensor = torch.from_numpy(images)
    tensor = tensor[:, None] if images.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()
    return Part(tensor, torch.from_numpy(labels.astype(np.int64)))
