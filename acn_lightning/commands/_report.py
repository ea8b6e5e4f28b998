"""Formats the report of a finished run."""

from collections.abc import Iterable
from typing import Any

from acn_lightning.experiment.results import Outcome
from acn_lightning.runs.figures import COSTS, REPRESENTATIONS, USES, percent
from acn_lightning.utils.text import counted, printable


def results_table(outcome: Outcome) -> str:
    """A short table of an outcome, followed by the files written and the hints."""
    results = outcome.results
    files = map(printable, outcome.files)
    hints = ["", *outcome.hints] if outcome.hints else []
    if not results:
        return "\n".join([*files, *hints])
    nats, bits = results["nats_per_image"], results["bits_per_dim"]
    rows = [("cost", "nats/image")]
    rows += [(label, f"{nats[name]:.2f}") for name, label in COSTS.items()]
    rows += [(f"{name}, bits/dim", f"{bits[name]:.4f}") for name in ("ordered", "unordered")]
    if results["representations"]["codes"]:
        rows += [("", ""), *use_rows(results["representations"])]
    rows.append(("", ""))
    if outcome.rebuilds:
        rows.append(("index rebuilds", f"{outcome.rebuilds[0]} in {outcome.rebuilds[1]:.2f} s"))
    if outcome.refreshed:
        rows.append(("codes refreshed, last epoch", "{:,} of {:,}".format(*outcome.refreshed)))
    rows.append(("seconds", f"{results['seconds']:.1f}"))
    title = (
        f"{results['data']}, {counted(results['images'], results['split'] + ' image')}, "
        f"binarisation {results['binarisation']}, seed {results['seed']}"
    )
    return "\n".join([printable(title), *align(rows), "", *files, *hints])


def use_rows(representations: dict[str, dict[str, Any] | None]) -> list[tuple[str, str]]:
    """A row for each use, with a column for each representation measured."""
    measured = [name for name in REPRESENTATIONS if representations[name]]
    rows = [("%", "".join(f"{REPRESENTATIONS[name]:>10}" for name in measured))]
    for use, label in USES.items():
        values = [(representations[name] or {}).get(use) for name in measured]
        if any(value is not None for value in values):
            rows.append((label, "".join(f"{percent(value):>10}" for value in values)))
    return rows


def align(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines with names aligned left and values aligned right."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    wide = max(16, *(len(value) for _, value in rows))
    return [f"  {name:<{width}}  {value:>{wide}}".rstrip() for name, value in rows]
