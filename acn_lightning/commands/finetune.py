"""`acn finetune`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acn_lightning.experiment.results import Outcome

SECTION = "finetune"


def finetune(checkpoint: str, name: str, overrides: list[str]) -> "Outcome":
    """Fine-tune the networks of a checkpoint on the data of an experiment.

    Args:
        checkpoint: a checkpoint, a run's folder for its best one, or a pack.
        name: an experiment, or a YAML file.
        overrides: changes to the experiment's config; keys of `finetune` work without the section.

    Raises:
        UsageError: as for `fit`; or none of the checkpoint's weights fits.
        TrainingError, InterruptionError: as for `fit`.
    """
    from acn_lightning.experiment.finetune import finetune_config
    from acn_lightning.experiment.train import run

    return run(finetune_config(checkpoint, name, overrides))
