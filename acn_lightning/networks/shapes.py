"""Shapes: what holds the distribution of all codes, which the objective leaves open.

The objective prices a code against its neighbour's only. Left to itself it is cheapest to have no
code at all, and later to lay all codes on one long thread (`docs/method.md`).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from acn_lightning.networks.component import Component
from acn_lightning.utils.distributed import count, total
from acn_lightning.utils.errors import UsageError

MOMENTUM = 0.05
"""Share of a batch in the running statistics: they are of the last 20 batches or so."""


class Shape(Component):
    """Maps an encoder's means (B, D) to codes (B, D), and says what their shape costs in the loss.

    Attributes:
        scale: standard deviation of each dimension of the codes, in units of the posterior's noise;
            None where nothing holds it.
        least: images that a training step needs, in all processes together.
    """

    scale: float | None = None
    least = 1

    def forward(self, mean: Float[Tensor, "batch code"]) -> Float[Tensor, "batch code"]:
        """Codes, each by itself: what is stored, searched for and measured."""
        return mean

    def of_batch(self, mean: Float[Tensor, "batch code"]) -> Float[Tensor, "batch code"]:
        """Codes of a training step. A shape that has statistics takes them from the batch, and
        learns them while it is trained."""
        codes: Tensor = self(mean)
        return codes

    def penalty(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, ""]:
        """What is added to the loss, in nats per image, for how far a batch's codes are from it."""
        return code.new_zeros(())

    def gap(self, mean: Float[Tensor, "batch code"]) -> float:
        """How far codes by the running statistics are from those by this batch's own, in nats per
        image: KL(N(a, I) || N(b, I)) = |a - b|^2 / 2. 0 where there are no statistics."""
        return 0.0


class FreeShape(Shape, kind="free"):
    """No shape: codes are what the encoder says."""

    def __init__(self, code_size: int) -> None:
        super().__init__()


class SphereShape(Shape, kind="sphere"):
    """All codes lie on a sphere around the origin.

    Args:
        code_size: D.
        radius: of the sphere, divided by sqrt(D).

    Raises:
        UsageError: `radius` is not above 0.
    """

    def __init__(self, code_size: int, *, radius: float = 0.8) -> None:
        super().__init__()
        check_positive("radius", radius)
        self.radius = radius * code_size**0.5

    def forward(self, mean: Float[Tensor, "batch code"]) -> Float[Tensor, "batch code"]:
        return self.radius * normalize(mean, dim=1)


class WhiteShape(Shape, kind="white"):
    """Every dimension of the codes has mean 0 and the same fixed variance, and dimensions are
    pushed to be uncorrelated: their covariance is that of white noise.

    Mean and variance are batch normalisation's, without a learnt scale (BN-VAE, arXiv 2004.12585):
    in a training step of the batch, over all processes, and running ones elsewhere, so that a code
    that is stored depends on its own image alone. The penalty is the sum of the squared
    correlations of different dimensions (the covariance term of VICReg, arXiv 2105.04906).

    Args:
        code_size: D.
        scale: standard deviation of each dimension, in units of the posterior's noise: a
            dimension then holds log(1 + scale^2) / 2 nats at most.
        decorrelation: weight of the penalty, divided by D; 0 for none.

    Raises:
        UsageError: `scale` is not above 0, or `decorrelation` is below 0.
    """

    scale: float
    least = 2

    def __init__(self, code_size: int, *, scale: float = 1.5, decorrelation: float = 16.0) -> None:
        super().__init__()
        check_positive("scale", scale)
        if not 0 <= decorrelation < math.inf:
            raise UsageError(f"model.shape.decorrelation: {decorrelation} is below 0.")
        self.scale, self.decorrelation = scale, decorrelation
        self.mean: Tensor
        self.variance: Tensor
        self.batches: Tensor
        self.register_buffer("mean", torch.zeros(code_size))
        self.register_buffer("variance", torch.ones(code_size))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, mean: Float[Tensor, "batch code"]) -> Float[Tensor, "batch code"]:
        return self._standardised(mean, self.mean, self.variance)

    def of_batch(self, mean: Float[Tensor, "batch code"]) -> Float[Tensor, "batch code"]:
        # Training batches are of one size in all processes: samplers pad.
        if not self.training or len(mean) * count() < self.least:  # frozen; an epoch's last image
            return self.forward(mean)
        centre = average(mean)
        variance = average((mean - centre).square())
        with torch.no_grad():
            self.batches += 1
            share = (1 / self.batches).clamp(min=MOMENTUM)  # of the first ones the mean
            self.mean.lerp_(centre, share)
            self.variance.lerp_(variance, share)
        return self._standardised(mean, centre, variance)

    def _standardised(self, mean: Tensor, centre: Tensor, variance: Tensor) -> Tensor:
        # A larger bound than this would make it pay to shrink the encoder's output towards it.
        return (mean - centre) * (self.scale * torch.rsqrt(variance + 1e-12))

    def penalty(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, ""]:
        unit = code / self.scale
        with torch.autocast(code.device.type, enabled=False):
            correlation = total(unit.T @ unit) / (len(unit) * count())
        apart = correlation - torch.diag(correlation.diagonal())
        return self.decorrelation / len(apart) * apart.square().sum()

    def gap(self, mean: Float[Tensor, "batch code"]) -> float:
        codes = self._standardised(mean, mean.mean(0), mean.var(0, correction=0))
        running = self._standardised(mean, self.mean, self.variance)
        return float((codes - running).square().sum(1).mean() / 2)


def average(values: Float[Tensor, "batch ..."]) -> Float[Tensor, "..."]:
    """The mean over the batches of all processes, which are of one size."""
    return total(values.mean(0)) / count()


def check_positive(name: str, value: float) -> None:
    """Raises:
    UsageError: it is not above 0 and finite.
    """
    if not 0 < value < math.inf:
        raise UsageError(f"model.shape.{name}: {value} is not above 0.")
