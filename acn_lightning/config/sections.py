"""The sections of a config, and the class that each one configures: the source of the catalogue.
Importing them all takes seconds, so only what reads live classes imports this module."""

from collections.abc import Callable
from typing import Any

from acn_lightning import callbacks
from acn_lightning.data import ImageData, Source
from acn_lightning.inference.sampling import draw
from acn_lightning.module import ACN
from acn_lightning.networks.decoders import Decoder
from acn_lightning.networks.encoders import Encoder
from acn_lightning.networks.likelihoods import Likelihood
from acn_lightning.networks.priors import Prior
from acn_lightning.networks.shapes import Shape
from acn_lightning.optimization import Schedule
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.registry import Registered

FAMILIES: dict[str, type[Registered]] = {
    "data": Source,
    "model.encoder": Encoder,
    "model.shape": Shape,
    "model.prior": Prior,
    "model.decoder": Decoder,
    "model.likelihood": Likelihood,
    "schedule": Schedule,
}
"""Sections that choose a class by a word, and the family of these classes."""


class Budget:
    """Limits for what an experiment leaves open: networks whose `channels` are null, and
    `trainer.max_epochs: null`.

    Args:
        minutes: approximate training time, estimated by timing a few steps. Other programs on the
            machine slow these down.
        channels: channel counts of the decoder to choose from, smallest first. The encoder gets
            twice as many.

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


SECTIONS: dict[str, Callable[..., Any]] = {
    "budget": Budget,
    "data": ImageData,
    "model": ACN,
    "neighbours": NeighbourIndex,
    "refresh": callbacks.RefreshNeighbours,
    "finetune": callbacks.Finetune,
    "average": callbacks.AverageWeights,
    "early_stopping": callbacks.StopEarly,
    "checkpoints": callbacks.LastCheckpoint,
    "evaluation": callbacks.MeasureTest,
    "dashboard": callbacks.Dashboard,
    "pictures": callbacks.DrawPictures,
    "probe": callbacks.ProbeCodes,
    "warnings": callbacks.WarnOfFaults,
    "sampling": draw,
}
"""Each section's class or function, whose keyword-only arguments are the section's keys. `data`
also has the keys of its source, and `model` a section for each of its networks."""
