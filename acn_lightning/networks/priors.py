"""Priors: map a neighbour's code c to the distribution p(z|c) that prices a code z."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from acn_lightning.networks.base import Component
from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.layers import in_float32
from acn_lightning.utils.errors import check_range


class Prior(Component, key="model.prior.kind"):
    """Maps codes (..., D) to p(z|c): batch shape (...), event shape (D,).

    Attributes:
        max_scale: the largest standard deviation that a dimension of the codes may have under this
            prior, in units of the posterior's noise.
    """

    max_scale = math.inf

    def marginal(self, codes: Float[Tensor, "n code"], nearest: int) -> Distribution:
        """The marginal p(z) = 1/N sum_j p(z|c_j): prices a code whose neighbours are unknown.

        Args:
            codes: all N codes c_j.
            nearest: number of terms to sum for each z, those of the nearest codes.
        """
        raise NotImplementedError


class StandardNormalPrior(Prior, kind="standard_normal"):
    """p(z|c) = N(0, I) for every c, which makes the model a plain VAE."""

    max_scale = 2.0  # such a dimension holds 0.8 nats and costs 2

    def __init__(self, code_size: int) -> None:
        super().__init__()

    def forward(self, code: Float[Tensor, "... code"]) -> Distribution:
        return unit_normal(torch.zeros_like(code))

    def marginal(self, codes: Float[Tensor, "n code"], nearest: int) -> Distribution:
        return self(codes[0])


class MixturePrior(Prior, kind="mixture"):
    """A mixture of Gaussians per dimension. Its parameters come from a network of tanh layers with
    skip connections (arXiv 1804.02476): the input feeds every layer, every layer the output.

    Args:
        code_size: D.
        mixtures: Gaussians per dimension, M.
        width: units of a hidden layer.
        depth: number of hidden layers.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self, code_size: int, *, mixtures: int = 8, width: int = 512, depth: int = 3
    ) -> None:
        super().__init__()
        check_range("model.prior.mixtures", mixtures, 1, 1024)
        check_range("model.prior.width", width, 1, 65_536)
        check_range("model.prior.depth", depth, 1, 256)
        self.mixtures = mixtures
        self.hidden = nn.ModuleList(
            nn.Linear(code_size + (width if layer else 0), width) for layer in range(depth)
        )
        self.activation = nn.Tanh()
        self.output = nn.Linear(depth * width, code_size * mixtures * 3)

    def forward(self, code: Float[Tensor, "... code"]) -> Distribution:
        return self.distribution(self.describe(code))

    def describe(self, code: Float[Tensor, "... code"]) -> Float[Tensor, "... code mixture 3"]:
        """The logit, mean and log width of each Gaussian."""
        features: list[Tensor] = []
        for layer in self.hidden:
            features.append(self.activation(layer(torch.cat([code, *features[-1:]], dim=-1))))
        parameters = in_float32(self.output, torch.cat(features, dim=-1))
        return parameters.unflatten(-1, (code.shape[-1], self.mixtures, 3))

    def distribution(self, description: Float[Tensor, "... code mixture 3"]) -> Distribution:
        """p(z|c), from what `describe` returns."""
        logits, means, widths = self.gaussians(description)
        gaussians = Normal(means, widths, validate_args=False)
        if self.mixtures == 1:  # the KL then has a closed form
            one = Normal(means[..., 0], gaussians.scale[..., 0], validate_args=False)
            return Independent(one, 1, validate_args=False)
        mixture = MixtureSameFamily(
            Categorical(logits=logits, validate_args=False), gaussians, validate_args=False
        )
        return Independent(mixture, 1, validate_args=False)

    def gaussians(
        self, description: Float[Tensor, "... code mixture 3"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and widths of p(z|c), each (..., D, M), from what `describe` returns."""
        logits, means, log_widths = description.unbind(-1)
        # z is a mean plus the posterior's unit noise, so no Gaussian needs to be narrower than that
        # noise: exp(log_width) is the width for the means alone. This loses no generality, and
        # bounds what an overconfident prior can charge.
        return logits, means, torch.sqrt(1 + torch.exp(2 * log_widths.clamp(max=10)))

    def marginal(self, codes: Float[Tensor, "n code"], nearest: int) -> Distribution:
        return CodeMixture(self, codes, nearest)


DISTANCES = 2**26
"""Distances between z and codes that are held at once: a quarter of a GiB."""


class CodeMixture(Distribution):
    """p(z) = 1/N sum_j p(z|c_j), over all stored codes: batch shape (), event shape (D,).

    `log_prob` sums only the terms of the nearest codes, but still divides by N. The omitted terms
    are positive, so -log p(z) is never below that of the whole sum: a cost computed with it is an
    upper bound, whichever terms are kept.

    Args:
        prior: p(z|c).
        codes: c_j, (N, D).
        nearest: number of terms to sum for each z.
    """

    arg_constraints = {}  # noqa: RUF012  # torch's name and type for it

    def __init__(self, prior: MixturePrior, codes: Tensor, nearest: int) -> None:
        self.prior, self.codes = prior, codes
        self.nearest = min(nearest, len(codes))
        super().__init__(torch.Size(), codes.shape[1:], validate_args=False)

    @torch.no_grad()
    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z) in nats, from (..., D) to (...). Needs memory for the prior's parameters at all
        codes, N x D x M x 3 numbers, and for the distances of some z from all codes, `DISTANCES`
        numbers or N if that is more."""
        described, flat = self._describe(), value.flatten(0, -2)
        at_once = min(1024, max(1, DISTANCES // len(self.codes)))
        found = [self._log_prob(some, described) for some in flat.split(at_once)]
        return torch.cat(found).reshape(value.shape[:-1])

    def _log_prob(
        self, z: Float[Tensor, "batch code"], described: Tensor
    ) -> Float[Tensor, " batch"]:
        rows = torch.cdist(z, self.codes).topk(self.nearest, largest=False).indices
        # In the order of the codes, so that what is known of one is in the cache for all its z.
        row, pair = rows.flatten().sort()
        terms = z.new_empty(len(pair))
        terms[pair] = log_densities(z, pair // self.nearest, row, described)
        return terms.view_as(rows).logsumexp(1) - math.log(len(self.codes))

    def _describe(self) -> Tensor:
        """For each Gaussian at each code the logarithm of its height, its mean, and one over its
        width, (3, N, M, D): all that needs a logarithm or a root, once for all z."""
        described = None
        for start in range(0, len(self.codes), 4096):
            description = self.prior.describe(self.codes[start : start + 4096]).transpose(-2, -3)
            logits, means, widths = self.prior.gaussians(description)
            heights = logits.log_softmax(-2) - widths.log() - math.log(2 * math.pi) / 2
            if described is None:  # filled in place, to hold them in memory only once
                described = heights.new_empty(3, len(self.codes), *heights.shape[1:])
            own = described[:, start : start + 4096]
            own[0], own[1], own[2] = heights, means, 1 / widths
        assert described is not None
        return described

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Picks a stored code c at random, then samples p(z|c)."""
        rows = torch.randint(len(self.codes), tuple(sample_shape), device=self.codes.device)
        return self.prior(self.codes[rows]).sample()


AT_ONCE = 2**17
"""Numbers that a CPU works on at once, which stay in its cache."""


def log_densities(
    z: Float[Tensor, "batch code"],
    places: Int[Tensor, " pair"],
    rows: Int[Tensor, " pair"],
    described: Float[Tensor, "3 size mixture code"],
) -> Float[Tensor, " pair"]:
    """log p(z|c) for pairs of z and code, at these places and rows. Changes no argument.

    Args:
        described: what `CodeMixture._describe` returns.
    """
    at_once = AT_ONCE if z.device.type == "cpu" else 128 * AT_ONCE
    pieces = max(1, at_once // described[0, 0].numel())
    found = []
    for place, row in zip(places.split(pieces), rows.split(pieces), strict=True):
        # index_select is several times as fast as indexing, and in-place operations as others.
        heights, means, inverse = (one.index_select(0, row) for one in described)
        scaled = means.sub_(z.index_select(0, place)[:, None]).mul_(inverse)
        logs = heights.addcmul_(scaled, scaled, value=-0.5)
        most = logs.amax(1, keepdim=True)
        found.append(logs.sub_(most).exp_().sum(1).log_().add_(most.squeeze(1)).sum(1))
    return torch.cat(found)
