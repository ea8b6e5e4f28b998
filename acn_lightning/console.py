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

ADVERTS = ("litlogger", "litmodels", "`weights_only` was not set")
"""What Lightning advertises, and what it says of loading when it saves."""


COSTS = {
    "reconstruction": "reconstruction",
    "kl_k1": "KL, K = 1",
    "kl_k5": "KL, K = 5",
    "kl_k10": "KL, K = 10",
    "kl_tour": "KL, tour of the test set",
    "kl_unconditional": "KL, unconditional",
}

ACCURACIES = {
    "linear": "linear classifier, codes",
    "knn": "KNN classifier, codes",
    "linear_pca": "linear classifier, principal components",
    "linear_pixels": "linear classifier, pixels",
}


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
    nats, bits = results["nats_per_image"], results["bits_per_dim"]
    rows = [("cost", "nats/image")]
    rows += [(label, f"{nats[name]:.2f}") for name, label in COSTS.items()]
    rows += [
        (f"{name} = reconstruction + {what}", f"{nats[name]:.2f}")
        for name, what in [("ordered", "tour"), ("unordered", "unconditional")]
    ]
    rows += [(f"{name}, bits/dim", f"{bits[name]:.4f}") for name in ("ordered", "unordered")]
    if results["accuracy"]["knn"] is not None:
        rows += [("", ""), ("accuracy", "%")]
        rows += [(label, percent(results["accuracy"][name])) for name, label in ACCURACIES.items()]
    rows.append(("", ""))
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


def percent(fraction: float | None) -> str:
    """With two decimals; None is what was not measured."""
    return "not asked for" if fraction is None else f"{100 * fraction:.2f}"


def align(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names to the left, values to the right."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {value:>16}".rstrip() for name, value in rows]
