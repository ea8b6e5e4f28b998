"""Checkpoints are read with `weights_only=True`, so loading a file never runs code. They and packs
are checked as a whole before anything is taken from them."""

import pickle
import warnings
from pathlib import Path
from typing import Any

from acn_lightning.checkpoint.packs import is_pack, read_pack
from acn_lightning.checkpoint.structure import check_structure
from acn_lightning.checkpoint.writing import LAST, NEW
from acn_lightning.utils.archives import load_tensors
from acn_lightning.utils.errors import UnreadableError, UsageError, lacks_memory
from acn_lightning.utils.files import matching


def newest_checkpoint(path: Path | str) -> tuple[Path, dict[str, Any]]:
    """The path and content of a checkpoint to resume from.

    Args:
        path: a checkpoint, or a run's folder for its newest. If `last.ckpt` is missing or damaged,
            the next one that can be read is used, with a warning.

    Raises:
        UsageError: none can be read, the error being that of the first one tried; one that may be
            newer needs more memory than there is; or the path is a pack's.
        OSError: one that may be newer may not be read, or the machine fails.
    """
    path = Path(path)
    if path.is_dir():
        if is_pack(path):
            raise UsageError(
                f"{path} is a pack, which has no state of training to resume: use acn finetune."
            )
        path = path / "checkpoints" / LAST
    paths = [path]
    if path.name == LAST:
        older = sorted(matching(path.parent, "last-*.ckpt"), key=lambda one: len(one.name))
        paths += [one for one in (path.with_name(NEW), *older) if one.is_file()]
    first: UnreadableError | None = None
    for one in paths:
        try:
            checkpoint = read_checkpoint(one)
        except UnreadableError as error:
            first = first or error
            continue
        if first:
            warnings.warn(f"{first} Resuming from {one} instead.", stacklevel=2)
        return one, checkpoint
    assert first is not None
    raise first


BEST = "best.ckpt"


def find_model(path: Path | str) -> Path:
    """Where the model is that a user means.

    Args:
        path: a checkpoint; a run's folder, for its best checkpoint, or else its last; or a pack.

    Returns:
        A checkpoint, or the folder of a pack.

    Raises:
        UsageError: it is none of these.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise UnreadableError(f"There is no checkpoint {path}.")
    for name in (BEST, LAST):
        if (path / "checkpoints" / name).is_file():
            return path / "checkpoints" / name
    if is_pack(path):
        return path
    raise UsageError(
        f"{path} is neither a run's folder (it has no checkpoints/{BEST} and no "
        f"checkpoints/{LAST}), nor a pack, nor a checkpoint."
    )


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Reads a model that `acn fit` or `acn pack` wrote, onto the CPU.

    Args:
        path: see `find_model`. A pack has no state of training.

    Raises:
        UnreadableError: it is missing, truncated, not from `acn`, or holds a pickled object.
        UsageError: it needs more memory than there is.
        OSError: the file may not be read, or the machine fails.
    """
    path = find_model(path)
    if path.is_dir():
        content, what = read_pack(path), "a pack, but not one that acn pack wrote"
    else:
        content, what = read_archive(path), "a checkpoint, but not one that acn fit wrote"
    try:
        check_structure(content)
    except UsageError as error:
        raise UnreadableError(f"{path} is {what}: {error}.") from error
    except Exception as error:  # torch has types of tensors that can hardly be looked at
        if lacks_memory(error):
            raise UsageError(f"{path} needs more memory than there is.") from error
        raise UnreadableError(f"{path} holds values that acn does not write.") from error
    return content


def read_archive(path: Path) -> Any:
    """What a checkpoint's file holds, which is not checked yet.

    Raises:
        UnreadableError: it is truncated, no checkpoint, or holds a pickled object.
        UsageError: it needs more memory than there is.
        OSError: it may not be read, or the machine fails.
    """
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise UnreadableError(f"{path} is not an acn checkpoint, or is damaged.")
    try:
        return load_tensors(path, "an acn checkpoint")
    except pickle.UnpicklingError as error:
        raise UnreadableError(
            f"{path} holds a pickled object, which could run code when loaded, and is refused. acn "
            "writes only tensors, numbers and strings."
        ) from error
