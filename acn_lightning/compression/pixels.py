"""A likelihood's pixels as discrete variables, in exact arithmetic."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.compression.symbols import Binary, TwoStage, Variables
from acn_lightning.networks.distributions import LEVELS, channel_pairs
from acn_lightning.networks.exact import (
    cumulative,
    exponential,
    settle,
    sigmoid,
    tanh,
)
from acn_lightning.networks.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Likelihood,
    LogisticMixtureLikelihood,
)
from acn_lightning.networks.logistic_mixture import LOG_SCALES

RADIX = 16
"""A byte has two digits of this base."""

WEIGHT = 2.0**24
"""Mixture weights are multiples of 1 / WEIGHT."""

Channel = Callable[[int, Sequence[Int[Tensor, " n"]]], Variables]
"""Maps (a channel, the earlier channels' levels) to that channel's variables."""


def channels_of(likelihood: Likelihood, parameters: Float[Tensor, "n parameter"]) -> Channel:
    """The channels of n pixels as variables.

    Args:
        likelihood: in exact arithmetic, of a kind in `CODED`.
        parameters: of each pixel, settled.
    """
    return CODED[type(likelihood)](likelihood, parameters)


def levels_of(likelihood: Likelihood) -> int:
    """Values that a channel can take."""
    return 2 if likelihood.binary else LEVELS


def bernoulli(likelihood: BernoulliLikelihood, parameters: Tensor) -> Channel:
    """Channels of binary pixels, independent of each other."""

    def channel(number: int, earlier: Sequence[Tensor]) -> Variables:
        return Binary(cumulative(sigmoid(), parameters[:, number]))

    return channel


def categorical(likelihood: CategoricalLikelihood, parameters: Tensor) -> Channel:
    """Channels with a free probability for each value, given the earlier channels."""
    logits = parameters.unflatten(1, (likelihood.channels, LEVELS))
    tables = dict(zip(channel_pairs(likelihood.channels), likelihood.tables, strict=True))

    def channel(number: int, earlier: Sequence[Tensor]) -> Variables:
        own = logits[:, number]
        for before, levels in enumerate(earlier):
            own = own + tables[before, number][levels]
        ends = softmax(own).cumsum(1)  # exact: multiples of 1 / WEIGHT
        below = torch.cat([ends.new_zeros(len(ends), 1), ends / ends[:, -1:]], 1)
        return TwoStage(len(own), RADIX, lambda edges: below.gather(1, edges))

    return channel


def softmax(logits: Float[Tensor, "n size"]) -> Float[Tensor, "n size"]:
    """Probabilities of settled logits, as multiples of 1 / WEIGHT that add up to about 1."""
    powers = exponential()(logits - logits.amax(1, keepdim=True))
    return normalised(powers.double())


def normalised(weights: Float[Tensor, "n size"]) -> Float[Tensor, "n size"]:
    """Weights from 0 to 1 divided by their sum, as multiples of 1 / WEIGHT."""
    whole = (weights * WEIGHT).round()
    return (whole / whole.sum(1, keepdim=True) * WEIGHT).round() / WEIGHT


def logistic_mixture(likelihood: LogisticMixtureLikelihood, parameters: Tensor) -> Channel:
    """Channels by a mixture of discretised logistics. A pixel's component is common to all of its
    channels, so each channel makes some components likelier for the next."""
    parts = parameters.unflatten(1, (likelihood.mixtures, sum(likelihood.parts)))
    logits, means, log_scales, slopes = parts.split(likelihood.parts, dim=2)
    weights = softmax(logits[..., 0])
    inverse = exponential()(-log_scales.clamp(*LOG_SCALES)).double()
    slopes = tanh()(slopes)
    pairs = channel_pairs(means.shape[2])

    def edges_below(number: int, earlier: Sequence[Tensor], edges: Tensor) -> Tensor:
        """Each component's probability of the values below the edges, (n, M, E)."""
        mean = means[:, :, number]
        for before, levels in enumerate(earlier):
            slope = slopes[:, :, pairs.index((before, number))]
            mean = mean + settle(slope * on_scale(levels)[:, None])
        apart = (2.0 * edges.double() - LEVELS) / (LEVELS - 1)
        offset = settle(apart)[:, None] - mean[..., None]
        return cumulative(sigmoid(), settle(offset * inverse[:, :, number, None]))

    def posterior(earlier: Sequence[Tensor]) -> Tensor:
        """Weights of the components given the earlier channels."""
        given = weights
        for number, levels in enumerate(earlier):
            ends = torch.stack([levels, levels + 1], 1)
            below = edges_below(number, earlier[:number], ends)
            below = torch.where(ends[:, None] <= 0, 0.0, below)
            below = torch.where(ends[:, None] >= LEVELS, 1.0, below)
            given = given * (below[..., 1] - below[..., 0] + 2.0**-30)
            given = normalised(given / given.amax(1, keepdim=True))
        return given

    def channel(number: int, earlier: Sequence[Tensor]) -> Variables:
        given = posterior(earlier)
        total = given.sum(1, keepdim=True)

        def below(edges: Tensor) -> Tensor:
            mixed = (given[..., None] * edges_below(number, earlier, edges)).sum(1)
            return (mixed / total).clamp(max=1.0)

        return TwoStage(len(given), RADIX, below)

    return channel


def on_scale(levels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Levels on the scale from -1 to 1, settled."""
    return settle((2.0 * levels.double() - (LEVELS - 1)) / (LEVELS - 1))


CODED: dict[type, Callable[..., Channel]] = {  # not their subclasses, which may change anything
    BernoulliLikelihood: bernoulli,
    CategoricalLikelihood: categorical,
    LogisticMixtureLikelihood: logistic_mixture,
}
