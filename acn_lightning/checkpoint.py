"""Checkpoints: written whole or not at all, and read with `weights_only=True` always, so that a
file that is loaded never runs code."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from acn_lightning.config.compose import Plain, complete, differences
from acn_lightning.utils.errors import TrainingError, UsageError

KEY = "acn_config"
"""Where a checkpoint's hyper-parameters hold the config."""

LAST, NEW = "last.ckpt", "new.ckpt"
"""The newest checkpoint of a run; and the same as long as the ones before it make room."""


# ---------------------------------------------------------------- writing


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, has it brought to the disk, and only then gives it its
    name: a process that is killed, or a disk that is full, leaves the one before as it was.

    Raises:
        TrainingError: it cannot be written.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Path | str, storage_options: Any = None
    ) -> None:
        path = Path(path)
        beside = path.with_name(f".{path.name}.partial")  # one writer a folder: the next uses it
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            bring_to_disk(path.parent)
        except (OSError, RuntimeError) as error:  # torch's, where its writer meets a full disk
            beside.unlink(missing_ok=True)
            raise TrainingError(
                f"{path} cannot be written: {one_line(error)}. The checkpoints written before are "
                "as they were."
            ) from error


def rotate(folder: Path, keep: int) -> None:
    """`new.ckpt` becomes `last.ckpt`; that one `last-1.ckpt`, and so on, `keep` of them in all."""
    names = [LAST, *(f"last-{age}.ckpt" for age in range(1, keep))]
    for younger, older in reversed(list(pairwise(names))):
        if (folder / younger).is_file():
            (folder / younger).replace(folder / older)
    (folder / NEW).replace(folder / LAST)
    bring_to_disk(folder)


def bring_to_disk(folder: Path) -> None:
    """A folder's names survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def one_line(error: Exception) -> str:
    """The deepest cause of an error, which is what a person can mend."""
    while error.__context__ is not None and isinstance(error.__context__, Exception):
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


# ---------------------------------------------------------------- reading


def newest_checkpoint(path: Path | str) -> tuple[Path, dict[str, Any]]:
    """A checkpoint to go on from, and where it lies.

    Args:
        path: of a checkpoint, or a run's folder for its newest. Where `last.ckpt` is missing or
            damaged the one before it counts, and a warning says so.

    Raises:
        UsageError: none can be read; the error is the first one's.
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
            warnings.warn(f"{first} Going on from {one}, the one before.", stacklevel=2)
        return one, checkpoint
    assert first is not None
    raise first


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
    """The config that a checkpoint was trained with, in today's terms."""
    config: Plain = checkpoint["hyper_parameters"][KEY]
    return in_todays_terms(config)


def in_todays_terms(config: Plain) -> Plain:
    """A config of before codes had a shape of their own: whether they lay on a sphere was an option
    of the encoder, and how far apart they began, which matters to nothing that has begun."""
    model = dict(config["model"])
    if "shape" in model:
        return config
    encoder = dict(model["encoder"])
    spread, sphere = encoder.pop("spread", 1.0), encoder.pop("sphere", False)
    shape = {"kind": "sphere", "radius": spread} if sphere else {"kind": "free"}
    return config | {"model": model | {"encoder": encoder, "shape": shape}}


def carried_config(checkpoint: dict[str, Any], given: Sequence[str]) -> Plain:
    """The config that a checkpoint carries, with what has become an option since, to be built from.

    Args:
        checkpoint: may come from a stranger.
        given: what the user's command says besides, `key=value`.

    Raises:
        UsageError: building it would import code that the command does not name.
    """
    config = complete(config_of(checkpoint) | {"run": None, "resume": None})
    encoder = config["model"]["encoder"]
    if encoder["kind"] == "import":
        named = f"model.encoder.path={encoder['path']}"
        if not any(
            word.startswith(("model.encoder.path=", "model.encoder.kind=")) for word in given
        ):
            raise UsageError(
                f"model.encoder.path: the checkpoint's encoder is {encoder['path']}, code outside "
                f"of acn that it would import and run. If you trust that, add {named}."
            )
        encoder["weights"] = None  # the checkpoint has what became of them
    return config


def epochs_of(checkpoint: dict[str, Any]) -> int:
    """The epoch that training goes on with: its number, which is how many are complete."""
    progress: int = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return progress


def refuse_changes(kept: Plain, config: Plain, fixed: Callable[[str], bool]) -> None:
    """Raises:
    UsageError: the config differs from the checkpoint's in a `fixed` key.
    """
    changes = differences(kept, config)
    # Another kind brings other options: the kind is what to name.
    for key in sorted(changes, key=lambda key: not key.endswith(".kind")):
        old, new = changes[key]
        if fixed(key):
            raise UsageError(
                f"{key}: the checkpoint was trained with {old}, the command says {new}. Leave it "
                "out, or train anew."
            )
