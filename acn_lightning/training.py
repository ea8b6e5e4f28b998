"""Training on images that are given in Python."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from acn_lightning.config.compose import flatten
from acn_lightning.config.imports import words_for
from acn_lightning.data.sources.arrays import ArraysSource, as_given
from acn_lightning.experiment.carried import named_in
from acn_lightning.experiment.resume import fit_config
from acn_lightning.experiment.train import run
from acn_lightning.utils.distributed import is_rank_zero
from acn_lightning.utils.errors import InterruptionError, UsageError
from acn_lightning.utils.quiet import quiet_libraries
from acn_lightning.utils.registry import options


def train(
    images: Any,
    labels: Any,
    experiment: str,
    test: Any,
    classes: Sequence[str] | None,
    overrides: Sequence[str],
    sections: Mapping[str, Any],
) -> tuple[Path, list[str]]:
    """Trains as `acn_lightning.fit` says.

    Returns:
        The best checkpoint, and the overrides that name the code of the user's own in it.

    Raises:
        UsageError: as for `acn_lightning.fit`.
        TrainingError: the loss is no longer finite.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM.
    """
    given = plain(sections)
    data = given.setdefault("data", {})
    if not isinstance(data, dict):
        raise UsageError("data is a section: give its keys, data={'image_size': 32}.")
    folder = isinstance(images, str | os.PathLike)
    if folder:
        refuse_beside_folder(labels=labels, test=test, classes=classes)
        own = {"source": "folder", "root": os.fspath(images)}
    else:
        own = {"source": ArraysSource.kind}
        if isinstance(images, np.ndarray | Tensor):
            # What an experiment says of size is for its own images; arrays have one of their own.
            data.setdefault("image_size", None)
    refuse_other_images(own, dict(flatten({"data": data})) | named_in(overrides))
    data |= own
    config, resumed = fit_config(experiment, list(overrides), given)
    source = None
    if not folder:
        chosen = {name: config["data"][name] for name in options(ArraysSource)}
        source = ArraysSource(*as_given(images, labels, test), classes, **chosen)
    for key, keeps in (("enable_checkpointing", True), ("fast_dev_run", False)):
        told = config["trainer"].get(key)
        if told is not None and bool(told) is not keeps:
            raise UsageError(
                f"trainer.{key}: fit returns the model of the best checkpoint, so it has to keep "
                "one. Leave it out."
            )
    try:
        with quiet_libraries():
            results = run(config, resumed, source).results
    except InterruptionError as stop:
        raise interrupted(stop) from stop
    if not results.get("checkpoint"):
        raise UsageError("trainer.max_epochs: without a step there is no model to return. Use 1.")
    return Path(results["checkpoint"]), words_for({"model": config["model"]})


def refuse_beside_folder(**given: Any) -> None:
    """Checks that nothing is given with a folder that the folder says itself.

    Raises:
        UsageError: something is; it names the argument.
    """
    classes = "a folder's sub-folders are its classes"
    said = {"labels": classes, "classes": classes, "test": "a folder holds its own test images, "
            "those in test/ beside train/, or a tenth is held out"}  # fmt: skip
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{name}: {said[name]}. Leave {name} out.")


def refuse_other_images(own: Mapping[str, str], named: Mapping[str, Any]) -> None:
    """Checks that no option says that the images are others than those given.

    Args:
        own: keys of `data` that say where the given images are.
        named: values by dotted key, as the user gave them.

    Raises:
        UsageError: one does.
    """
    for key, value in own.items():
        if named.get(f"data.{key}", value) != value:
            raise UsageError(f"data.{key}: the images are given already. Leave the {key} out.")


def plain(value: Any) -> Any:
    """Values of Python and NumPy as a config has them."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def interrupted(stop: InterruptionError) -> BaseException:
    """The exception with which Python ends at a signal. Says how to resume, on rank 0."""
    if stop.checkpoint and is_rank_zero():
        name = stop.checkpoint.parents[1].name
        way = f"To go on, call fit with run={name!r}, resume='auto'."
        print(f"\nacn: interrupted. {way}", file=sys.stderr)
    return KeyboardInterrupt() if stop.status == 130 else SystemExit(stop.status)
