"""Progress of work that takes a while."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from tqdm import tqdm

from acn_lightning.utils.distributed import is_rank_zero

QUICK = 3.0
"""Seconds of work that passes without a word."""


def progress_bar(doing: str, unit: str, total: int, show: bool = True) -> "tqdm[Any]":
    """A bar for work of more than three seconds, on rank 0; in a log, a line every half minute."""
    return tqdm(
        total=total,
        desc=doing,
        unit=unit,
        unit_scale=True,
        leave=False,
        disable=not (show and is_rank_zero()),
        delay=QUICK,
        mininterval=0.5 if sys.stderr.isatty() else 30,
    )


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Says on standard error, on rank 0, what the work inside is, if it takes more than three
    seconds and nobody can say how far it is. On a terminal the line shows the time, and goes when
    the work is done; in a log it stays.

    Args:
        what: the work, such as "drawing pictures".
    """
    if not is_rank_zero():
        yield
        return
    done = Event()
    thread = Thread(target=tell, args=(what, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def tell(what: str, done: Event) -> None:
    """Says what is being done until it is."""
    if done.wait(QUICK):
        return
    if not sys.stderr.isatty():
        print(f"{what} ...", file=sys.stderr, flush=True)
        return
    with tqdm(desc=what, bar_format="{desc} ... {elapsed}", leave=False) as bar:
        bar.start_t -= QUICK
        while not done.wait(1):
            bar.refresh()
