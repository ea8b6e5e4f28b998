"""Priors: a neighbour's code c to the distribution p(z|c) that a code is coded with."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from acn_lightning.encoders import unit_normal
from acn_lightning.errors import UsageError
from acn_lightning.networks import Component


class Prior(Component):
    """Maps codes (..., D) to p(z|c): batch shape (...), event shape (D,)."""


class StandardNormalPrior(Prior, kind="standard_normal"):
    """p(z|c) = N(0, I), whatever c is: the same module is then a plain VAE."""

    def __init__(self, code_size: int) -> None:
        super().__init__()

    def forward(self, code: Float[Tensor, "... code"]) -> Distribution:
        return unit_normal(torch.zeros_like(code))


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
        features: list[Tensor] = []
        for layer in self.hidden:
            features.append(torch.tanh(layer(torch.cat([code, *features[-1:]], dim=-1))))
        parameters = self.output(torch.cat(features, dim=-1))
        # float32, also where autocast runs the layers in less: log-ratios of codes are summed.
        parameters = parameters.float().unflatten(-1, (code.shape[-1], self.mixtures, 3))
        logits, means, log_scales = parameters.unbind(-1)
        # What is coded is a mean plus the posterior's unit noise, so no Gaussian narrower than that
        # noise describes it: exp(log_scale) is the width of the mixture of the means alone. It
        # costs no generality, and a prior that is too sure of itself cannot charge without bound.
        scales = torch.sqrt(1 + torch.exp(2 * log_scales.clamp(max=10)))
        mixture = MixtureSameFamily(
            Categorical(logits=logits, validate_args=False),
            Normal(means, scales, validate_args=False),
            validate_args=False,
        )
        return Independent(mixture, 1, validate_args=False)
