"""What the person at the keyboard can mend: one line that names the thing and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class UsageError(ValueError):
    """A wrong input. The `acn` command prints its one line and leaves with exit status 2."""


class TrainingError(RuntimeError):
    """A run that cannot go on, through no wrong input. Also one line and exit status 2."""


class InterruptionError(Exception):
    """Ctrl-C or SIGTERM ended a run.

    Attributes:
        checkpoint: from which it goes on; None where there is none yet.
        status: exit status that says so, 128 + the signal's number.
    """

    def __init__(self, checkpoint: Path | None, status: int) -> None:
        super().__init__(checkpoint, status)
        self.checkpoint, self.status = checkpoint, status


def nearest(word: str, known: Iterable[str]) -> str:
    """A question to add to an error, or nothing where no known word is near.

    Example:
        >>> nearest("batchsize", ["batch_size", "seed"])
        " Did you mean 'batch_size'?"
    """
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Raises:
    UsageError: `value` is not among the `known` ones; they are listed.
    """
    known = list(known)
    if value not in known:
        raise UsageError(
            f"{name}: '{value}' is none of {', '.join(known)}.{nearest(str(value), known)}"
        )
