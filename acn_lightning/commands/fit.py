"""`acn fit`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acn_lightning.experiment.results import Outcome


def fit(name: str | None, overrides: list[str]) -> "Outcome":
    """Train an experiment, then evaluate the best checkpoint on its test set.

    Args:
        name: an experiment or a YAML file, plus any layers: mnist+small; by default digits, or the
            config of the checkpoint to resume from.
        overrides: changes to its config.

    Raises:
        UsageError: the config, the data or the checkpoint to resume from is wrong; nothing has been
            written.
        TrainingError: the loss is no longer finite.
        InterruptionError: Ctrl-C or SIGTERM.
    """
    from acn_lightning.experiment.resume import fit_config
    from acn_lightning.experiment.train import run

    return run(*fit_config(name, overrides))
