"""Errors that a user can fix: one line that names what is wrong and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class UsageError(ValueError):
    """An input is wrong. The `acn` command prints this one line and exits with status 2."""


class TrainingError(RuntimeError):
    """A run cannot continue, though no input is wrong. Also one line and exit status 2."""


class InterruptionError(Exception):
    """Ctrl-C or SIGTERM ended a run.

    Attributes:
        checkpoint: checkpoint to resume from; None if there is none yet.
        status: exit status, 128 + the signal's number.
    """

    def __init__(self, checkpoint: Path | None, status: int) -> None:
        super().__init__(checkpoint, status)
        self.checkpoint, self.status = checkpoint, status


def nearest(word: str, known: Iterable[str]) -> str:
    """A question to append to an error; empty if no known word is close.

    Example:
        >>> nearest("batchsize", ["batch_size", "seed"])
        " Did you mean 'batch_size'?"
    """
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""


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
