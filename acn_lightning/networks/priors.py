"""Priors: a neighbour's code c to the distribution p(z|c) that a code is coded with."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from acn_lightning.networks.component import Component, in_float32
from acn_lightning.networks.encoders import unit_normal
from acn_lightning.utils.errors import UsageError


class Prior(Component):
    """Maps codes (..., D) to p(z|c): batch shape (...), event shape (D,).

    Attributes:
        widest: the largest standard deviation of a code's dimension that it can pay for, in units
            of the posterior's noise.
    """

    widest = math.inf

    def marginal(self, codes: Float[Tensor, "n code"], nearest: int) -> Distribution:
        """What a code costs when nothing is known of its neighbours: p(z) = 1/N sum_j p(z|c_j).

        Args:
            codes: c_j, all N of them.
            nearest: how many terms of the sum to take for each z, those of the nearest codes.
        """
        raise NotImplementedError


class StandardNormalPrior(Prior, kind="standard_normal"):
    """p(z|c) = N(0, I), whatever c is: the same module is then a plain VAE."""

    widest = 2.0  # it charges 2 nats for the 0.8 that such a dimension holds

    def __init__(self, code_size: int) -> None:
        super().__init__()

    def forward(self, code: Float[Tensor, "... code"]) -> Distribution:
        return unit_normal(torch.zeros_like(code))

    def marginal(self, codes: Float[Tensor, "n code"], nearest: int) -> Distribution:
        return self(codes[0])


class MixturePrior(Prior, kind="mixture"):
    """Per dimension a mixture of Gaussians, its parameters from a network of tanh layers with
    skips (arXiv 1804.02476): the input goes to every layer, every layer to the output.

    Args:
        code_size: D.
        mixtures: Gaussians per dimension, M.
        width: units of a hidden layer.
        depth: number of hidden layers.

    Raises:
        UsageError: one of the options is below 1.
    """

    def __init__(
        self, code_size: int, *, mixtures: int = 8, width: int = 512, depth: int = 3
    ) -> None:
        super().__init__()
        for name, value in [("mixtures", mixtures), ("width", width), ("depth", depth)]:
            if value < 1:
                raise UsageError(f"model.prior.{name}: {value} is below 1.")
        self.mixtures = mixtures
        self.hidden = nn.ModuleList(
            nn.Linear(code_size + (width if layer else 0), width) for layer in range(depth)
        )
        self.output = nn.Linear(depth * width, code_size * mixtures * 3)

    def forward(self, code: Float[Tensor, "... code"]) -> Distribution:
        return self.distribution(self.describe(code))

    def describe(self, code: Float[Tensor, "... code"]) -> Float[Tensor, "... code mixture 3"]:
        """A logit, a mean and the logarithm of a width for each Gaussian."""
        features: list[Tensor] = []
        for layer in self.hidden:
            features.append(torch.tanh(layer(torch.cat([code, *features[-1:]], dim=-1))))
        parameters = in_float32(self.output, torch.cat(features, dim=-1))
        return parameters.unflatten(-1, (code.shape[-1], self.mixtures, 3))

    def distribution(self, description: Float[Tensor, "... code mixture 3"]) -> Distribution:
        """p(z|c) of what `describe` returned."""
        logits, means, log_widths = description.unbind(-1)
        # What is coded is a mean plus the posterior's unit noise, so no Gaussian narrower than that
        # noise describes it: exp(log_width) is the width of the mixture of the means alone. It
        # costs no generality, and a prior that is too sure of itself cannot charge without bound.
        gaussians = Normal(
            means, torch.sqrt(1 + torch.exp(2 * log_widths.clamp(max=10))), validate_args=False
        )
        if self.mixtures == 1:  # the KL then has a closed form
            one = Normal(means[..., 0], gaussians.scale[..., 0], validate_args=False)
            return Independent(one, 1, validate_args=False)
        mixture = MixtureSameFamily(
            Categorical(logits=logits, validate_args=False), gaussians, validate_args=False
        )
        return Independent(mixture, 1, validate_args=False)

    def marginal(self, codes: Float[Tensor, "n code"], nearest: int) -> Distribution:
        return CodeMixture(self, codes, nearest)


class CodeMixture(Distribution):
    """p(z) = 1/N sum_j p(z|c_j), over all stored codes: batch shape (), event shape (D,).

    `log_prob` sums the terms of the nearest codes only, and divides by N all the same. What is left
    out is positive, so -log p(z) is never less than that of the whole sum: a cost computed with it
    is an upper bound whichever terms are taken.

    Args:
        prior: p(z|c).
        codes: c_j, (N, D).
        nearest: how many terms to take for each z.
    """

    arg_constraints = {}  # noqa: RUF012  # torch's name and type for it

    def __init__(self, prior: MixturePrior, codes: Tensor, nearest: int) -> None:
        self.prior, self.codes = prior, codes
        self.nearest = min(nearest, len(codes))
        super().__init__(torch.Size(), codes.shape[1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), in nats: (..., D) to (...). What the prior says of all codes is in memory
        meanwhile, N x D x M x 3 numbers."""
        described = self._describe()
        pieces = [self._log_prob(piece, described) for piece in value.flatten(0, -2).split(16)]
        return torch.cat(pieces).reshape(value.shape[:-1])

    def _describe(self) -> Tensor:
        described = None
        for start in range(0, len(self.codes), 4096):
            piece = self.prior.describe(self.codes[start : start + 4096])
            if described is None:  # in place: a million of them need not be in memory twice
                described = piece.new_empty(len(self.codes), *piece.shape[1:])
            described[start : start + 4096] = piece
        assert described is not None
        return described

    def _log_prob(
        self, z: Float[Tensor, "batch code"], described: Tensor
    ) -> Float[Tensor, " batch"]:
        rows = torch.cdist(z, self.codes).topk(self.nearest, largest=False).indices
        terms = self.prior.distribution(described[rows]).log_prob(z[:, None])
        return torch.logsumexp(terms, dim=1) - math.log(len(self.codes))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A stored code, then a code that may follow it."""
        rows = torch.randint(len(self.codes), tuple(sample_shape), device=self.codes.device)
        return self.prior(self.codes[rows]).sample()
