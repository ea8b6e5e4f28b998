"""Data sources: what they return, and helpers that they share."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Int, UInt8
from torch import Tensor

from acn_lightning.data.download import Published, download
from acn_lightning.data.storage import IN_MEMORY, Storage
from acn_lightning.data.subsets import held_out_rows
from acn_lightning.utils.errors import UsageError, foreign
from acn_lightning.utils.files import local_path
from acn_lightning.utils.registry import Registered
from acn_lightning.utils.text import shape_words


class Split(NamedTuple):
    """Images and their classes, -1 for an image without one.

    Attributes:
        names: the images' files; empty if they are rows of a larger file.
    """

    images: UInt8[Tensor, "size channel height width"]
    labels: Int[Tensor, " size"]
    names: tuple[str, ...] = ()

    def at(self, rows: Int[Tensor, " n"], images: Tensor | None = None) -> "Split":
        """The given rows of this split.

        Args:
            rows: which.
            images: theirs, if they have been taken already.
        """
        names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        return Split(self.images[rows] if images is None else images, self.labels[rows], names)

    @property
    def fingerprint(self) -> str:
        """The number of images, and a checksum of them and their labels."""
        digest = sha256(str(tuple(self.images.shape)).encode())
        digest.update(self.labels.numpy().tobytes())
        for some in self.images.split(2**14):
            digest.update(some.contiguous().numpy())
        return f"{len(self.images):,} images, {digest.hexdigest()[:16]}"


class Splits(NamedTuple):
    """A data set: the training split, the test split and the class names."""

    train: Split
    test: Split
    classes: tuple[str, ...]


class Outline(NamedTuple):
    """What is known about images before they are decoded.

    Attributes:
        size: bytes that they will have, at most.
        identity: by which the same images, decoded in the same way, are known again; None if they
            cannot be.
    """

    size: int
    identity: str | None


class Source(Registered, key="data.source"):
    """Where images come from. A subclass names its kind, which `data.source` chooses. The
    keyword-only arguments of its constructor are keys of the config's section `data`.

    Attributes:
        published: files that can be downloaded if they are missing; None if there are none.
        root: where the files are; None for a source without files.
        report: once the images are read, a line about what was read, converted and left out; empty
            if there is nothing to tell.
        prepared: once the images are read, options that were found in them, and with which other
            images have to be prepared alike.
        storage: where it puts images that it decodes. `cache.read_source` sets it.
    """

    published: ClassVar[Published | None] = None
    root: Path | None = None
    report: str = ""
    prepared: Mapping[str, Any] = MappingProxyType({})
    storage: Storage = IN_MEMORY

    def prepare(self) -> None:
        """Downloads missing files. Called in one process per machine, before `read`."""
        if self.published and self.root:
            download(self.published, self.root)

    def outline(self) -> Outline | None:
        """What is known about the images before they are decoded; None for a source that reads
        them whole, and so keeps them in memory.

        Raises:
            UsageError: they cannot be read.
        """
        return None

    def read(self) -> Splits:
        """Reads all images and labels.

        Raises:
            UsageError: they cannot be read.
        """
        raise NotImplementedError


def folder_of(root: str | None, kind: str) -> Path:
    """The path that `data.root` names.

    Raises:
        UsageError: it is not given, or is not a path.
    """
    if root is None:
        raise UsageError(f"data.root: source '{kind}' needs the path to its data: data.root=PATH.")
    return local_path(root, "data.root")


def split_off_test(
    part: Split,
    classes: tuple[str, ...],
    fraction: float,
    name: str,
    storage: Storage | None = None,
    key: str = "data.root",
) -> Splits:
    """Makes a fixed `fraction` the test split, for sources published without one. With a storage,
    the images are its own, and are moved in place."""
    count = round(len(part.images) * fraction)
    if count < 1:
        raise UsageError(
            f"{key}: {name} has {len(part.images)} images, too few to hold any out for testing."
        )
    rows = held_out_rows(len(part.images), count)
    if storage is None:
        return Splits(part.at(rows[0]), part.at(rows[1]), classes)
    images = storage.divide(part.images, *rows)
    train, test = (part.at(*pair) for pair in zip(rows, images, strict=True))
    return Splits(train, test, classes)


def require_folder(root: Path) -> None:
    """Checks that a folder exists.

    Raises:
        UsageError: it does not.
    """
    if not root.is_dir():
        what = f"{root} is a file, not a folder" if root.exists() else f"there is no folder {root}"
        raise UsageError(f"data.root: {what}.")


def require_files(root: Path, names: Iterable[str], layout: str) -> None:
    """Checks that files exist, or folders if the name ends in "/".

    Args:
        root: folder to look in.
        names: of the files and folders.
        layout: a sentence for the error about what belongs there.

    Raises:
        UsageError: one is missing.
    """
    require_folder(root)
    for name in names:
        path = root / name
        if not (path.is_dir() if name.endswith("/") else path.is_file()):
            raise UsageError(f"data.root: {root} has no {name}. {layout}")


def require_size(image_size: Sequence[int] | None, name: str) -> Sequence[int]:
    """Checks that an image size is given, and returns it.

    Raises:
        UsageError: it is not given.
    """
    if image_size is None:
        raise UsageError(f"data.image_size: {name} needs an image size: data.image_size=64.")
    return image_size


def read_lines(path: Path) -> list[str]:
    """Reads a text file's lines, without blank lines at the end.

    Raises:
        UsageError: it cannot be read, is not text or is empty.
    """
    with foreign(f"data.root: {path} cannot be read as text", path):
        lines = path.read_text("utf-8").rstrip().splitlines()
    if not lines:
        raise UsageError(f"data.root: {path} is empty.")
    return lines


def check_counts(images: int, images_name: object, labels: int, labels_name: object) -> None:
    """Checks that there are as many labels as images.

    Raises:
        UsageError: the numbers differ.
    """
    if images != labels:
        raise UsageError(
            f"data.root: {images:,} images in {images_name}, but {labels:,} labels in "
            f"{labels_name}."
        )


def size_words(images: Tensor) -> str:
    """The size of images as text: channels x height x width."""
    return shape_words(images.shape[1:])
