"""The list of runs."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from acn_lightning.runs.figures import align, decimal, duration, percent, trained_epochs
from acn_lightning.runs.reading import STATES, Run, number
from acn_lightning.utils.errors import check_choice
from acn_lightning.utils.text import as_text, counted, printable

Order = Callable[[Run], Any]

FIGURES = {
    "ordered": ("nats_per_image", "ordered"),
    "unordered": ("nats_per_image", "unordered"),
    "linear": ("representations", "codes", "linear"),
    "knn": ("representations", "codes", "knn"),
    "labels_100": ("representations", "codes", "labels_100"),
}
"""Figures of the test, and where they are in `results.json`."""

LOW = ("cost", "ordered", "unordered")
"""Figures that are better low; the others are better high."""

SORTS = ("written", "name", "state", "epochs", "cost", *FIGURES, "seconds")


def figure(run: Run, name: str) -> float | None:
    """A figure of a run; None if it was not measured."""
    if name == "cost":
        return run.best[1] if run.best else None
    return number(run.results, *FIGURES[name])


def ordered(runs: Sequence[Run], sort: str) -> list[Run]:
    """The runs, best, newest or longest first; those without that figure last.

    Raises:
        UsageError: there is no such order.
    """
    check_choice("sort", sort, SORTS)
    runs = sorted(runs, key=lambda run: str(run.folder))
    if sort == "name":
        return runs
    if sort == "state":
        return sorted(runs, key=lambda run: list(STATES).index(run.state))
    rank: dict[str, Order] = {
        "written": lambda run: -run.written,
        "epochs": lambda run: -run.epochs,
        "seconds": lambda run: -(run.seconds or 0),
    }

    def by_figure(run: Run) -> tuple[bool, float]:
        value = figure(run, sort)
        return value is None, (value or 0) * (1 if sort in LOW else -1)

    return sorted(runs, key=rank.get(sort, by_figure))


def table(runs: Sequence[Run], now: float | None = None) -> str:
    """The runs as a table, with a last line that counts them.

    Args:
        runs: in the order shown.
        now: seconds since 1970; None for the clock's.
    """
    now = time.time() if now is None else now
    head = ["state", "epoch", "val cost", "ordered", "unordered", "linear", "KNN", "100 labels",
            "trained", "written", "run"]  # fmt: skip
    rows = [head, *(row(run, now) for run in runs)]
    count = Counter(run.state for run in runs)
    states = ", ".join(f"{count[state]} {state}" for state in STATES if count[state])
    lines = [*align(rows, (0, len(head) - 1)), "", f"{counted(len(runs), 'run')}: {states}"]
    for run in runs:
        lines += [f"{printable(run.folder)}: {fault}" for fault in told(run)]
    return "\n".join(lines)


def row(run: Run, now: float) -> list[str]:
    """A line of the table. Costs are in nats per image, accuracies in percent."""
    ago = duration(max(0, now - run.written))
    return [
        run.state,
        trained_epochs(run),
        *(decimal(figure(run, name)) for name in LOW),
        *(percent(figure(run, name)) for name in FIGURES if name not in LOW),
        duration(run.seconds),
        f"{ago} ago",
        printable(run.folder),
    ]


def told(run: Run) -> list[str]:
    """What of a run cannot be read."""
    return [f"{name} cannot be read ({printable(why)})." for name, why in run.faults.items()]


def as_json(runs: Sequence[Run]) -> str:
    """The runs for programs: accuracies are fractions, times are UTC, null is unknown."""
    return json.dumps([plain(run) for run in runs], indent=2, allow_nan=False)


def plain(run: Run) -> dict[str, Any]:
    """What the list says of a run."""
    return {
        "run": as_text(Path(run.folder)),
        "experiment": run.experiment,
        "name": as_text(run.name),
        "state": run.state,
        "epochs": run.epochs,
        "max_epochs": run.max_epochs,
        "best_epoch": run.best[0] if run.best else None,
        "val_cost": figure(run, "cost"),
        **{name: figure(run, name) for name in FIGURES},
        "seconds": run.seconds,
        "written": datetime.fromtimestamp(run.written, UTC).isoformat(timespec="seconds"),
        "faults": run.faults,
    }
