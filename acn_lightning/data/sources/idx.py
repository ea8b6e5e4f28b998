"""IDX files, the format of MNIST and Fashion-MNIST."""

import gzip
import math
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acn_lightning.data.download import Published
from acn_lightning.data.sources.base import (
    Source,
    Split,
    Splits,
    check_counts,
    folder_of,
    require_folder,
    size_words,
)
from acn_lightning.utils.errors import UsageError, foreign
from acn_lightning.utils.memory import check_memory


class IdxSource(Source, kind="idx"):
    """Files in MNIST's format, see `read_idx`.

    Args:
        root: the folder of the files.
    """

    def __init__(self, *, root: str | None = None) -> None:
        self.root: Path = folder_of(root, self.kind)

    def read(self) -> Splits:
        return read_idx(self.root)


class MnistSource(IdxSource, kind="mnist"):
    """MNIST (LeCun, Cortes and Burges).

    Args:
        root: the folder of the published files; what is missing there can be downloaded.
    """

    published = Published(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    )


class FashionMnistSource(MnistSource, kind="fashion_mnist"):
    """Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747).

    Args:
        root: the folder of the published files; what is missing there can be downloaded.
    """

    published = Published(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    )

    def read(self) -> Splits:
        found = super().read()
        named = len(found.classes) == len(CLOTHES)
        return found._replace(classes=CLOTHES) if named else found


CLOTHES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""The class names that Fashion-MNIST's publisher gives."""


def read_idx(root: Path) -> Splits:
    """Reads a folder in MNIST's file layout, with files plain or .gz.

    Raises:
        UsageError: a file is missing, damaged or not IDX; or counts or sizes differ.
    """
    train, test = (read_idx_part(root, prefix) for prefix in ("train", "t10k"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UsageError(
            f"data.root: in {root} training images are {size_words(train.images)} and test images "
            f"{size_words(test.images)}."
        )
    highest = int(max(train.labels.max(), test.labels.max()))
    return Splits(train, test, tuple(str(label) for label in range(highest + 1)))


def read_idx_part(root: Path, prefix: str) -> Split:
    """Reads the images and labels of one part; `prefix` is train or t10k."""
    images_path, labels_path = (
        find_idx(root, f"{prefix}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    images, labels = read_idx_file(images_path, 3), read_idx_file(labels_path, 1)
    check_counts(len(images), images_path, len(labels), labels_path)
    return Split(images[:, None], labels.long())


def find_idx(root: Path, name: str) -> Path:
    """Finds the file of that name, with or without .gz."""
    require_folder(root)
    for path in (root / f"{name}.gz", root / name):
        if path.is_file():
            return path
    raise UsageError(
        f"data.root: {root} has no {name} or {name}.gz. Point data.root at a folder with the IDX "
        "files, or set data.download=true if the source is a published data set."
    )


def read_idx_file(path: Path, dimensions: int) -> Tensor:
    """Reads an IDX file of unsigned bytes (format: LeCun's MNIST page): four magic bytes, the sizes
    as big-endian 32-bit integers, then the data.

    Raises:
        UsageError: it is truncated, damaged, empty or another kind of file.
    """
    with foreign(f"data.root: {path} is truncated or damaged", path), path.open("rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        with gzip.open(file) if packed else file as plain:
            return read_idx_stream(plain, path, dimensions)


def read_idx_stream(file: BufferedIOBase, path: Path, dimensions: int) -> Tensor:
    """Reads an IDX file, and no more of it than its header promises: a small file can unpack to
    any size.

    Raises:
        UsageError: as for `read_idx_file`.
    """
    size = 4 + 4 * dimensions
    header = file.read(size)
    if header[:4] != bytes([0, 0, 8, dimensions]) or len(header) < size:
        raise UsageError(f"data.root: {path} is not an IDX file of {dimensions}-dimensional bytes.")
    shape = np.frombuffer(header, ">u4", dimensions, offset=4).tolist()
    if not math.prod(shape):
        raise UsageError(f"data.root: {path} is empty.")
    promised = math.prod(shape)
    check_memory(f"data.root: {path}", promised)
    content = file.read(promised + 1)
    if len(content) != promised:
        has = "more" if len(content) > promised else f"{len(content):,}"
        raise UsageError(
            f"data.root: {path} is truncated or damaged: it promises {promised:,} bytes of data "
            f"and has {has}."
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(shape)
