"""Files and folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from acn_lightning.utils.errors import UsageError


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary file beside `path` to write to. Once it is written, it replaces `path`. On
    an error it is deleted, and the old file is unchanged.

    Args:
        path: the file to write; its folder is created.
        durable: whether the file must survive a power loss.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = beside_of(path)
    try:
        yield beside
        if durable:
            sync(beside)
        beside.replace(path)
        if durable:
            sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def beside_of(path: Path) -> Path:
    """The temporary path. Each folder has one writer, which reuses what a killed one left."""
    return path.with_name(f".{path.name}.partial")


def sync(path: Path) -> None:
    """Flushes a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Like `replacing`, for an output that the user requested: it never replaces a file.

    Raises:
        UsageError: the path exists already, or cannot be written.
    """
    refuse_existing(path)
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside_of(path).touch()
    except OSError as error:
        remove_empty(made)
        raise cannot_write(path, error) from error
    try:
        with replacing(path) as beside:
            yield beside
    finally:
        remove_empty(made)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Like `new_file`, for a folder.

    Raises:
        UsageError: the path exists already, or cannot be created.
    """
    refuse_existing(folder)
    beside = beside_of(folder)
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        shutil.rmtree(beside, ignore_errors=True)  # left by a killed run
        beside.mkdir(parents=True)
    except OSError as error:
        remove_empty(made)
        raise cannot_write(folder, error) from error
    try:
        yield beside
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        remove_empty(made)


def refuse_existing(path: Path) -> None:
    """Checks that the path does not exist.

    Raises:
        UsageError: it exists.
    """
    if path.exists():
        raise UsageError(f"out: {path} already exists. Remove it, or choose another name.")


def cannot_write(path: Path, error: OSError) -> UsageError:
    """The error for a path that cannot be written."""
    return UsageError(f"out: cannot write {path} ({error}).")


def remove_empty(folders: list[Path]) -> None:
    """Removes the folders that are empty; the innermost must come first."""
    for folder in folders:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
