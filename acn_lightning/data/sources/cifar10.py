"""CIFAR-10 (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html) as published."""

import io
import pickle
import tarfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from acn_lightning.data.download import Published
from acn_lightning.data.sources.base import (
    Source,
    Split,
    Splits,
    check_counts,
    folder_of,
    require_folder,
)
from acn_lightning.utils.errors import UsageError, foreign, one_line

TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
BINARY, PYTHON = ".bin", ""
"""The endings of file names in the two versions."""
META = {BINARY: "batches.meta.txt", PYTHON: "batches.meta"}
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
ARCHIVES = {"cifar-10-binary.tar.gz": BINARY, "cifar-10-python.tar.gz": PYTHON}
PLANES = 3 * 32 * 32
"""Bytes per image: the rows of red, then of green, then of blue."""

LARGEST = 64 * 2**20
"""Bytes above which a file is none of CIFAR-10's, whose largest has 31 million."""

MOST_CLASSES = 1000


class Cifar10Source(Source, kind="cifar10"):
    """CIFAR-10, see `read_cifar10`.

    Args:
        root: the folder of the published files; what is missing there can be downloaded.
    """

    published = Published(
        ("https://www.cs.toronto.edu/~kriz/",),
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},  # read without unpacking
        (*FOLDERS, *ARCHIVES, "data_batch_1.bin", "data_batch_1"),
    )

    def __init__(self, *, root: str | None = None) -> None:
        self.root: Path = folder_of(root, "cifar10")

    def read(self) -> Splits:
        return read_cifar10(self.root)


def read_cifar10(root: Path) -> Splits:
    """Reads CIFAR-10's binary version (data_batch_1.bin ... data_batch_5.bin, test_batch.bin,
    batches.meta.txt) or its python version (data_batch_1 ... data_batch_5, test_batch,
    batches.meta). The latter are pickles; none of their code is run. The files may be in `root`, in
    the sub-folder that the publisher's archive unpacks to, or in that archive itself.

    Returns:
        Images (N, 3, 32, 32); the classes of the meta file.

    Raises:
        UsageError: a file is missing, damaged, or holds something else.
    """
    place, version = find_version(root)
    files = read_files(place, version)
    meta = META[version]
    classes = read_classes(files[meta], version, place / meta)
    *train, test = (
        read_batch(files[name + version], version, place / (name + version), len(classes))
        for name in (*TRAIN, TEST)
    )
    return Splits(
        Split(torch.cat([one.images for one in train]), torch.cat([one.labels for one in train])),
        test,
        classes,
    )


def find_version(root: Path) -> tuple[Path, str]:
    """Returns (the folder or archive, BINARY or PYTHON)."""
    require_folder(root)
    for folder in (root, *(root / name for name in FOLDERS)):
        for version in (BINARY, PYTHON):
            if any((folder / (name + version)).is_file() for name in (*TRAIN, TEST)):
                return folder, version
    for archive, version in ARCHIVES.items():
        if (root / archive).is_file():
            return root / archive, version
    raise UsageError(
        f"data.root: {root} has no data_batch_1.bin or data_batch_1 of CIFAR-10, no "
        f"{' or '.join(FOLDERS)} with them and no {' or '.join(ARCHIVES)}. Get one from "
        "https://www.cs.toronto.edu/~kriz/cifar.html, or let data.download=true fetch it."
    )


def read_files(place: Path, version: str) -> dict[str, bytes]:
    """Reads every file of the version, by name."""
    names = [*(name + version for name in (*TRAIN, TEST)), META[version]]
    with foreign(f"data.root: {place} is truncated or damaged", place):
        files = (
            {name: read_part(place / name) for name in names if (place / name).is_file()}
            if place.is_dir()
            else unpack(place, names)
        )
    for name in names:
        if name not in files:
            raise UsageError(
                f"data.root: {place} has no {name}. CIFAR-10 consists of {', '.join(names)}."
            )
    return files


def read_part(path: Path) -> bytes:
    """Reads a file that is no larger than those of CIFAR-10.

    Raises:
        UsageError: it is.
    """
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UsageError(f"data.root: {path} is too large to be of CIFAR-10.")
    return content


