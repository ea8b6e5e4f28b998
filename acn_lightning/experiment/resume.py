"""What a run resumes from, and what it may change when it resumes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from acn_lightning.checkpoint import newest_checkpoint
from acn_lightning.config.compose import Plain, complete, compose
from acn_lightning.experiment.budget import with_sizes_of
from acn_lightning.experiment.folder import AUTO
from acn_lightning.experiment.restore import (
    carried_config,
    config_of,
    imports_of,
    refuse_changes,
    refuse_imports,
    refuse_other_networks,
)
from acn_lightning.utils.errors import UsageError


class Resumed(NamedTuple):
    """The checkpoint that a run resumes from."""

    path: Path
    content: dict[str, Any]


FREE = ("trainer.", "budget.", "compile", "channels_last", "pictures.", "probe.", "dashboard.",
        "evaluation.", "sampling.", "callbacks.",
        "wandb.", "logger", "run", "resume", "checkpoints.", "data.root", "data.download",
        "finetune.checkpoint", "model.encoder.weights")  # fmt: skip
"""Beginnings of the keys that a run may change when it resumes."""


def fit_config(experiment: str | None, overrides: list[str]) -> tuple[Plain, Resumed | None]:
    """The config to train with, and the checkpoint to resume from if one is named.

    With a checkpoint but no experiment, the config is the checkpoint's. Either way the config must
    agree with the checkpoint in everything that a resumed run cannot change.

    Raises:
        UsageError: the config does not agree, or is invalid.
    """
    resume = [word.partition("=")[2] for word in overrides if word.startswith("resume=")]
    if experiment or not any(resume) or resume[-1] == AUTO:
        config = compose(experiment or "digits", overrides)
        resume = [config["resume"]]
    if not resume[-1] or resume[-1] == AUTO:
        return config, None
    resumed = Resumed(*newest_checkpoint(resume[-1]))
    if experiment:
        kept = own_config(resumed, config)
        config = with_sizes_of(config, kept)
    else:
        refuse_other_networks(resumed.content, overrides)
        kept = carried_config(resumed.content, overrides, "training")
        config = complete(kept, overrides)
    refuse_changes(kept, config, lambda key: not key.startswith(FREE))
    return config, resumed


def own_checkpoint(config: Plain, folder: Path) -> Resumed | None:
    """For `resume=auto`: the newest checkpoint in the run's own folder; None if there is none.

    Raises:
        UsageError: there are checkpoints, but none can be read; or the config contradicts theirs.
    """
    if not any((folder / "checkpoints").glob("*.ckpt")):
        return None
    resumed = Resumed(*newest_checkpoint(folder))
    kept = own_config(resumed, config)
    refuse_changes(kept, with_sizes_of(config, kept), lambda key: not key.startswith(FREE))
    return resumed


def own_config(resumed: Resumed, config: Plain) -> Plain:
    """The config that a checkpoint carries, for a command with a complete config of its own.

    Raises:
        UsageError: it would import code that the command's config does not.
    """
    # A run may change its callbacks when it resumes, so the checkpoint's are not imported.
    kept = config_of(resumed.content) | {"callbacks": config["callbacks"]}
    named = imports_of(config)
    refuse_imports(kept, named)
    before = {key: path for key, path in imports_of(kept).items() if key in named}
    refuse_changes(before, {key: named[key] for key in before}, lambda key: True)
    return complete(kept)


def check_processes(checkpoint: Mapping[str, Any], processes: int) -> None:
    """Checks that a checkpoint saved mid-epoch resumes with the same world size.

    Raises:
        UsageError: the world size differs.
    """
    then = len(checkpoint.get("epoch_costs", [])) or processes
    if then != processes:
        raise UsageError(
            f"trainer.devices: the checkpoint was saved mid-epoch by {then} processes, each with "
            f"its own share of the images; this run has {processes}. Use {then}, or a checkpoint "
            "from the end of an epoch, such as the last-1.ckpt beside it."
        )


def epochs_of(checkpoint: dict[str, Any]) -> int:
    """The number of the epoch to resume with, which is how many are complete."""
    progress: int = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return progress
