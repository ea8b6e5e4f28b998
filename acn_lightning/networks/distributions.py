"""Distributions over pixel values that torch does not have. Images are floats in [0, 1]."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal, constraints

LEVELS = 256
"""How many values a channel of a pixel can take: those of a byte."""


class PixelDistribution(Distribution):
    """A distribution over images of `levels` values, evenly spaced from 0 to 1: batch shape (B,),
    event shape (C, H, W).

    Pixels are independent. The channels of a pixel may depend on each other: they are sampled in
    order, each given those before it.
    """

    arg_constraints = {}  # noqa: RUF012  # torch's name and type for it

    def __init__(self, batch: int, event_shape: Sequence[int], levels: int = LEVELS) -> None:
        self.levels = levels
        super().__init__(torch.Size([batch]), torch.Size(event_shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.unit_interval, 3)

    def to_level(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Int[Tensor, "batch channel height width"]:
        """The level of each value, from 0 to `levels` - 1."""
        return (image * (self.levels - 1)).round().long()


class CategoricalPixels(PixelDistribution):
    """A free probability for each value of a channel (van den Oord et al., arXiv 1601.06759).

    Args:
        logits: (B, C, levels, H, W).
        tables: one table (levels, levels) for each pair of channels, in the order of
            `channel_pairs`: what the earlier channel's value adds to the later channel's logits.
    """

    def __init__(
        self,
        logits: Float[Tensor, "batch channel level height width"],
        tables: Sequence[Float[Tensor, "level level"]] = (),
    ) -> None:
        self.logits = logits.movedim(2, -1)
        self.pairs = dict(zip(channel_pairs(logits.shape[1]), tables, strict=True))
        batch, channels, levels, *size = logits.shape
        super().__init__(batch, (channels, *size), levels)

    def log_prob(self, value: Tensor) -> Tensor:
        level = self.to_level(value)
        total = torch.zeros(len(level), device=level.device)
        for channel in range(level.shape[1]):
            chosen = self._channel(channel, level).log_prob(level[:, channel])
            total = total + chosen.flatten(1).sum(1)
        return total

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        check_one_sample(sample_shape)
        shape = (*self.batch_shape, *self.event_shape)
        level = torch.zeros(shape, dtype=torch.long, device=self.logits.device)
        for channel in range(level.shape[1]):
            level[:, channel] = self._channel(channel, level).sample()
        return level / (self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """The mean image, for one channel only: several have no closed form."""
        if self.pairs:
            raise NotImplementedError
        values = torch.linspace(0, 1, self.levels, device=self.logits.device)
        return (self.logits.softmax(-1) * values).sum(-1)

    def _channel(self, channel: int, level: Tensor) -> Categorical:
        """One channel, given the levels of those before it: batch shape (B, H, W)."""
        logits = self.logits[:, channel]
        for earlier in range(channel):
            logits = logits + self.pairs[earlier, channel][level[:, earlier]]
        return Categorical(logits=logits, validate_args=False)


def channel_pairs(channels: int) -> list[tuple[int, int]]:
    """Pairs (earlier, later): (0, 1), (0, 2), (1, 2), ..."""
    return [(early, late) for late in range(channels) for early in range(late)]


def check_one_sample(sample_shape: Sequence[int]) -> None:
    """Checks that a distribution is asked for one sample only.

    Raises:
        NotImplementedError: it is asked for more.
    """
    if tuple(sample_shape):
        raise NotImplementedError("One sample at a time: repeat the batch for more.")


def unit_normal(mean: Float[Tensor, "... code"]) -> Distribution:
    """N(mean, I): the posterior's variance is fixed, so the mean alone is the code."""
    normal = Normal(mean, torch.ones_like(mean), validate_args=False)
    return Independent(normal, 1, validate_args=False)
