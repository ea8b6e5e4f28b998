"""What encoders, priors and decoders have in common: they are chosen by name in a config."""

from typing import Any, ClassVar

from torch import nn


class Component(nn.Module):
    """A network that a config chooses by `kind`.

    A direct subclass is a family (`Encoder`, `Prior`, `Decoder`); its own subclasses name their
    kind and are found in `Family.kinds`:

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
