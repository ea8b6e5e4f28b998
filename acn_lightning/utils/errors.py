"""Errors that a user can fix: one line that names what is wrong and the way out."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from acn_lightning.utils.text import printable

MACHINE = frozenset(
    getattr(errno, name)
    for name in (
        "EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EIO", "EREMOTEIO", "ENOSPC", "EDQUOT", "EROFS",
        "ESTALE", "ETIMEDOUT", "EHOSTDOWN",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Errors of the machine or its disks, not of a file's content: the next file would fail too."""


class UsageError(ValueError):
    """An input is wrong. The `acn` command prints this one line and exits with status 2.

    Args:
        message: may quote the input; what cannot be printed on one line is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UnreadableError(UsageError):
    """A file's content is wrong. The other files may be fine, so a caller may leave it out."""


class TrainingError(RuntimeError):
    """A run cannot continue, though no input is wrong. Also one line and exit status 2."""


class InterruptionError(BaseException):
    """Ctrl-C or SIGTERM ended a run. Like `KeyboardInterrupt`, it is no `Exception`: code that
    catches whatever a file, a device or a package raises must not take it for their error.

    Attributes:
        checkpoint: checkpoint to resume from; None if there is none yet.
        status: exit status, 128 + the signal's number.
    """

    def __init__(self, checkpoint: Path | None, status: int) -> None:
        super().__init__(checkpoint, status)
        self.checkpoint, self.status = checkpoint, status


@contextmanager
def foreign(complaint: str, name: object) -> Iterator[None]:
    """A boundary to code of other packages that parses an input: whatever that code raises there
    becomes one line that names the input.

    Args:
        complaint: what the error begins with, such as "data.root: a.png cannot be read".
        name: the file, for errors of the machine.

    Raises:
        UnreadableError: the code rejected the input.
        UsageError: the input needs more memory than there is.
        OSError: the machine failed (disk, memory, file handles), which is not the input's fault.
    """
    try:
        yield
    except (UsageError, TrainingError):  # ours
        raise
    except OSError as error:
        if error.errno in MACHINE:
            raise OSError(error.errno, error.strerror or "", str(name)) from error
        raise UnreadableError(f"{complaint} ({one_line(error)}).") from error
    except Exception as error:
        if lacks_memory(error):
            raise UsageError(f"{complaint}: it needs more memory than there is.") from error
        raise UnreadableError(f"{complaint} ({one_line(error)}).") from error


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out. torch has no type of its own for it on the CPU."""
    words = ("allocate memory", "out of memory")
    torchs = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return isinstance(error, MemoryError) or torchs


@contextmanager
def keyed(key: str, kind: type[UsageError], way_out: str = "") -> Iterator[None]:
    """Puts a config key in front of errors of one kind, and a way out behind them.

    Raises:
        UsageError: an error of that kind was raised.
    """
    try:
        yield
    except kind as error:
        raise UsageError(f"{key}: {error} {way_out}".rstrip()) from error


def one_line(error: BaseException, limit: int = 300) -> str:
    """An error's message on one line, or its type if it has none."""
    return " ".join(str(error).split()).rstrip(".")[:limit] or type(error).__name__


def nearest(word: str, known: Iterable[str]) -> str:
    """A question to append to an error; empty if no known word is close.

    Example:
        >>> nearest("batchsize", ["batch_size", "seed"])
        " Did you mean 'batch_size'?"
    """
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def check_range(name: str, value: int | float, least: int | float, most: int | float) -> None:
    """Checks that a config key's number lies in a range, both ends included. An upper end keeps a
    slip of the keyboard from filling the memory.

    Raises:
        UsageError: it does not; NaN never does.
    """
    if not least <= value <= most:
        raise UsageError(f"{name}: {value} is not from {least:,} to {most:,}.")


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Checks that a config key's value is one of the known ones.

    Raises:
        UsageError: it is not; the message lists the known ones.
    """
    known = list(known)
    if value not in known:
        raise UsageError(
            f"{name}: '{value}' is not one of {', '.join(known)}.{nearest(str(value), known)}"
        )
