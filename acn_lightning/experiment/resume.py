"""What a run resumes from, and what it may change when it resumes."""

import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning.checkpoint import LAST, newest_checkpoint, read_checkpoint
from acn_lightning.config.compose import Plain, complete, compose, flatten
from acn_lightning.config.imports import imports_of
from acn_lightning.config.values import read_word
from acn_lightning.experiment.budget import about_kept, with_sizes_of
from acn_lightning.experiment.carried import (
    chosen_config,
    config_of,
    divide,
    merged,
    not_taken,
    refuse_changes,
    refuse_imports,
)
from acn_lightning.experiment.folder import AUTO
from acn_lightning.utils.errors import UnreadableError, UsageError
from acn_lightning.utils.files import local_path, matching
from acn_lightning.utils.registry import is_path
from acn_lightning.utils.text import words_to_go_on


class Resumed(NamedTuple):
    """The checkpoint that a run resumes from.

    Attributes:
        told: lines for the user on what is and what is not taken from it.
    """

    path: Path
    content: dict[str, Any]
    told: tuple[str, ...] = ()


FREE = ("trainer.", "budget.", "compile", "channels_last", "pictures.", "probe.", "dashboard.",
        "early_stopping.", "warnings.", "evaluation.", "sampling.", "callbacks.",
        "wandb.", "logger", "run", "resume", "checkpoints.", "data.root", "data.path",
        "data.download", "data.cache", "neighbours.device",
        "finetune.checkpoint", "model.encoder.weights")  # fmt: skip
"""Beginnings of the keys that a run may change when it resumes."""


def fit_config(
    experiment: str | None, overrides: list[str], between: Mapping[str, Any] | None = None
) -> tuple[Plain, Resumed | None]:
    """The config to train with, and the checkpoint to resume from if one is named.

    With a checkpoint but no experiment, the config is the checkpoint's. Either way the config must
    agree with the checkpoint in everything that a resumed run cannot change.

    Args:
        experiment: a name, or a YAML file.
        overrides: changes to its config.
        between: as for `compose`.

    Raises:
        UsageError: the config does not agree, or is invalid.
    """
    typed = [word.partition("=")[2] for word in overrides if word.startswith("resume=")]
    resume = read_word("resume", typed[-1], str | None) if typed else None
    if experiment or not resume or resume == AUTO:
        config = compose(experiment or "digits", overrides, between)
        resume = config["resume"]
    if not resume or resume == AUTO:
        return config, None
    resumed = Resumed(*newest_checkpoint(local_path(resume, "resume")))
    if experiment:
        kept = own_config(resumed, config)
        resumed = resumed._replace(told=about_kept(config, kept))
        config = with_sizes_of(config, kept)
        way_out = "Leave it out, leave the experiment out to take the checkpoint's"
        refuse_changes(kept, config, is_fixed, way_out)
    else:
        _, config = chosen_config(resumed.content, overrides, "training", is_fixed)
        lines = not_taken(resumed.content, config, overrides)
        resumed = resumed._replace(told=tuple(lines))
    return config, resumed


def is_fixed(key: str) -> bool:
    """Whether a run must keep this key when it resumes."""
    return not key.startswith(FREE)


def own_checkpoint(config: Plain, folder: Path) -> Resumed | None:
    """For `resume=auto`: the newest checkpoint in the run's own folder; None if there is none.

    Raises:
        UsageError: there are checkpoints, but none can be read; or the config contradicts theirs.
        OSError: one of them, or their folder, may not be read.
    """
    if not matching(folder / "checkpoints", "*.ckpt"):
        return None
    resumed = Resumed(*newest_checkpoint(folder))
    kept = own_config(resumed, config)
    words = shlex.join(["fit", *words_to_go_on(folder)])
    # A newer version of an experiment may say what the user does not.
    way_out = f"Leave it out, resume by what the run has kept (acn {words})"
    refuse_changes(kept, with_sizes_of(config, kept), is_fixed, way_out)
    return resumed._replace(told=about_kept(config, kept))


def state_of(folder: Path) -> tuple[int, ...] | None:
    """By which the newest checkpoint in a run's folder is known again; None if there is none."""
    try:
        status = (folder / "checkpoints" / LAST).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@rank_zero_only
def check_state(folder: Path, found: tuple[int, ...] | None) -> None:
    """Checks, once nobody else writes to a run's folder, that its newest checkpoint is the one that
    was there when it was read: the process that wrote there before may have saved another since.

    Raises:
        UsageError: it is another.
    """
    if state_of(folder) != found:
        raise UsageError(
            f"run: another process has saved {folder / 'checkpoints' / LAST} since this one began. "
            "Repeat the command."
        )


def own_config(resumed: Resumed, config: Plain) -> Plain:
    """The config that a checkpoint carries, for a command with a complete config of its own, which
    decides the rest.

    Raises:
        UsageError: it would import code that the command's config does not.
    """
    kept, _ = divide(config_of(resumed.content))
    _, rest = divide(config)
    named = dict(flatten(config))
    before = {key: path for key, path in imports_of(kept).items() if is_path(named.get(key))}
    refuse_changes(before, {key: named[key] for key in before}, lambda key: True)
    refuse_imports(kept, named)
    if kept["data"].get("source") != config["data"]["source"]:
        rest.pop("data", None)
    return complete(merged(rest, kept))


def best_beside(resumed: Resumed) -> Path | None:
    """The best checkpoint of the run that another resumes, which lies beside its own; None if there
    is none, if it cannot be read, or if it is another run's or a later epoch's."""
    best = resumed.path.with_name("best.ckpt")
    if not best.is_file():
        return None
    try:
        content = read_checkpoint(best)
        if content.get("epoch", 0) > resumed.content.get("epoch", 0):
            raise UnreadableError(f"{best} is of a later epoch than {resumed.path}.")
        if trained_as(content) != trained_as(resumed.content):
            raise UnreadableError(f"{best} has other networks or images than {resumed.path}.")
    except UnreadableError as error:
        warnings.warn(f"{error} The run will find a new best checkpoint.", stacklevel=2)
        return None
    return best


def trained_as(content: dict[str, Any]) -> tuple[Any, ...]:
    """What the checkpoints of one run have in common: networks, form of the images, images.

    Raises:
        UnreadableError: its config is not one that acn writes.
    """
    known = content["hyper_parameters"]
    try:
        model = dict(flatten(config_of(content)["model"]))
    except UsageError as error:
        raise UnreadableError(str(error)) from error
    model.pop("encoder.weights", None)  # a run may name another place when it resumes
    return model, list(known["image_shape"]), content.get("ImageData", {}).get("fingerprint")
