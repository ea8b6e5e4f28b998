"""Curves of metrics, as data for the charts of a page."""

import html
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from acn_lightning.runs.figures import USES
from acn_lightning.runs.reading import Run

MOST_POINTS = 1000
"""Most points of a curve, which is more than a screen shows."""

COLOURS = (
    "#4c8dd6", "#e8853d", "#3fa66b", "#d65f5f", "#9673c4",
    "#a2765a", "#d77fb4", "#2fa8b5", "#a8a13a", "#7b8794",
)  # fmt: skip
"""Of the first ten curves, to be seen on white and on black. The others get hues far apart."""


class Kind(NamedTuple):
    """Metrics that are shown together.

    Attributes:
        metrics: their names, or with a * parts of names.
    """

    title: str
    unit: str
    metrics: tuple[str, ...]


NEIGHBOURS = {
    "bank/neighbour_agreement": "of the same class",
    "bank/neighbours_changed": "new since the epoch before",
}

KINDS = (
    Kind("Cost", "nats per image", ("train/total", "val/total")),
    Kind("Rate", "nats per image", ("train/rate", "val/rate")),
    Kind("Distortion", "nats per image", ("train/distortion", "val/distortion")),
    Kind(
        "Accuracy of codes",
        "%",
        ("codes/linear_accuracy", "codes/knn_accuracy", "codes/labels_100", "val/knn_accuracy"),
    ),
    Kind("Neighbours among the training images", "%", tuple(NEIGHBOURS)),
    Kind("Learning rate", "", ("*learning_rate", "*lr-", "*/lr")),
    Kind("Gradient norm", "", ("*grad",)),
    Kind("Time of an epoch", "seconds", ("*epoch_seconds",)),
    Kind("Speed", "images per second", ("*per_second",)),
)


NAMED = {**NEIGHBOURS, "val/knn_accuracy": "KNN, codes as stored"}
"""What metrics are called whose own names say too little."""


def colour(place: int) -> str:
    """The colour of a curve."""
    return COLOURS[place] if place < len(COLOURS) else f"hsl({place * 137.508 % 360:.0f},55%,55%)"


def charts(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(the charts of a run to look at first, one for each of its other metrics)."""
    known = metrics_of([run])
    first = []
    for kind, names in grouped(known):
        lines = [
            line(run, name, short(name, names), colour(place), kind.unit, dotted(name, names))
            for place, name in enumerate(names)
        ]
        first.append(chart(kind.title, kind.unit, lines))
    return first, [chart(name, "", [line(run, name, name, colour(0))]) for name in others(known)]


def compared(
    runs: Sequence[Run], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(the charts of several runs to look at first, those of other metrics): one for each metric,
    with a line for each run that has it.

    Args:
        runs: what is known of them.
        names: what they are called on the page.
    """
    known = metrics_of(runs)

    def one(metric: str, title: str, unit: str = "") -> dict[str, Any]:
        lines = [
            line(run, metric, name, colour(place), unit)
            for place, (run, name) in enumerate(zip(runs, names, strict=True))
            if metric in run.history
        ]
        return chart(title, unit, lines)

    first = []
    for kind, metrics in grouped(known):
        for metric in sorted(metrics, key=lambda one: one.startswith("train/")):
            said = kind.title if len(metrics) == 1 else f"{kind.title}, {short(metric, metrics)}"
            first.append(one(metric, said, kind.unit))
    return first, [one(metric, metric) for metric in others(known)]


def metrics_of(runs: Iterable[Run]) -> list[str]:
    """Names of the metrics of training that any of the runs has."""
    names = {name for run in runs for name in run.history if not name.startswith("test/")}
    return sorted(names)


def grouped(known: Sequence[str]) -> list[tuple[Kind, list[str]]]:
    """The kinds of metrics that there are, with their names."""
    found = []
    for kind in KINDS:
        names = [
            name
            for metric in kind.metrics
            for name in known
            if (metric[1:] in name if metric.startswith("*") else metric == name)
        ]
        if names:
            found.append((kind, list(dict.fromkeys(names))))
    return found


def others(known: Sequence[str]) -> list[str]:
    """The names of metrics that are of no kind."""
    taken = {name for _, names in grouped(known) for name in names}
    return [name for name in known if name not in taken]


def short(name: str, among: Sequence[str]) -> str:
    """What tells a metric apart from the others of its chart."""
    part, _, rest = name.partition("/")
    if name in NAMED:
        return NAMED[name]
    if {one.partition("/")[2] for one in among} == {rest}:
        return {"train": "training", "val": "held out"}.get(part, part)
    return USES.get(rest.removesuffix("_accuracy"), rest.replace("_", " "))


def dotted(name: str, among: Sequence[str]) -> bool:
    """Whether a curve is dotted: one of training beside one of held-out images."""
    return name.startswith("train/") and len(among) > 1


def line(
    run: Run, metric: str, name: str, colour: str, unit: str = "", dashed: bool = False
) -> dict[str, Any]:
    """A curve. Plotly takes names for a kind of HTML, so they are escaped."""
    points = run.history[metric]
    step = -(-len(points) // MOST_POINTS)
    points = points[::-1][::step][::-1]  # the last one stays
    factor = 100 if unit == "%" else 1
    return {
        "name": html.escape(name),
        "title": name,
        "colour": colour,
        "dash": "dot" if dashed else "solid",
        "x": [rounded(epochs) for epochs, _ in points],
        "y": [rounded(value * factor) for _, value in points],
    }


def rounded(value: float) -> float:
    """A number to six digits, which saves bytes."""
    return float(f"{value:.6g}")


def chart(title: str, unit: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """A chart, with a sentence on it for those who do not see it."""
    said = [
        f"{one['title']}: {one['y'][-1]:g} after {one['x'][-1]:g} epochs, lowest "
        f"{min(one['y']):g}, highest {max(one['y']):g}"
        for one in lines
    ]
    return {
        "title": title,
        "unit": unit,
        "label": f"{title} by epoch{f', in {unit}' if unit else ''}. {'; '.join(said)}.",
        "lines": lines,
    }
