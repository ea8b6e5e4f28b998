"""How runs differ: their configs beside their figures."""

import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from acn_lightning.runs.figures import (
    COSTS,
    USES,
    align,
    decimal,
    duration,
    percent,
    trained_epochs,
)
from acn_lightning.runs.listing import plain
from acn_lightning.runs.reading import Run, find, number
from acn_lightning.utils.text import printable

PLACES = ("run", "resume", "trainer.default_root_dir", "wandb.name")
"""Keys that only say where a run is."""

SAME_DATA = (
    "data.source", "data.root", "data.path", "data.subset_name", "data.split", "data.test_split",
    "data.image", "data.label", "data.attribute", "data.binarisation", "data.image_size",
    "data.channels", "data.background", "data.bits",
)  # fmt: skip
"""Keys that must agree for figures to be comparable. Where all runs have fingerprints of their
images, as they are before any binarisation, those decide in place of the other keys."""

BINARISATION = "data.binarisation"
"""What no fingerprint tells."""

SAME_HELD_OUT = ("data.validation", "data.subset", "trainer.limit_val_batches", "neighbours.k")
"""The same for held-out costs: keys that decide of which images they are, and of how many
neighbours they are means. Nearer neighbours predict better: fewer cost less with equal weights."""

SAME_TEST = tuple(
    f"evaluation.{key}" for key in ("posterior_samples", "unconditional_codes", "tour_seconds")
)
"""The same for costs of the test."""

TOTALS = ("ordered", "unordered", "set")
"""Costs of whole images: of these less is better, as it need not be of a part."""


class Row(NamedTuple):
    """A figure of each run.

    Attributes:
        cells: as text; empty if it was not measured.
        best: the runs that do best, by number; none where no value is better than another.
    """

    name: str
    cells: list[str]
    best: frozenset[int] = frozenset()


def differences(runs: Sequence[Run]) -> list[Row]:
    """The keys of the configs whose values differ."""
    configs = [flat(run.config) for run in runs]
    found = list(dict.fromkeys(key for config in configs for key in config))
    sections = list(dict.fromkeys(key.rpartition(".")[0] for key in found))
    keys = sorted(found, key=lambda key: sections.index(key.rpartition(".")[0]))
    rows = []
    for key in keys:
        cells = [written(config[key]) if key in config else "" for config in configs]
        if key not in PLACES and len(set(cells)) > 1:
            rows.append(Row(key, cells))
    return rows


