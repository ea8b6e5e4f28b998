"""Checkpoints, read with `weights_only=True` always: a file that is loaded never runs code."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from acn_lightning.config import Plain
from acn_lightning.errors import UsageError

KEY = "acn_config"
"""Where a checkpoint's hyper-parameters hold the config."""


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """A checkpoint that `acn fit` wrote, on the CPU.

    Raises:
        UsageError: it is missing, truncated, not ours, or holds an object to be unpickled.
    """
    path = Path(path)
    if not path.is_file():
        what = (
            f"{path} is a folder, no checkpoint"
            if path.is_dir()
            else f"There is no checkpoint {path}"
        )
        raise UsageError(f"{what}.")
    if zipfile.is_zipfile(path):
        check_sums(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch raises this for what is no pickle at all, and for a pickle of more than tensors.
        if zipfile.is_zipfile(path):
            raise UsageError(
                f"{path} holds a pickled object, which could run code when loaded: refused. "
                "acn writes tensors, numbers and strings only."
            ) from error
        raise UsageError(f"{path} is no checkpoint of acn, or a damaged one.") from error
    except Exception as error:  # its parser meets a wrong file with any kind of error
        raise UsageError(f"{path} is truncated, or no checkpoint at all.") from error
    parameters = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(parameters, dict) or KEY not in parameters:
        raise UsageError(f"{path} is a checkpoint, but not one that acn fit wrote.")
    return content


def check_sums(path: Path) -> None:
    """A checkpoint is a zip file, which knows its parts' checksums; torch does not look at them.

    Raises:
        UsageError: a part is not what was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # its parser meets a wrong file with any kind of error
        raise UsageError(f"{path} is truncated or damaged.") from error
    if damaged:
        raise UsageError(f"{path} is damaged: its part {damaged} is not what was written.")


def config_of(checkpoint: dict[str, Any]) -> Plain:
    """The config that a checkpoint was trained with."""
    config: Plain = checkpoint["hyper_parameters"][KEY]
    return config


def is_unfinished(checkpoint: dict[str, Any]) -> bool:
    """Whether it was saved within an epoch, and not at an epoch boundary."""
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    return batches["current"]["ready"] > 0 and not batches["is_last_batch"]
