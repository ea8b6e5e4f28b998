"""Shapes: constrain the distribution of all codes, which the objective leaves open.

The objective only prices a code against its neighbour's. Without a constraint it is cheapest to
have no code at all, and later to lay all codes on one long thread (`docs/method.md`).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from acn_lightning.networks.base import Component
from acn_lightning.utils.distributed import sum_over_ranks, world_size
from acn_lightning.utils.errors import UsageError, check_range

MOMENTUM = 0.05
"""Weight of a batch in the running statistics, which cover about the last 20 batches."""


class Shape(Component, key="model.shape.kind"):
    """Maps an encoder's means (B, D) to codes (B, D), and may add a penalty to the loss.

    Attributes:
        scale: standard deviation of each dimension of the codes, in units of the posterior's noise;
            None if the shape does not fix it.
        min_batch: images that a training step needs, over all processes.
    """

    scale: float | None = None
    min_batch = 1

    def forward(self, mean: Float[Tensor, "batch code"]) -> Float[Tensor, "batch code"]:
        """Codes to store, search and measure. Each depends only on its own mean."""
        return mean

    def of_batch(self, mean: Float[Tensor, "batch code"]) -> Float[Tensor, "batch code"]:
        """Codes of a training step. While training, a shape with statistics takes them from the
        batch and updates its running ones."""
        codes: Tensor = self(mean)
        return codes

    def penalty(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, ""]:
        """Loss for how far a batch's codes are from the shape, in nats per image."""
        return code.new_zeros(())

    def begin(self, mean: Float[Tensor, "batch code"]) -> None:
        """Takes statistics, if there are none yet, for codes that are needed before the first
        step. That step replaces them."""

    def gap(self, mean: Float[Tensor, "batch code"]) -> float:
        """Distance between codes from the running statistics and codes from this batch's own, in
        nats per image: KL(N(a, I) || N(b, I)) = |a - b|^2 / 2. 0 for a shape without statistics."""
        return 0.0


class FreeShape(Shape, kind="free"):
    """No constraint: codes are the encoder's means."""

    def __init__(self, code_size: int) -> None:
        super().__init__()


class SphereShape(Shape, kind="sphere"):
    """All codes lie on a sphere around the origin.

    Args:
        code_size: D.
        radius: radius of the sphere, divided by sqrt(D).

    Raises:
        UsageError: `radius` is not finite and above 0.
    """

    def __init__(self, code_size: int, *, radius: float = 0.8) -> None:
        super().__init__()
        check_positive("radius", radius)
        self.radius = radius * math.sqrt(code_size)

    def forward(self, mean: Float[Tensor, "batch code"]) -> Float[Tensor, "batch code"]:
        return self.radius * normalize(mean, dim=1)


class WhiteShape(Shape, kind="white"):
    """Every dimension of the codes has mean 0 and the same fixed variance, and a penalty pushes
    dimensions to be uncorrelated, so that the covariance is that of white noise.

    Codes are normalised as in batch normalisation without a learnt scale (BN-VAE, arXiv
    2004.12585). A training step uses the batch's mean and variance over all processes. Elsewhere
    running ones are used, so a stored code depends only on its own image. The penalty is the sum of
    the squared correlations between dimensions (the covariance term of VICReg, arXiv 2105.04906).

    Args:
        code_size: D.
        scale: standard deviation of each dimension, in units of the posterior's noise. A dimension
            then holds at most log(1 + scale^2) / 2 nats.
        decorrelation: weight of the penalty, divided by D; 0 for none.

    Raises:
        UsageError: `scale` is not finite and above 0, or `decorrelation` not finite and at least 0.
    """

    scale: float
    min_batch = 2

    def __init__(self, code_size: int, *, scale: float = 1.5, decorrelation: float = 16.0) -> None:
        super().__init__()
        check_positive("scale", scale)
        check_range("model.shape.decorrelation", decorrelation, 0, 1e9)
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
        # Training batches have the same size in all processes: the sampler pads.
        if self._too_few(mean) or not self.training:  # not training: the shape is frozen
            return self.forward(mean)
        centre = average(mean)
        variance = average((mean - centre).square())
        with torch.no_grad():
            self.batches += 1
            share = (1 / self.batches).clamp(min=MOMENTUM)  # at first a plain mean
            self.mean.lerp_(centre, share)
            self.variance.lerp_(variance, share)
        return self._standardised(mean, centre, variance)

    def begin(self, mean: Float[Tensor, "batch code"]) -> None:
        if not self.batches:
            self.mean.copy_(mean.mean(0))
            self.variance.copy_(mean.var(0, correction=0))

    def _standardised(self, mean: Tensor, centre: Tensor, variance: Tensor) -> Tensor:
        # A larger epsilon would reward shrinking the encoder's output towards it.
        return (mean - centre) * (self.scale * torch.rsqrt(variance + 1e-12))

    def _too_few(self, batch: Tensor) -> bool:
        """Whether a batch, of all processes, has no variance: possible for an epoch's last one."""
        return len(batch) * world_size() < self.min_batch

    def penalty(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, ""]:
        if self._too_few(code):  # all dimensions of one image look correlated
            return code.new_zeros(())
        unit = code / self.scale
        with torch.autocast(code.device.type, enabled=False):
            correlation = sum_over_ranks(unit.T @ unit) / (len(unit) * world_size())
        apart = correlation - torch.diag(correlation.diagonal())
        return self.decorrelation / len(apart) * apart.square().sum()

    def gap(self, mean: Float[Tensor, "batch code"]) -> float:
        codes = self._standardised(mean, mean.mean(0), mean.var(0, correction=0))
        running = self._standardised(mean, self.mean, self.variance)
        return float((codes - running).square().sum(1).mean() / 2)


def average(values: Float[Tensor, "batch ..."]) -> Float[Tensor, "..."]:
    """The mean over the batches of all processes, which have the same size."""
    return sum_over_ranks(values.mean(0)) / world_size()


def check_positive(name: str, value: float) -> None:
    """Checks that an option is above 0 and finite.

    Raises:
        UsageError: it is not.
    """
    if not 0 < value < math.inf:
        raise UsageError(f"model.shape.{name}: must be finite and above 0, not {value}.")
