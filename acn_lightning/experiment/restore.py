"""Restores the model that a checkpoint holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from acn_lightning.checkpoint import find_model, read_checkpoint
from acn_lightning.config.compose import Plain
from acn_lightning.config.imports import imports_of
from acn_lightning.data import ImageData
from acn_lightning.experiment.build import (
    LARGEST_SEED,
    DataSpec,
    build,
    build_module,
    make_networks,
)
from acn_lightning.experiment.carried import chosen_config
from acn_lightning.inference.trained_model import TrainedACN
from acn_lightning.module import ACN
from acn_lightning.utils.errors import UsageError, check_range, one_line


def from_checkpoint(
    checkpoint: dict[str, Any], overrides: Sequence[str], bank: bool
) -> tuple[Plain, ImageData, ACN]:
    """A checkpoint's config with overrides applied, its data, and its module with weights loaded.

    With `bank`, the module also gets the checkpoint's code bank. The data then keep the
    checkpoint's seed, so that they are the images of the bank; an overridden seed only affects what
    is drawn.

    Raises:
        UsageError: the overrides contradict the checkpoint's networks, or these cannot take the
            data; or a seed is out of range.
    """
    kept, config = chosen_config(checkpoint, overrides, "data")
    check_range("seed", config["seed"], 0, LARGEST_SEED)  # nothing is built with an overridden one
    check_networks(config, checkpoint)
    built = config | {"seed": kept["seed"]} if bank else config
    data, module = build(built, tuple(checkpoint["hyper_parameters"]["image_shape"]))
    load_state(module, checkpoint, bank)
    return config, data, module


def check_networks(config: Plain, checkpoint: Mapping[str, Any]) -> None:
    """Checks that a checkpoint has the weights of the networks that its config describes, before
    these are built: a small file could describe networks that fill the memory.

    Raises:
        UsageError: it has not.
    """
    if imports_of({"model": config["model"]}):
        return  # networks of another package are the user's own, and cannot be tried
    shape, none = checkpoint["hyper_parameters"]["image_shape"], torch.empty(0, dtype=torch.long)
    with torch.device("meta"):  # on which tensors have shapes and no content
        about = DataSpec(tuple(shape), [], none, none)
        parts = make_networks(config["model"], config["model"]["code_size"], about)
    for part, network in parts.items():
        for name, tensor in network.state_dict().items():
            found = checkpoint["state_dict"].get(f"{part}.{name}")
            if found is None or found.shape != tensor.shape:
                has = "none" if found is None else f"one of {tuple(found.shape)}"
                raise UsageError(
                    f"The checkpoint does not fit its own config: {part}.{name} is "
                    f"{tuple(tensor.shape)} there, and it has {has}."
                )


def load_state(module: ACN, checkpoint: Mapping[str, Any], bank: bool) -> None:
    """Loads the weights and, with `bank`, the code bank.

    Raises:
        UsageError: they do not fit the module.
    """
    try:
        module.load_state_dict(checkpoint["state_dict"])
        if bank:
            module.on_load_checkpoint(dict(checkpoint))
    except UsageError:
        raise
    except Exception as error:  # whatever torch raises
        raise UsageError(
            f"The checkpoint does not fit its own config: {one_line(error)}"
        ) from error


def restore(
    checkpoint: dict[str, Any], overrides: Sequence[str] = (), purpose: str = "model"
) -> ACN:
    """A checkpoint's module with its weights, its code bank and an index of it, on the CPU. The
    training images are not needed.

    Args:
        checkpoint: as `read_checkpoint` returns it.
        overrides: changes to its config, `section.key=value`.
        purpose: see `chosen_config`.

    Raises:
        UsageError: the overrides contradict the checkpoint's networks, or the checkpoint does not
            fit its own config.
    """
    _, config = chosen_config(checkpoint, overrides, purpose)
    check_networks(config, checkpoint)
    known, bank = checkpoint["hyper_parameters"], checkpoint.get("code_bank")
    if bank is None or "image_shape" not in known:
        raise UsageError("The checkpoint has no code bank or image shape: acn did not write it.")
    # Older checkpoints have no class names: class numbers stand in for them.
    classes = known.get("classes", range(int(bank["labels"].max()) + 1))
    names = [str(name) for name in classes]
    module = build_module(
        config, DataSpec(tuple(known["image_shape"]), names, bank["labels"], bank["rows"])
    )
    load_state(module, checkpoint, bank=True)
    module.bank.rebuild(module.index)
    return module.eval()


def load_model(
    path: Path | str, overrides: Sequence[str] = (), purpose: str = "model"
) -> TrainedACN:
    """A trained model on the CPU.

    Args:
        path: see `find_model`.
        overrides: changes to its config, `section.key=value`.
        purpose: see `chosen_config`.

    Raises:
        UsageError: as for `restore`; or there is no such model, or it cannot be read.
    """
    found = find_model(path)
    content = read_checkpoint(found)
    return TrainedACN(restore(content, overrides, purpose), content.get("ImageData"), found)
