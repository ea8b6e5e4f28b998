"""Files and folders that appear whole or not at all."""

import errno
import fnmatch
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from acn_lightning.utils.errors import UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that is full, or of a user who may not take more of it."""

UNFLUSHED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""Errors of a file system that cannot flush a folder, such as vboxsf and CIFS."""

RECENT = 3600
"""Seconds for which a file counts as recent."""

PARTIAL = re.compile(r"\.acn-(?P<host>.+)-(?P<process>\d+)-[0-9a-f]{16}\.partial")


ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


# ---------------------------------------------------------------- paths


def local_path(text: str, key: str) -> Path:
    """The path that a user's text names, where "~" is the home folder.

    Args:
        text: of the user.
        key: config key or option that the error begins with.

    Raises:
        UsageError: it is the address of a store elsewhere, or this machine has no such path.
    """
    if ADDRESS.match(text):
        raise UsageError(
            f"{key}: {text} is an address, not a folder or file of this machine. Mount it, or copy "
            "the files."
        )
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        home = Path(text).parts[0]
        raise UsageError(
            f"{key}: there is no home folder {home}. For a folder of that name write ./{text}"
        ) from error
    check_encoding(path, key)
    return path


def check_encoding(path: Path, key: str) -> None:
    """Checks that the system can be asked for a path.

    Raises:
        UsageError: it has a NUL, or a character that the locale does not have.
    """
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{key}: {path} has characters that the locale's encoding, "
            f"{sys.getfilesystemencoding()}, does not have. Set PYTHONUTF8=1."
        ) from error
    if b"\0" in encoded:
        raise UsageError(f"{key}: {str(path)!r} has the character '\\x00'. Leave it out.")


def matching(folder: Path, pattern: str) -> list[Path]:
    """What lies in a folder under names of a pattern, sorted; nothing if there is no such folder.
    Unlike `Path.glob`, it does not take a folder that may not be read for an empty one.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in sorted(fnmatch.filter(names, pattern))]


# ---------------------------------------------------------------- files


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yields a new temporary file beside `path` to write to. Once it is written, it replaces
    `path`. On an error it is deleted, and the old file is unchanged.

    Args:
        path: the file to write; its folder is created.
        durable: whether the file must survive a power loss.

    Raises:
        OSError: the file cannot be written. If the disk is full, the error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), partial_file(path) as beside:
        yield beside
        if durable:
            sync(beside)
        beside.replace(path)
        if durable:
            sync(path.parent)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Like `replacing`, for an output that the user requested: it never replaces a file.

    Raises:
        UsageError: the path exists already, now or when the file is written, or it cannot be
            written.
    """
    refuse_existing(path)
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        with naming(path), made_parents(path), partial_file(path) as beside:
            yield beside
            rename_new(beside, path)
    finally:
        remove_empty(made)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Like `new_file`, for a folder.

    Raises:
        UsageError: the path exists already, now or when the folder is written, or it cannot be
            written.
    """
    refuse_existing(folder)
    made = [parent for parent in folder.parents if not parent.exists()]
    beside = partial_name(folder)
    try:
        with naming(folder), made_parents(folder):
            remove_leftovers(folder.parent)
            beside.mkdir()
            yield beside
            rename_new(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        remove_empty(made)


# ---------------------------------------------------------------- steps


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Creates a file of a new name beside `path`, and deletes it at the end if it is still there.
    First deletes what killed processes left."""
    remove_leftovers(path.parent)
    beside = partial_name(path)
    # Exclusive: never an existing file, and never through a link.
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def partial_name(path: Path) -> Path:
    """A temporary name beside `path`, which nobody else has or can guess."""
    return path.with_name(f".acn-{host()}-{os.getpid()}-{secrets.token_hex(8)}.partial")


def host() -> str:
    """This machine's name, as part of a file name."""
    return re.sub(r"[^\w.]", "_", socket.gethostname())[:64] or "host"


def remove_leftovers(folder: Path, alone: bool = False) -> None:
    """Deletes temporary files and folders that processes of this machine left when they were
    killed. Recent ones stay: a container may have this machine's name and other processes.

    Args:
        folder: where they are.
        alone: whether nobody else writes there, as a lock says. Then those of other machines and
            recent ones go too.
    """
    for path in folder.glob(".acn-*.partial"):
        found = PARTIAL.fullmatch(path.name)
        if not found:
            continue
        if not alone and (found["host"] != host() or is_running(int(found["process"]))):
            continue
        with suppress(OSError):
            if not alone and time.time() - path.lstat().st_mtime < RECENT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def is_running(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names `path` in the error of a full disk, which names nothing itself."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OSError(error.errno, f"no space left to write {path}") from error
        raise


@contextmanager
def made_parents(path: Path) -> Iterator[None]:
    """Creates the folders above an output, and converts the errors of a path that cannot be
    written.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))
    except OSError as error:
        raise UsageError(f"out: cannot write {path} ({error}).") from error
    yield


def rename_new(beside: Path, path: Path) -> None:
    """Renames a temporary file or folder to `path`, unless something has appeared there.

    Raises:
        UsageError: something has.
    """
    try:
        if beside.is_dir():
            path.mkdir()  # fails if there is one; a rename would replace an empty one
            beside.rename(path)
            return
        try:
            os.link(beside, path, follow_symlinks=False)  # fails if there is one
        except FileExistsError:
            raise
        except OSError:  # the file system has no hard links
            refuse_existing(path)
            beside.rename(path)
    except FileExistsError as error:
        raise exists(path) from error


def is_plain(path: Path) -> bool:
    """Whether there is a regular file at this path, itself and not through a link."""
    return path.is_file() and not path.is_symlink()


def sync(path: Path) -> None:
    """Flushes a file's content, or a folder's entries, to disk.

    Raises:
        OSError: it cannot be flushed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNFLUSHED or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def refuse_existing(path: Path) -> None:
    """Checks that nothing has this path, not even a link that leads nowhere.

    Raises:
        UsageError: something has.
    """
    if path.exists() or path.is_symlink():
        raise exists(path)


def exists(path: Path) -> UsageError:
    """The error for an output that exists."""
    return UsageError(f"out: {path} already exists. Remove it, or choose another name.")


def remove_empty(folders: list[Path]) -> None:
    """Removes the folders that are empty; the innermost must come first."""
    for folder in folders:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
