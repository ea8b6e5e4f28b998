"""Checkpoints are written whole or not at all, and always read with `weights_only=True`, so loading
a file never runs code."""

import pickle
import warnings
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from acn_lightning.utils.errors import TrainingError, UsageError
from acn_lightning.utils.files import replacing, sync

KEY = "acn_config"
"""Key of the config in a checkpoint's hyper-parameters."""

LAST, NEW = "last.ckpt", "new.ckpt"
"""A run's newest checkpoint, and its name until `rotate` has moved the older ones."""


# ---------------------------------------------------------------- writing


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, flushes it to disk, and only then renames it. If the
    process is killed or the disk is full, the previous checkpoint is unchanged.

    Raises:
        TrainingError: the checkpoint cannot be written.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Path | str, storage_options: Any = None
    ) -> None:
        path = Path(path)
        try:
            with replacing(path, durable=True) as beside, beside.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
            raise TrainingError(
                f"{path} cannot be written: {one_line(error)}. Earlier checkpoints are unchanged."
            ) from error


def rotate(folder: Path, keep: int) -> None:
    """Renames `new.ckpt` to `last.ckpt`, that to `last-1.ckpt`, and so on; keeps `keep` in all."""
    names = [LAST, *(f"last-{age}.ckpt" for age in range(1, keep))]
    for younger, older in reversed(list(pairwise(names))):
        if (folder / younger).is_file():
            (folder / younger).replace(folder / older)
    (folder / NEW).replace(folder / LAST)
    sync(folder)


def one_line(error: Exception) -> str:
    """The first line of an error's deepest cause, which is what a user can fix."""
    while error.__context__ is not None and isinstance(error.__context__, Exception):
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


# ---------------------------------------------------------------- reading


def newest_checkpoint(path: Path | str) -> tuple[Path, dict[str, Any]]:
    """The path and content of a checkpoint to resume from.

    Args:
        path: a checkpoint, or a run's folder for its newest. If `last.ckpt` is missing or damaged,
            the next one that can be read is used, with a warning.

    Raises:
        UsageError: none can be read; the error is that of the first one tried.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / LAST
    paths = [path]
    if path.name == LAST:
        older = sorted(path.parent.glob("last-*.ckpt"), key=lambda one: (len(one.name), one.name))
        paths += [one for one in (path.with_name(NEW), *older) if one.is_file()]
    first: UsageError | None = None
    for one in paths:
        try:
            checkpoint = read_checkpoint(one)
        except UsageError as error:
            first = first or error
            continue
        if first:
            warnings.warn(f"{first} Resuming from {one} instead.", stacklevel=2)
        return one, checkpoint
    assert first is not None
    raise first


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Reads a checkpoint that `acn fit` wrote, onto the CPU.

    Raises:
        UsageError: it is missing, truncated, not from `acn fit`, or holds a pickled object.
    """
    path = Path(path)
    if not path.is_file():
        what = (
            f"{path} is a folder, not a checkpoint"
            if path.is_dir()
            else f"There is no checkpoint {path}"
        )
        raise UsageError(f"{what}.")
    if zipfile.is_zipfile(path):
        check_sums(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch raises this if the file is not a pickle, and if it pickles more than tensors.
        if zipfile.is_zipfile(path):
            raise UsageError(
                f"{path} holds a pickled object, which could run code when loaded, and is "
                "refused. acn writes only tensors, numbers and strings."
            ) from error
        raise UsageError(f"{path} is not an acn checkpoint, or is damaged.") from error
    except Exception as error:  # on a bad file, the parser may raise anything
        raise UsageError(f"{path} is truncated, or not a checkpoint.") from error
    parameters = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(parameters, dict) or KEY not in parameters:
        raise UsageError(f"{path} is a checkpoint, but not one that acn fit wrote.")
    return content


def check_sums(path: Path) -> None:
    """Verifies the checksums of a checkpoint, which is a zip file; torch does not check them.

    Raises:
        UsageError: a part does not match its checksum, or the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # on a bad file, the parser may raise anything
        raise UsageError(f"{path} is truncated or damaged.") from error
    if damaged:
        raise UsageError(f"{path} is damaged: its part {damaged} does not match its checksum.")
