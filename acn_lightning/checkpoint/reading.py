"""Checkpoints are read with `weights_only=True`, so loading a file never runs code. They and packs
are checked as a whole before anything is taken from them."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from acn_lightning.checkpoint.packs import is_pack, read_pack
from acn_lightning.checkpoint.structure import check_structure
from acn_lightning.checkpoint.writing import LAST, NEW
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.files import matching


def newest_checkpoint(path: Path | str) -> tuple[Path, dict[str, Any]]:
    """The path and content of a checkpoint to resume from.

    Args:
        path: a checkpoint, or a run's folder for its newest. If `last.ckpt` is missing or damaged,
            the next one that can be read is used, with a warning.

    Raises:
        UsageError: none can be read, the error being that of the first one tried; or the path is
            a pack's.
        OSError: one that may be newer may not be read.
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
        raise UsageError(f"There is no checkpoint {path}.")
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
        UsageError: it is missing, truncated, not from `acn`, or holds a pickled object.
        OSError: the file may not be read.
    """
    path = find_model(path)
    if path.is_dir():
        content, what = read_pack(path), "a pack, but not one that acn pack wrote"
    else:
        content, what = read_archive(path), "a checkpoint, but not one that acn fit wrote"
    try:
        check_structure(content)
    except UsageError as error:
        raise UsageError(f"{path} is {what}: {error}.") from error
    except Exception as error:  # torch has types of tensors that can hardly be looked at
        raise UsageError(f"{path} holds values that acn does not write.") from error
    return content


def read_archive(path: Path) -> Any:
    """What a checkpoint's file holds, which is not checked yet.

    Raises:
        UsageError: it is truncated, no checkpoint, or holds a pickled object.
        OSError: it may not be read.
    """
    path.open("rb").close()  # zipfile would take what may not be read for damaged
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is not an acn checkpoint, or is damaged.")
    check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds a pickled object, which could run code when loaded, and is refused. acn "
            "writes only tensors, numbers and strings."
        ) from error
    except MemoryError as error:
        raise UsageError(f"{path} needs more memory than there is.") from error
    except Exception as error:  # on a bad file, the parser may raise anything
        raise UsageError(f"{path} is truncated, or not a checkpoint.") from error


def check_archive(path: Path) -> None:
    """Verifies a checkpoint as a zip file: the checksums of its parts, which torch does not check,
    and that none is compressed, as a small file could otherwise fill the memory.

    Raises:
        UsageError: a part is compressed or does not match its checksum, or the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {one.filename.lower() for one in archive.infolist()}  # torch ignores case
            same = archive.start_dir == directory_of(path) and len(names) == len(archive.infolist())
            if not same:  # torch would read other parts than are checked here
                raise zipfile.BadZipFile
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


def directory_of(path: Path) -> int:
    """Where the last record of a zip file says that its directory begins, in bytes. torch believes
    it; Python's `zipfile` takes the directory that lies before the record."""
    with path.open("rb") as file:
        file.seek(-min(98, path.stat().st_size), 2)
        tail = file.read()
    if tail[-42:-38] == b"PK\6\7":  # zip64, as torch writes it
        return int.from_bytes(tail[48:56], "little")
    return int.from_bytes(tail[-6:-2], "little")
