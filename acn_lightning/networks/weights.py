"""Weights from elsewhere, taken where they fit."""

import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from acn_lightning.utils.errors import UsageError


class Taken(NamedTuple):
    """What became of each tensor of a network that was given weights from elsewhere.

    Attributes:
        names: of those taken, which are the network's own names.
        anew: of those that keep the values they were made with, and why.
        left: names of what was given and has no place in the network.
    """

    names: list[str]
    anew: dict[str, str]
    left: list[str]


def take(network: nn.Module, given: Mapping[str, Tensor]) -> Taken:
    """Copies into a network each tensor that it has by the same name and shape.

    Args:
        network: gets them, in place, on its own device and in its own types.
        given: tensors by name, as in a `state_dict`.
    """
    own = network.state_dict()
    anew = {}
    for name, tensor in own.items():
        if name not in given:
            anew[name] = "not there"
        elif given[name].shape != tensor.shape:
            anew[name] = f"{shape(given[name])} there, {shape(tensor)} here"
    names = [name for name in own if name not in anew]
    network.load_state_dict({name: given[name] for name in names}, strict=False)
    return Taken(names, anew, [name for name in given if name not in own])


def shape(tensor: Tensor) -> str:
    """(64, 1, 3, 3) in words."""
    return " x ".join(map(str, tensor.shape)) or "a number"


def table(taken: Taken) -> list[str]:
    """A line for each part of a network, and one for each of its tensors that was not taken."""
    size = Counter(part(name) for name in [*taken.names, *taken.anew])
    there = Counter(map(part, taken.names))
    lines = []
    for one, tensors in size.items():
        lines.append(f"  {one}: {there[one]} of {tensors} tensors taken")
        lines += [
            f"    {name}: begins anew ({why})"
            for name, why in taken.anew.items()
            if part(name) == one and there[one]
        ]
    for one, tensors in Counter(map(part, taken.left)).items():
        lines.append(f"  {one}: {tensors} tensors there have no place here, and are left out")
    return lines


def part(name: str) -> str:
    """encoder, of encoder.body.0.weight."""
    return name.partition(".")[0]


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Tensors by name, from a file that cannot run code: `.safetensors`, or a `state_dict` that
    `torch.save` wrote, alone or as the entry `state_dict` or `model` of a checkpoint.

    Raises:
        UsageError: it is missing, none of these, or holds an object to be unpickled.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f"There is no file of weights {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} is damaged, or holds a pickled object, which could run code when loaded: "
            "refused. Give a .safetensors file, or a state_dict of tensors."
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise UsageError(f"{path} is truncated, or no file of weights at all.") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if isinstance(content, dict):
        content = {str(name): value for name, value in content.items() if torch.is_tensor(value)}
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path} holds no tensors by name.")
    return content