def unpack(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Reads files from an archive by their names, wherever they lie in it. Links are not followed,
    and reading stops where CIFAR-10 would have ended: a small archive can unpack to any size.

    Raises:
        UsageError: it is too large to be CIFAR-10.
    """
    files = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.offset_data + member.size > 8 * LARGEST:
                raise UsageError(f"data.root: {path} is too large to be CIFAR-10.")
            name = PurePosixPath(member.name).name
            file = archive.extractfile(member) if member.isreg() and name in names else None
            if file:
                files[name] = file.read()
    return files


def read_classes(content: bytes, version: str, path: Path) -> tuple[str, ...]:
    """Reads the class names from the meta file, in the order of their numbers."""
    try:
        names = content.split(b"\n") if version == BINARY else load(content, path)[b"label_names"]
        if len(names) > MOST_CLASSES or not all(isinstance(name, bytes) for name in names):
            raise TypeError("not a list of names")
        classes = tuple(text for name in names if (text := name.decode("ascii").strip()))
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise UsageError(f"data.root: {path} has no class names.") from error
    if not classes:
        raise UsageError(f"data.root: {path} is empty.")
    return classes


def read_batch(content: bytes, version: str, path: Path, classes: int) -> Split:
    """Reads the images and labels of one file."""
    planes, labels = (binary_batch if version == BINARY else python_batch)(content, path)
    if planes.ndim != 2 or planes.shape[1] != PLANES or labels.ndim != 1 or not len(planes):
        raise UsageError(
            f"data.root: {path} has images of shape {planes.shape} and labels {labels.shape}, not "
            f"(N, {PLANES}) and (N,)."
        )
    check_counts(len(planes), path, len(labels), "the same file")
    if labels.min() < 0 or labels.max() >= classes:
        raise UsageError(
            f"data.root: {path} has labels from {labels.min()} to {labels.max()}, but there are "
            f"{classes} classes."
        )
    images = torch.from_numpy(planes.copy()).view(-1, 3, 32, 32)
    return Split(images, torch.from_numpy(labels.astype(np.int64)))


def binary_batch(content: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Splits records of one label byte and the image's bytes into (images, labels)."""
    record = 1 + PLANES
    if len(content) % record:
        raise UsageError(
            f"data.root: {path} is truncated or damaged: its {len(content):,} bytes are not a "
            f"whole number of records of {record:,} bytes."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, 1:], records[:, 0]


def python_batch(content: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Unpickles (images, labels) from a dict with a uint8 array `data` and a list `labels`."""
    batch = load(content, path)
    try:
        _, shape, _, by_columns, raw = batch[b"data"].state
        planes = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C")
        labels = batch[b"labels"]
        # A list may hold one list many times over, in many levels, which NumPy would unfold.
        if type(labels) is not list or not all(type(label) is int for label in labels):
            raise TypeError("its labels are not a list of numbers")
        return planes, np.array(labels, np.int64)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"data.root: {path} is not a batch of CIFAR-10 ({one_line(error)})."
        ) from error


class Inert:
    """Replaces NumPy's array, dtype and constructor in a pickle: keeps what it is given."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def as_bytes(text: str, _encoding: str) -> bytes:
    """Replaces `_codecs.encode(text, "latin1")`, Python 3's way to write bytes in an old pickle."""
    return text.encode("latin1")


HARMLESS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): Inert,
    ("numpy._core.multiarray", "_reconstruct"): Inert,
    ("numpy", "ndarray"): Inert,
    ("numpy", "dtype"): Inert,
    ("_codecs", "encode"): as_bytes,
}
"""What a pickle may call, by module and name, and the replacement that it gets."""


class PlainUnpickler(pickle.Unpickler):
    """Reads values, lists, dicts and NumPy arrays (as `Inert`). A pickle can call anything that it
    names. Here names are only looked up in `HARMLESS`, so nothing else can be called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'!r}")
        return HARMLESS[module, name]


def load(content: bytes, path: Path) -> Any:
    """Unpickles without running any code that the pickle asks for.

    Raises:
        UsageError: the pickle asks for code, or is damaged.
    """
    try:
        return PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises anything
        raise UsageError(
            f"data.root: {path} is refused: it is damaged or not a pickle of plain data and "
            f"NumPy arrays ({type(error).__name__}: {one_line(error)})."
        ) from error
