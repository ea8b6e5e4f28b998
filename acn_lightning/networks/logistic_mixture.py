"""Pixels as a mixture of discretised logistic distributions (PixelCNN++; Salimans et al., arXiv
1701.05517)."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Categorical
from torch.nn.functional import logsigmoid, one_hot, softplus

from acn_lightning.networks.distributions import (
    LEVELS,
    PixelDistribution,
    channel_pairs,
    check_one_sample,
)

LOG_SCALES = (-7, 10)
"""Bounds of a logistic's log scale. They keep a logistic from becoming so narrow that a bin's edges
are steps, or so wide that a bin's share of it rounds to 0."""


class LogisticMixturePixels(PixelDistribution):
    """A mixture of logistic distributions, discretised to one bin per value.

    The lowest and the highest bin extend to infinity, so the probabilities sum to one. All channels
    of a pixel come from the same mixture component. A later channel's mean is linear in the values
    of the earlier channels.

    Args:
        parameters: of each of the M components, (B, M, 1 + 2 C + C(C - 1)/2, H, W): its logit; each
            channel's mean on the scale from -1 to 1; each channel's log scale, which `LOG_SCALES`
            bounds; then the slopes, through a tanh, of a later channel's mean with respect to an
            earlier channel's value, pairs in the order of `channel_pairs`.
        channels: C.
        levels: number of values.
    """

    def __init__(
        self,
        parameters: Float[Tensor, "batch mixture parameter height width"],
        channels: int,
        levels: int = LEVELS,
    ) -> None:
        self.parameters = parameters
        super().__init__(len(parameters), (channels, *parameters.shape[3:]), levels)

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (B, M, H, W), means and log scales (B, M, C, H, W), and slopes."""
        logits, means, log_scales, slopes = split(self.parameters, self.event_shape[0])
        return logits.squeeze(2), means, log_scales.clamp(*LOG_SCALES), torch.tanh(slopes)

    def log_prob(self, value: Tensor) -> Tensor:
        # A compiler fuses the formula's operations itself; on a GPU, tiles would only wait.
        known = self.parameters.dtype in (torch.float32, torch.float64) and not value.requires_grad
        if not known or self.parameters.device.type != "cpu" or torch.compiler.is_compiling():
            return self.plain_log_prob(value)
        log_prob: Tensor = TiledLogProb.apply(self.parameters, value, self.levels)
        return log_prob

    def plain_log_prob(self, value: Tensor) -> Tensor:
        """The same by the formula, with autograd's gradient: on a CPU twice as slow."""
        x = 2 * value[:, None] - 1  # (B, 1, C, H, W)
        logits, means, log_scales, slopes = self.parts()
        by_component = torch.zeros_like(logits)
        for channel in range(value.shape[1]):
            offset = x[:, :, channel] - mean_of(channel, means, slopes, x)
            inverse = torch.exp(-log_scales[:, :, channel])
            half = inverse / (self.levels - 1)
            upper, lower = offset * inverse + half, offset * inverse - half
            # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)). The right side
            # stays exact far out in the tails, where the difference would round to 0.
            inside = torch.log(-torch.expm1(-2 * half)) + logsigmoid(upper) - softplus(lower)
            level = x[:, :, channel]
            edge = 1 - 1 / (self.levels - 1)
            at_ends = torch.where(level < -edge, logsigmoid(upper), -softplus(lower))
            by_component = by_component + torch.where(level.abs() > edge, at_ends, inside)
        mixed = torch.logsumexp(by_component + logits.log_softmax(1), 1)
        return mixed.flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        check_one_sample(sample_shape)
        logits, means, log_scales, slopes = self.parts()
        component = Categorical(logits=logits.movedim(1, -1), validate_args=False).sample()
        chosen = one_hot(component, logits.shape[1]).movedim(-1, 1).bool()
        x = torch.zeros(len(chosen), 1, *self.event_shape, device=logits.device)
        for channel in range(x.shape[2]):
            uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            scale = torch.exp(log_scales[:, :, channel])
            drawn = mean_of(channel, means, slopes, x) + scale * torch.logit(uniform)
            steps = (drawn.clamp(-1, 1) + 1) / 2 * (self.levels - 1)
            level = torch.where(chosen, steps.round(), 0).sum(1)
            x[:, 0, channel] = 2 * level / (self.levels - 1) - 1
        return (x[:, 0] + 1) / 2

    @property
    def mean(self) -> Tensor:
        """The mean image of the mixture before discretisation, mapped and clamped to [0, 1]."""
        logits, means, _, slopes = self.parts()
        x = torch.zeros_like(means)
        for channel in range(x.shape[2]):
            x[:, :, channel] = mean_of(channel, means, slopes, x)
        mixed = (logits.softmax(1)[:, :, None] * x).sum(1)
        return ((mixed + 1) / 2).clamp(0, 1)


def mean_of(channel: int, means: Tensor, slopes: Tensor, x: Tensor) -> Tensor:
    """Means of one channel in each component, given x's earlier channels: (B, M, H, W)."""
    mean = means[:, :, channel]
    for pair, (early, late) in enumerate(channel_pairs(means.shape[2])):
        if late == channel:
            mean = mean + slopes[:, :, pair] * x[:, :, early]
    return mean


def split(parameters: Tensor, channels: int) -> tuple[Tensor, ...]:
    """Logits, means, log scales and slopes of the components, along dimension 2."""
    return parameters.split([1, channels, channels, len(channel_pairs(channels))], dim=2)


# ---------------------------------------------------------------- in tiles

TILE = 65_536
"""Components times pixels in a tile: what one needs stays in a CPU's cache."""

FAR = 1e7
"""An edge so far out that its sigmoid rounds to 0 or 1, whatever the scale."""

