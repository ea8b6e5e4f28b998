"""Loads pretrained weights into a network where they fit."""

import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from acn_lightning.utils.archives import load_tensors
from acn_lightning.utils.errors import UsageError, foreign
from acn_lightning.utils.files import local_path
from acn_lightning.utils.text import shape_words


class LoadReport(NamedTuple):
    """What was loaded into a network, and what was not.

    Attributes:
        names: the network's tensors that were loaded.
        anew: the network's tensors that keep their initial values, and why.
        left: given tensors that the network does not have.
    """

    names: list[str]
    anew: dict[str, str]
    left: list[str]


def load_matching(network: nn.Module, given: Mapping[str, Tensor]) -> LoadReport:
    """Copies each tensor that matches one of the network's by name and shape.

    Args:
        network: is changed in place; it keeps its device and dtypes.
        given: tensors by name, as in a `state_dict`.
    """
    own = network.state_dict()
    anew = {}
    for name, tensor in own.items():
        if name not in given:
            anew[name] = "not in the file"
        elif given[name].shape != tensor.shape:
            anew[name] = f"{shape(given[name])} in the file, {shape(tensor)} here"
    names = [name for name in own if name not in anew]
    network.load_state_dict({name: given[name] for name in names}, strict=False)
    return LoadReport(names, anew, [name for name in given if name not in own])


def shape(tensor: Tensor) -> str:
    """A tensor's shape in words, such as 64 x 1 x 3 x 3."""
    return shape_words(tensor.shape) or "scalar"


def describe_report(taken: LoadReport) -> list[str]:
    """A line for each part, and one for each missing tensor of a part that was partly loaded."""
    size = Counter(part(name) for name in [*taken.names, *taken.anew])
    there = Counter(map(part, taken.names))
    lines = []
    for one, tensors in size.items():
        lines.append(f"  {one}: {there[one]} of {tensors} tensors loaded")
        lines += [
            f"    {name}: keeps its initial values ({why})"
            for name, why in taken.anew.items()
            if part(name) == one and there[one]
        ]
    for one, tensors in Counter(map(part, taken.left)).items():
        lines.append(f"  {one}: ignored {tensors} tensors that the network does not have")
    return lines


def part(name: str) -> str:
    """The top-level part of a name: encoder for encoder.body.0.weight."""
    return name.partition(".")[0]


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Reads named tensors without running any code from the file: `.safetensors`, or a `state_dict`
    that `torch.save` wrote, alone or as the entry `state_dict` or `model` of a checkpoint.

    Raises:
        UsageError: the file is missing, has another format, or holds an object to be unpickled or
            a compressed part.
    """
    path = local_path(str(path), "model.encoder.weights")
    if not path.is_file():
        raise UsageError(f"There is no weights file {path}.")
    with foreign(f"{path} is truncated, or is not a weights file", path):
        if path.suffix == ".safetensors":
            return load_file(path)
        try:
            content = load_tensors(path, "a weights file")
        except pickle.UnpicklingError as error:
            raise UsageError(
                f"{path} is damaged, or holds a pickled object, which could run code when loaded: "
                "refused. Give a .safetensors file, or a state_dict of tensors."
            ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if isinstance(content, dict):
        content = {str(name): value for name, value in content.items() if torch.is_tensor(value)}
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path} holds no named tensors.")
    return content
