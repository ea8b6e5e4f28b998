"""Checkpoints are read with `weights_only=True`, so loading a file never runs code, and checked as
a whole before anything is taken from them."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, cast

import torch

from acn_lightning.checkpoint.structure import check_structure
from acn_lightning.checkpoint.writing import LAST, NEW
from acn_lightning.utils.errors import UsageError


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
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is not an acn checkpoint, or is damaged.")
    check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds a pickled object, which could run code when loaded, and is refused. acn "
            "writes only tensors, numbers and strings."
        ) from error
    except MemoryError as error:
        raise UsageError(f"{path} needs more memory than there is.") from error
    except Exception as error:  # on a bad file, the parser may raise anything
        raise UsageError(f"{path} is truncated, or not a checkpoint.") from error
    try:
        check_structure(content)
    except UsageError as error:
        raise UsageError(
            f"{path} is a checkpoint, but not one that acn fit wrote: {error}."
        ) from error
    except Exception as error:  # torch has types of tensors that can hardly be looked at
        raise UsageError(f"{path} holds values that acn fit does not write.") from error
    return cast(dict[str, Any], content)


def check_archive(path: Path) -> None:
    """Verifies a checkpoint as a zip file: the checksums of its parts, which torch does not check,
    and that none is compressed, as a small file could otherwise fill the memory.

    Raises:
        UsageError: a part is compressed or does not match its checksum, or the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [one for one in archive.infolist() if one.compress_type != zipfile.ZIP_STORED]
            damaged = None if packed else archive.testzip()
    except Exception as error:  # on a bad file, the parser may raise anything
        raise UsageError(f"{path} is truncated or damaged.") from error
    if packed:
        raise UsageError(
            f"{path} is not an acn checkpoint: its part {packed[0].filename} is compressed."
        )
    if damaged:
        raise UsageError(f"{path} is damaged: its part {damaged} does not match its checksum.")
