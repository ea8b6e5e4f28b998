"""Formats the report of a finished run."""

import logging
import warnings
from collections.abc import Iterable
from typing import Any

from acn_lightning.experiment.results import Outcome
from acn_lightning.runs.figures import COSTS, REPRESENTATIONS, USES, percent
from acn_lightning.utils.text import counted, printable

UNNEEDED = (
    ".*does not have many workers.*",  # data is in memory: workers would slow it down
    ".*smaller than the logging interval.*",  # we log per epoch
    ".*Experiment logs directory.*exists and is not empty.*",  # it holds our config.yaml
    ".*LeafSpec.*is deprecated.*",  # between Lightning and torch
    ".*The dirpath has changed.*",
    ".*recommended to use `self.log.*sync_dist.*",  # what one process measures for all of them
    ".*distributed.nn.functional.* is deprecated.*",
)
"""Warnings that would make a user look for problems that do not exist."""

ADVERTS = ("litlogger", "litmodels", "`weights_only` was not set")
"""Parts of Lightning's adverts, and of a message about loading that it logs when saving."""


def quiet_libraries() -> None:
    """Hides library messages that a user of `acn` cannot act on, and shows warnings on one line."""
    warnings.formatwarning = warning_line
    for message in UNNEEDED:
        warnings.filterwarnings("ignore", f"(?s){message}")  # a path may hold a line break
    warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no file; our report does
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
    ):
        logging.getLogger(name).addFilter(keep_record)


def keep_record(record: logging.LogRecord) -> bool:
    """Whether a message of Lightning's is shown, without control characters from paths in it."""
    message = record.getMessage()
    record.msg, record.args = "\n".join(map(printable, message.split("\n"))), ()
    return not any(word in message for word in ADVERTS)


def warning_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as it is printed."""
    return f"acn: warning: {printable(' '.join(str(message).split()))}\n"


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
