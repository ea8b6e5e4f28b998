"""The sections of a config, and the class that each one configures."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from acn_lightning import callbacks
from acn_lightning.data import ImageData
from acn_lightning.inference.sampling import draw
from acn_lightning.module import ACN
from acn_lightning.networks.base import Component
from acn_lightning.networks.decoders import Decoder
from acn_lightning.networks.encoders import Encoder
from acn_lightning.networks.likelihoods import Likelihood
from acn_lightning.networks.priors import Prior
from acn_lightning.networks.shapes import Shape
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import UsageError


class Part(NamedTuple):
    """A section of `model` that chooses a network by `kind`."""

    family: type[Component]
    default: str


PARTS = {
    "encoder": Part(Encoder, "conv"),
    "shape": Part(Shape, "white"),
    "prior": Part(Prior, "mixture"),
    "decoder": Part(Decoder, "conv"),
    "likelihood": Part(Likelihood, "bernoulli"),
}
"""Sections of `model`."""


class Budget:
    """Limits for what an experiment leaves open: networks whose `channels` are null, and
    `trainer.max_epochs: null`.

    Args:
        minutes: approximate training time, estimated by timing a few steps. Other programs on the
            machine slow these down.
        channels: channel counts to choose from, smallest first.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        *,
        minutes: float = 6.0,
        channels: list[int] = [8, 16, 32, 64],  # noqa: B006  # never modified
    ) -> None:
        if not 0 < minutes < 1e6:
            raise UsageError(f"budget.minutes: {minutes} is not above 0 and below 1e6.")
        if not channels or list(channels) != sorted(set(channels)) or channels[0] < 1:
            raise UsageError(
                f"budget.channels: {list(channels)} is not a list of distinct sizes of at least 1, "
                "smallest first."
            )
        self.minutes, self.channels = minutes, list(channels)


@dataclasses.dataclass
class Wandb:
    """Settings for Weights & Biases, used with `logger=wandb`.

    Attributes:
        project, entity, group, name, tags: as in `wandb.init`.
        mode: "online", "offline" or "disabled"; null takes WANDB_MODE from the environment, or, if
            that is unset, "offline" ("online" in a sweep).
    """

    project: str = "acn_lightning"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: list[str] = dataclasses.field(default_factory=list)
    mode: str | None = None


SECTIONS: dict[str, Callable[..., Any]] = {
    "budget": Budget,
    "data": ImageData,
    "model": ACN,
    "neighbours": NeighbourIndex,
    "refresh": callbacks.RefreshNeighbours,
    "finetune": callbacks.Finetune,
    "checkpoints": callbacks.LastCheckpoint,
    "evaluation": callbacks.MeasureTest,
    "dashboard": callbacks.Dashboard,
    "pictures": callbacks.DrawPictures,
    "probe": callbacks.ProbeCodes,
    "warnings": callbacks.WarnOfFaults,
    "sampling": draw,
}
"""Each section's class or function, whose keyword-only arguments are the section's keys. `data`
also has the keys of its source, and `model` the sections of `PARTS`."""
