"""Checkpoints are written whole or not at all."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from acn_lightning.checkpoint.structure import check_training, check_values, need, plain_values
from acn_lightning.utils.errors import TrainingError, UsageError
from acn_lightning.utils.files import replacing, sync

LAST, NEW = "last.ckpt", "new.ckpt"
"""A run's newest checkpoint, and its name until `rotate` has kept the older ones."""


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, flushes it to disk, and only then renames it. If the
    process is killed or the disk is full, the previous checkpoint is unchanged.

    Raises:
        UsageError: a part of it, such as the state of a callback, could not be read again.
        TrainingError: the checkpoint cannot be written.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Path | str, storage_options: Any = None
    ) -> None:
        path, checkpoint = Path(path), readable(checkpoint)
        try:
            with replacing(path, durable=True) as beside, beside.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
            raise TrainingError(
                f"{path} cannot be written: {deepest(error)}. Earlier checkpoints are unchanged."
            ) from error


def readable(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as it is written: what a callback or an optimiser of one's own keeps passes the
    checks of `read_checkpoint`. Weights stay as they are; each is a tensor.

    Raises:
        UsageError: it does not.
    """
    weights = {name: checkpoint[name] for name in checkpoint.keys() & {"state_dict"}}
    others = plain_values({name: one for name, one in checkpoint.items() if name not in weights})
    try:
        for name, value in weights.get("state_dict", {}).items():
            need(isinstance(value, Tensor), f"its {name} holds a {type(value).__name__}")
        check_values(others)
        check_training(others)
    except UsageError as error:
        raise UsageError(
            f"A checkpoint could not be read again: {error}. Keep numbers, texts, tensors, and "
            "lists and mappings of these in the state of your callbacks and optimisers; in that of "
            "networks, tensors."
        ) from error
    return others | weights


def rotate(folder: Path, keep: int) -> None:
    """Makes `new.ckpt` the `last.ckpt`, that the `last-1.ckpt`, and so on; keeps `keep` in all.

    At every moment there is a `last.ckpt`, if there was one, except on a file system without hard
    links.
    """
    names = [LAST, *(f"last-{age}.ckpt" for age in range(1, keep))]
    for younger, older in reversed(list(pairwise(names))):
        if (folder / younger).is_file():
            (folder / older).unlink(missing_ok=True)
            try:
                os.link(folder / younger, folder / older)
            except OSError:  # the file system has no hard links
                (folder / younger).replace(folder / older)
    (folder / NEW).replace(folder / LAST)
    sync(folder)


def deepest(error: Exception) -> str:
    """The first line of an error's deepest cause, which is what a user can fix."""
    while error.__context__ is not None and isinstance(error.__context__, Exception):
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
