"""Progress bars."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(
    doing: str,
    unit: str,
    over: Iterable[Any] | None = None,
    total: int | None = None,
    show: bool = True,
) -> "tqdm[Any]":
    """A bar for what takes more than three seconds; in a log a line each half minute."""
    return tqdm(
        over,
        total=total,
        desc=doing,
        unit=unit,
        unit_scale=True,
        leave=False,
        disable=not show,
        delay=3,
        mininterval=0.5 if sys.stderr.isatty() else 30,
    )
