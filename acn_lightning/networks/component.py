"""What encoders, priors and decoders have in common: they are chosen by name in a config."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Component(nn.Module):
    """A network that a config chooses by `kind`.

    A direct subclass is a family (`Encoder`, `Prior`, `Decoder`, `Likelihood`); its own subclasses
    name their kind and are found in `Family.kinds`:

        class ConvEncoder(Encoder, kind="conv"): ...

    Positional constructor arguments are wiring, which other parts of the model decide (an image
    shape, the code size). Keyword-only arguments are the options of the config: their names are
    the config's keys, their annotations its types, their defaults its defaults.
    """

    kinds: ClassVar[dict[str, type["Component"]]]

    def __init_subclass__(cls, *, kind: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind is None:
            cls.kinds = {}
        else:
            cls.kinds[kind] = cls


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without gradients, and as it is when not trained (batch normalisation, dropout); each part is
    afterwards as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def in_float32(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Runs a network's last layer in float32, also under autocast. What comes out of it is stored,
    searched for, or summed over thousands of pixels: eight bits are too few for that."""
    with torch.autocast(inputs.device.type, enabled=False):
        outputs: Tensor = layer(inputs.to(next(layer.parameters()).dtype))
    return outputs
