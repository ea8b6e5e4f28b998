"""Progress bars."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(doing: str, unit: str, total: int, show: bool = True) -> "tqdm[Any]":
    """A bar for work of more than three seconds; in a log, a line every half minute."""
    return tqdm(
        total=total,
        desc=doing,
        unit=unit,
        unit_scale=True,
        leave=False,
        disable=not show,
        delay=3,
        mininterval=0.5 if sys.stderr.isatty() else 30,
    )
