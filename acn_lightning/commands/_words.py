"""Words of the command line, of commands that take no config."""

from collections.abc import Sequence
from pathlib import Path

from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.files import local_path


def refuse(command: str, words: Sequence[str]) -> None:
    """Checks that no words are left that a command does not know.

    Raises:
        UsageError: there are.
    """
    if words:
        raise UsageError(f"'{words[0]}': acn {command} has no such option. See acn {command} -h.")


def html_file(out: str) -> Path:
    """The page that a user names.

    Raises:
        UsageError: it is not named like one.
    """
    path = local_path(out, "out")
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"out: {out} is not an .html file.")
    return path
