"""Names of the training images, as checkpoints store them: one text, which is quick to read, and
which counts as one value however many names it holds."""

import os
from collections.abc import Sequence
from pathlib import Path

from acn_lightning.utils.text import as_text

SEPARATOR = "\0"
"""Between two names. No file's name has it."""

MOST = 64 * 2**20
"""Characters above which no names are stored: every checkpoint of a run holds them."""


def joined(names: Sequence[str], root: Path | None = None) -> str:
    """The names as one text; empty if they are unknown or take more than `MOST` characters. Those
    below `root` are relative to it. If all are absolute, as without a root, they are relative to
    the folder that they share: others need not know where a user keeps it."""
    start = os.path.join(as_text(root), "") if root else ""
    own = [name.removeprefix(start) for name in names]
    if own and all(map(os.path.isabs, own)):
        shared = os.path.join(os.path.commonpath(map(os.path.dirname, own)), "")
        own = [name.removeprefix(shared) for name in own]
    text = SEPARATOR.join(own)
    return text if len(text) <= MOST else ""


def parted(text: str | None) -> tuple[str, ...]:
    """The names in such a text; none if it is empty."""
    return tuple(text.split(SEPARATOR)) if text else ()
