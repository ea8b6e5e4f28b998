"""Distributions over pixel values that torch does not have. Images are floats in [0, 1]."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal, constraints
from torch.nn.functional import logsigmoid, one_hot, softplus

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


class LogisticMixturePixels(PixelDistribution):
    """A mixture of logistic distributions, discretised to one bin per value (PixelCNN++; Salimans
    et al., arXiv 1701.05517).

    The lowest and the highest bin extend to infinity, so the probabilities sum to one. All channels
    of a pixel come from the same mixture component. A later channel's mean is linear in the values
    of the earlier channels.

    Args:
        logits: of the mixture components, (B, M, H, W).
        means: on the scale from -1 to 1, (B, M, C, H, W).
        log_scales: the same shape as `means`.
        slopes: of a later channel's mean with respect to an earlier channel's value,
            (B, M, C(C - 1)/2, H, W), pairs in the order of `channel_pairs`.
        levels: number of values.
    """

    def __init__(
        self,
        logits: Float[Tensor, "batch mixture height width"],
        means: Float[Tensor, "batch mixture channel height width"],
        log_scales: Float[Tensor, "batch mixture channel height width"],
        slopes: Float[Tensor, "batch mixture pair height width"],
        levels: int = LEVELS,
    ) -> None:
        self.logits, self.means, self.log_scales = logits, means, log_scales
        self.pairs = dict(zip(channel_pairs(means.shape[2]), slopes.unbind(2), strict=True))
        super().__init__(len(logits), means.shape[2:], levels)

    def log_prob(self, value: Tensor) -> Tensor:
        x = 2 * value[:, None] - 1  # (B, 1, C, H, W)
        by_component = torch.zeros_like(self.logits)
        for channel in range(value.shape[1]):
            offset = x[:, :, channel] - self._mean(channel, x)
            inverse = torch.exp(-self.log_scales[:, :, channel])
            half = inverse / (self.levels - 1)
            upper, lower = offset * inverse + half, offset * inverse - half
            # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)). The right side
            # stays exact far out in the tails, where the difference would round to 0.
            inside = torch.log(-torch.expm1(-2 * half)) + logsigmoid(upper) - softplus(lower)
            level = x[:, :, channel]
            edge = 1 - 1 / (self.levels - 1)
            at_ends = torch.where(level < -edge, logsigmoid(upper), -softplus(lower))
            by_component = by_component + torch.where(level.abs() > edge, at_ends, inside)
        mixed = torch.logsumexp(by_component + self.logits.log_softmax(1), 1)
        return mixed.flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        check_one_sample(sample_shape)
        component = Categorical(logits=self.logits.movedim(1, -1), validate_args=False).sample()
        chosen = one_hot(component, self.logits.shape[1]).movedim(-1, 1).bool()
        x = torch.zeros(len(chosen), 1, *self.event_shape, device=self.logits.device)
        for channel in range(x.shape[2]):
            uniform = torch.rand_like(self.logits).clamp(1e-6, 1 - 1e-6)
            scale = torch.exp(self.log_scales[:, :, channel])
            drawn = self._mean(channel, x) + scale * torch.logit(uniform)
            steps = (drawn.clamp(-1, 1) + 1) / 2 * (self.levels - 1)
            level = torch.where(chosen, steps.round(), 0).sum(1)
            x[:, 0, channel] = 2 * level / (self.levels - 1) - 1
        return (x[:, 0] + 1) / 2

    @property
    def mean(self) -> Tensor:
        """The mean image of the mixture before discretisation, mapped and clamped to [0, 1]."""
        x = torch.zeros_like(self.means)
        for channel in range(x.shape[2]):
            x[:, :, channel] = self._mean(channel, x)
        mixed = (self.logits.softmax(1)[:, :, None] * x).sum(1)
        return ((mixed + 1) / 2).clamp(0, 1)

    def _mean(self, channel: int, x: Tensor) -> Tensor:
        """Means of one channel in each component, given x's earlier channels: (B, M, H, W)."""
        mean = self.means[:, :, channel]
        for earlier in range(channel):
            mean = mean + self.pairs[earlier, channel] * x[:, :, earlier]
        return mean


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