TAIL = -80.0
"""Below this, log sigmoid(y) = y to float32's precision, where sigmoid(y) will soon round to 0."""


class TiledLogProb(torch.autograd.Function):
    """`plain_log_prob` with its gradient, a few images or rows of pixels at a time.

    The likelihood is limited by passes over memory and by transcendental functions. Where autograd
    keeps some 30 arrays of the parameters' size and passes over them again, a tile's gradient is
    computed while it is in the cache, from the sigmoids that its cost needs.
    """

    @staticmethod
    def forward(ctx: Any, parameters: Tensor, value: Tensor, levels: int) -> Tensor:
        components, channels = parameters.shape[1], value.shape[1]
        flat, x = parameters.flatten(3), (2 * value - 1).flatten(2)[:, None]
        wanted = ctx.needs_input_grad[0]
        gradient = flat.new_empty(flat.shape) if wanted else None
        log_prob = flat.new_zeros(len(flat))
        width = max(1, min(flat.shape[3], TILE // components))
        images = max(1, TILE // (components * width))
        for i in range(0, len(flat), images):
            for j in range(0, flat.shape[3], width):
                at = (slice(i, i + images), ..., slice(j, j + width))
                tile = Tile(flat[at].contiguous(), x[at], channels, levels)
                log_prob[i : i + images] += tile.log_prob()
                if gradient is not None:
                    tile.write_gradient(gradient[at])
        if gradient is not None:
            ctx.save_for_backward(gradient.view(parameters.shape))
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * weight.view(-1, 1, 1, 1, 1), None, None


class Tile:
    """Some pixels of some images: their cost, then its gradient.

    With u and l the edges of a value's bin relative to a logistic, and w = u - l, the bin's
    probability is sigmoid(u) sigmoid(-l) (1 - exp(-w)). At the ends of the scale u or -l is so
    large that its sigmoid and the last factor are 1.

    Args:
        parameters: as for `LogisticMixturePixels`, (n, M, P, S) for S pixels.
        x: values from -1 to 1, (n, 1, C, S).
        channels: C.
        levels: number of values.
    """

    def __init__(self, parameters: Tensor, x: Tensor, channels: int, levels: int) -> None:
        self.x, self.channels = x, channels
        logits, means, self.log_scales, slopes = split(parameters, channels)
        self.logits = logits.squeeze(2)
        self.slopes = torch.mul(slopes, 2).sigmoid_().mul_(2).sub_(1)  # tanh, in half the time
        means = means.clone()
        for pair, (early, late) in enumerate(channel_pairs(channels)):
            means[:, :, late].addcmul_(self.slopes[:, :, pair], x[:, :, early])
        half = 1 / (levels - 1)
        upper = (x + half).masked_fill_(x > 1 - half, FAR)
        lower = (x - half).masked_fill_(x < half - 1, -FAR)
        self.inverse = torch.neg(self.log_scales).clamp_(-LOG_SCALES[1], -LOG_SCALES[0]).exp_()
        self.edges = means.new_empty(2, *means.shape)  # u and -l
        torch.sub(upper, means, out=self.edges[0])
        torch.sub(means, lower, out=self.edges[1])
        self.edges.mul_(self.inverse)
        self.widths = (upper - lower) * self.inverse

    def log_prob(self) -> Float[Tensor, " n"]:
        """log r(x) of the tile's pixels, summed for each image."""
        beyond = None
        if bool(self.edges.amin() < TAIL):
            near = self.edges.clamp(min=TAIL)
            beyond = (self.edges - near).sum(0).sum(2)
            self.sigmoids = near.sigmoid_()
        else:
            self.sigmoids = self.edges.sigmoid()
        self.shares = torch.neg(self.widths).expm1_().neg_()
        each = (self.sigmoids[0] * self.sigmoids[1]).mul_(self.shares).log_()
        joint = each.sum(2).add_(self.logits)
        if beyond is not None:
            joint.add_(beyond)
        self.mixed = torch.logsumexp(joint, 1, keepdim=True)
        self.all = torch.logsumexp(self.logits, 1, keepdim=True)
        self.joint = joint
        return (self.mixed - self.all).sum((1, 2))

    def write_gradient(self, gradient: Float[Tensor, "n mixture parameter pixel"]) -> None:
        """Writes the gradient of `log_prob`, which must have been called."""
        of_logits, of_means, of_log_scales, of_slopes = split(gradient, self.channels)
        shares = self.joint.sub_(self.mixed).exp_()  # of the components, given the pixel
        before = (self.logits - self.all).exp_()
        torch.sub(shares, before, out=of_logits[:, :, 0])
        shares = shares[:, :, None]
        slack = self.sigmoids.neg_().add_(1)  # the slope of log sigmoid(y) is sigmoid(-y)
        torch.mul((slack[1] - slack[0]).mul_(self.inverse), shares, out=of_means)
        # The slope of log(1 - exp(-w)) with respect to -log w is w - w / (1 - exp(-w)).
        moved = (self.widths / self.shares).neg_().add_(self.widths)
        for side in range(2):
            moved.addcmul_(slack[side], self.edges[side], value=-1)
        low, high = torch.aminmax(self.log_scales)
        if bool(low < LOG_SCALES[0]) or bool(high > LOG_SCALES[1]):
            moved.masked_fill_(self.log_scales.clamp(*LOG_SCALES) != self.log_scales, 0)
        torch.mul(moved, shares, out=of_log_scales)
        for pair, (early, late) in enumerate(channel_pairs(self.channels)):
            slope = self.slopes[:, :, pair]
            steep = (1 - slope * slope).mul_(self.x[:, :, early])
            torch.mul(steep, of_means[:, :, late], out=of_slopes[:, :, pair])
