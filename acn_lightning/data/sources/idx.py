"""IDX files, the format of MNIST and Fashion-MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acn_lightning.data.sources.base import Part, Source, check_counts, require_folder, size_words
from acn_lightning.utils.errors import UsageError


def read_idx(root: Path) -> Source:
    """A folder in MNIST's file layout, files plain or .gz.

    Raises:
        UsageError: a file is missing, damaged or no IDX; counts or sizes differ.
    """
    train, test = (read_idx_part(root, prefix) for prefix in ("train", "t10k"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UsageError(
            f"data.root: in {root} training images are {size_words(train.images)} and test images "
            f"{size_words(test.images)}."
        )
    highest = int(max(train.labels.max(), test.labels.max()))
    return Source(train, test, tuple(str(label) for label in range(highest + 1)))


def read_idx_part(root: Path, prefix: str) -> Part:
    """The images and labels of one part: `prefix` is train or t10k."""
    images_path, labels_path = (
        find_idx(root, f"{prefix}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    images, labels = read_idx_file(images_path, 3), read_idx_file(labels_path, 1)
    check_counts(len(images), images_path, len(labels), labels_path)
    return Part(images[:, None], labels.long())


def find_idx(root: Path, name: str) -> Path:
    """The file of that name, with or without .gz."""
    require_folder(root)
    for path in (root / f"{name}.gz", root / name):
        if path.is_file():
            return path
    raise UsageError(
        f"data.root: {root} has no {name} or {name}.gz. Point data.root at a folder with the IDX "
        "files, or let data.download=true fetch them where the source is a published one."
    )


def read_idx_file(path: Path, dimensions: int) -> Tensor:
    """An IDX file of unsigned bytes (format: LeCun's MNIST page): four bytes of magic, the sizes
    as big-endian 32-bit integers, the data.

    Raises:
        UsageError: it is truncated, damaged, or another kind of file.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"data.root: {path} is truncated or damaged ({error}).") from error
    header = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < header:
        raise UsageError(f"data.root: {path} is no IDX file of {dimensions}-dimensional bytes.")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    if len(content) - header != math.prod(shape):
        raise UsageError(
            f"data.root: {path} is truncated or damaged: it promises {math.prod(shape):,} bytes of "
            f"data and has {len(content) - header:,}."
        )
    if not shape[0]:
        raise UsageError(f"data.root: {path} is empty.")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())
