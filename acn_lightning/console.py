"""What a finished run has to tell a person."""

import logging
import warnings
from collections.abc import Iterable

from acn_lightning.experiment import Outcome

UNNEEDED = (
    ".*does not have many workers.*",  # batches are gathered in memory: a worker would slow it down
    ".*smaller than the logging interval.*",  # we log per epoch
    ".*Experiment logs directory.*exists and is not empty.*",  # it holds our config.yaml
    ".*LeafSpec.*is deprecated.*",  # between Lightning and torch
    ".*The dirpath has changed.*",
)
"""Warnings that would send a user looking for what is not wrong."""

ADVERTS = ("litlogger", "`weights_only` was not set")  # the second is about saving, not loading


def hush() -> None:
    """Keeps from the terminal what a user of `acn` can do nothing with."""
    for message in UNNEEDED:
        warnings.filterwarnings("ignore", message)
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
    ):
        logging.getLogger(name).addFilter(
            lambda record: not any(word in record.getMessage() for word in ADVERTS)
        )


def table(outcome: Outcome) -> str:
    """A short table of an outcome, and the paths of what was written."""
    results = outcome.results
    costs = results["nats_per_image"]
    (kl,) = (name for name in costs if name.startswith("kl_k"))
    k = kl.removeprefix("kl_k")
    rows = [
        ("reconstruction", f"{costs['reconstruction']:.2f} nats/image"),
        (f"KL, K = {k}", f"{costs[kl]:.2f} nats/image"),
        ("total", f"{costs['total']:.2f} nats/image"),
    ]
    if (accuracy := results["accuracy"]["knn"]) is not None:
        rows.append((f"KNN accuracy of codes, K = {k}", f"{100 * accuracy:.2f} %"))
    if outcome.rebuilds:
        rows.append(("index rebuilds", f"{outcome.rebuilds[0]} in {outcome.rebuilds[1]:.2f} s"))
    if outcome.refreshed:
        rows.append(("codes refreshed, last epoch", "{:,} of {:,}".format(*outcome.refreshed)))
    rows.append(("seconds", f"{results['seconds']:.1f}"))
    title = (
        f"{results['data']}, {results['images']:,} {results['split']} images, "
        f"binarisation {results['binarisation']}, seed {results['seed']}"
    )
    return "\n".join([title, *align(rows), "", *map(str, outcome.files)])


def align(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names to the left, values to the right."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {value:>18}" for name, value in rows]