def flat(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def written(value: Any) -> str:
    """A value as YAML writes it on one line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def figures(runs: Sequence[Run]) -> list[Row]:
    """Figures of the runs: those of training, costs, and accuracies in percent."""
    other = other_data(runs)

    def row(
        name: str, values: list[float | None], text: Callable[[float | None], str], best: Any = None
    ) -> Row:
        known = [value for value in values if value is not None]
        target = best(known) if best and len(set(known)) > 1 else None
        winners = {place for place, value in enumerate(values) if value == target is not None}
        return Row(name, [text(value) for value in values], frozenset(winners))

    low, high = (None, None) if other or len(tested(runs)) > 1 else (min, max)
    low = None if differing(runs, SAME_TEST) else low
    costs = [row("lowest held-out cost", [one.best[1] if one.best else None for one in runs],
                 decimal, None if other or other_held_out(runs) else min)]  # fmt: skip
    for name, label in COSTS.items():
        values = [number(one.results, "nats_per_image", name) for one in runs]
        costs.append(row(label, values, decimal, low if name in TOTALS else None))
    uses = [
        row(label, [number(one.results, "representations", "codes", name) for one in runs],
            percent, high)
        for name, label in USES.items()
    ]  # fmt: skip
    parameters = [number(one.about, "parameters", "total") for one in runs]
    rows = [
        Row("state", [one.state for one in runs]),
        Row("epochs", [trained_epochs(one) for one in runs]),
        Row("training time", [duration(one.seconds) for one in runs]),
        row("parameters", parameters, lambda value: "" if value is None else f"{value:,.0f}"),
        *costs,
        *uses,
    ]
    return [one for one in rows if any(one.cells)]


def other_data(runs: Sequence[Run]) -> list[str]:
    """What of the data differs, so that costs cannot be compared: keys, or the test images
    themselves. Of images that were given in Python, which have no key, number and form tell where a
    fingerprint is missing."""
    keys = [
        row.name
        for row in differences(runs)
        if row.name in SAME_DATA and len(set(map(os.path.normpath, row.cells))) > 1
    ]
    if prints := fingerprints(runs, "test"):
        if len(set(prints)) == 1:
            return [key for key in keys if key == BINARISATION]
        return keys or ["the test images"]
    kept = [(find(one.about, "image_shape"), number(one.about, "images", "test")) for one in runs]
    known = [one for one in kept if None not in one]
    if not keys and any(one != known[0] for one in known):
        keys = ["the form or the number of the test images"]
    return keys


def fingerprints(runs: Sequence[Run], part: str) -> list[str]:
    """Those of the runs' test or training images; empty unless all are known."""
    found = [find(run.about, "fingerprints", part) for run in runs]
    return found if all(isinstance(one, str) for one in found) else []


def other_held_out(runs: Sequence[Run]) -> list[str]:
    """What differs in how held-out costs were measured, so that they cannot be compared."""
    drawn = any(find(run.config, "data", "subset") is not None for run in runs)
    prints = fingerprints(runs, "training")
    # The seed draws the subset. Fingerprints tell what it has drawn.
    keys = differing(runs, (*SAME_HELD_OUT, *(["seed"] if drawn and not prints else [])))
    return [*keys, *(["the training images"] if not keys and len(set(prints)) > 1 else [])]


def differing(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Those of the keys whose values differ."""
    return [row.name for row in differences(runs) if row.name in keys]


def tested(runs: Sequence[Run]) -> list[float]:
    """On how many images the runs were tested: one number if their figures can be compared, as a
    part of the test images may be easier than the others."""
    return sorted({count for run in runs if (count := number(run.results, "images")) is not None})


def caution(runs: Sequence[Run]) -> str:
    """A line to be read before the figures; empty if there is nothing to say."""
    if keys := other_data(runs):
        return f"The runs are of different data ({', '.join(keys)}), so figures do not compare."
    said = []
    if (keys := other_held_out(runs)) and any(run.best for run in runs):
        said.append(f"Held-out costs differ in {', '.join(keys)}, so they do not compare.")
    if len(counts := tested(runs)) > 1:
        numbers = " and ".join(f"{count:,.0f}" for count in counts)
        said.append(f"They were tested on {numbers} images, so figures of the test do not compare.")
    elif keys := differing(runs, SAME_TEST):
        said.append(f"Costs of the test differ in {', '.join(keys)}, so they do not compare.")
    return " ".join(said)


def titles(runs: Sequence[Run]) -> list[str]:
    """Names that tell the runs apart, as short as can be."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    names = [f"{run.experiment}/{run.name}" for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def table(runs: Sequence[Run]) -> str:
    """The comparison as text. A star marks the best of a row."""
    config, measured = differences(runs), figures(runs)
    rows = [["", *map(printable, titles(runs))]]
    rows += [[printable(row.name), *map(printable, row.cells)] for row in config]
    rows.append([""] * (len(runs) + 1))
    for row in measured:
        stars = ("*" if place in row.best else " " for place in range(len(runs)))
        cells = [f"{cell}{star}" for cell, star in zip(row.cells, stars, strict=True)]
        rows.append([row.name, *cells])
    lines = align(rows, (0,))
    told = ["" if config else "The configs do not differ.", printable(caution(runs))]
    return "\n".join([*lines, *(["", *filter(None, told)] if any(told) else [])])


def as_json(runs: Sequence[Run]) -> str:
    """The comparison for programs. Accuracies are fractions."""
    configs = [flat(run.config) for run in runs]
    keys = [row.name for row in differences(runs)]
    content = {
        "runs": [
            plain(run)
            | {
                "nats_per_image": {
                    name: number(run.results, "nats_per_image", name) for name in COSTS
                },
                "codes": {
                    name: number(run.results, "representations", "codes", name) for name in USES
                },
            }
            for run in runs
        ],
        "config": {key: [as_plain(config.get(key)) for config in configs] for key in keys},
        "comparable": not caution(runs),
    }
    return json.dumps(content, indent=2, default=str, allow_nan=False)


def as_plain(value: Any) -> Any:
    """A value of a config as JSON has it, which knows neither infinity nor NaN: they are text."""
    if isinstance(value, dict):
        return {key: as_plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
