"""What figures of runs are called, and how they are written."""

from collections.abc import Sequence
from typing import Any

from acn_lightning.runs.reading import Run, number

COSTS = {
    "reconstruction": "reconstruction",
    "kl_k1": "KL, K = 1",
    "kl_k5": "KL, K = 5",
    "kl_k10": "KL, K = 10",
    "kl_tour": "KL, tour of the test set",
    "kl_unconditional": "KL, unconditional",
    "ordered": "ordered = reconstruction + tour",
    "unordered": "unordered = reconstruction + unconditional",
    "set": "set = unordered - the bits of its order",
}
"""Costs of the test images, in nats per image."""

REPRESENTATIONS = {"codes": "codes", "pca": "PCA", "pixels": "pixels"}

USES = {
    "linear": "linear classifier",
    "knn": "KNN classifier",
    "labels_10": "linear, 10 labels",
    "labels_100": "linear, 100 labels",
    "labels_1000": "linear, 1,000 labels",
    "precision_at_10": "precision of the 10 nearest",
    "nmi": "clusters, NMI",
    "cluster_accuracy": "clusters, accuracy",
}
"""What representations are good for, as fractions."""


def percent(figure: Any) -> str:
    """A fraction, or the mean of several, in percent; empty if it was not measured."""
    fraction = number({"": figure}, "")
    return "" if fraction is None else f"{100 * fraction:.2f}"


def decimal(figure: float | None, digits: int = 2) -> str:
    """A number to some digits; empty if it was not measured."""
    return "" if figure is None else f"{figure:.{digits}f}"


def duration(seconds: float | None) -> str:
    """How long something took; empty if that is not known.

    Example:
        >>> duration(42.4), duration(3720.0), duration(90_000.0)
        ('42 s', '1 h 02 min', '1 d 01 h')
    """
    if seconds is None or seconds < 0:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 1440:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60:02} h"


def trained_epochs(run: Run) -> str:
    """Epochs trained, of how many."""
    return f"{run.epochs}/{run.max_epochs}" if run.max_epochs else f"{run.epochs}"


def align(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Lines of a table whose columns are aligned right, but for those in `left`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if place in left else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
