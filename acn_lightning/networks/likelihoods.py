"""Likelihoods: turn a decoder's output for a pixel into a distribution over its values."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent

from acn_lightning.networks.base import Component
from acn_lightning.networks.distributions import LEVELS, CategoricalPixels, channel_pairs
from acn_lightning.networks.logistic_mixture import LogisticMixturePixels
from acn_lightning.utils.errors import check_range


class Likelihood(Component, key="model.likelihood.kind"):
    """Maps a decoder's output (B, P, H, W) to a distribution over images: batch shape (B,), event
    shape (C, H, W), pixels independent.

    Attributes:
        per_pixel: numbers that the decoder must output for each pixel, P.
        binary: whether pixels must be 0 or 1.
    """

    per_pixel: int
    binary = False


class BernoulliLikelihood(Likelihood, kind="bernoulli"):
    """Black or white pixels, for binarised images."""

    binary = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.per_pixel = channels

    def forward(self, parameters: Float[Tensor, "batch channel height width"]) -> Distribution:
        bernoulli = Bernoulli(logits=parameters, validate_args=False)
        return Independent(bernoulli, 3, validate_args=False)


class CategoricalLikelihood(Likelihood, kind="categorical"):
    """A probability for each of a channel's 256 values, channels in order: learnt tables give what
    an earlier channel's value adds to a later channel's logits.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.per_pixel = channels, channels * LEVELS
        self.tables = nn.ParameterList(torch.zeros(LEVELS, LEVELS) for _ in channel_pairs(channels))

    def forward(self, parameters: Float[Tensor, "batch parameter height width"]) -> Distribution:
        logits = parameters.unflatten(1, (self.channels, LEVELS))
        return CategoricalPixels(logits, list(self.tables))


class LogisticMixtureLikelihood(Likelihood, kind="logistic_mixture"):
    """A mixture of discretised logistics, channels in order (arXiv 1701.05517): for colour and
    grey images, where neighbouring values are alike.

    Args:
        channels: C.
        mixtures: number of logistics per pixel, M.

    Raises:
        UsageError: `mixtures` is out of range.
    """

    def __init__(self, channels: int, *, mixtures: int = 10) -> None:
        super().__init__()
        check_range("model.likelihood.mixtures", mixtures, 1, 256)
        self.parts = [1, channels, channels, len(channel_pairs(channels))]
        self.channels, self.mixtures = channels, mixtures
        self.per_pixel = mixtures * sum(self.parts)

    def forward(self, parameters: Float[Tensor, "batch parameter height width"]) -> Distribution:
        split = parameters.unflatten(1, (self.mixtures, sum(self.parts)))
        return LogisticMixturePixels(split, self.channels)
