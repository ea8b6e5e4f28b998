"""Networks in exact arithmetic: the same numbers on every machine.

A file that was compressed with a model can be decompressed only by someone who computes the very
same probabilities. Floating-point networks do not: sums round differently with another batch size,
instruction set or number of threads. Here weights are multiples of 2^-20, and activations multiples
of 2^-16 that are clamped, so that every sum of products is exact in float64, whatever its order.
What remains are single operations that IEEE 754 defines, and functions read from tables.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import expit, ndtr
from torch import Tensor, nn

from acn_lightning.networks.base import Component
from acn_lightning.networks.convolutions import Conv3x3, UpsamplingConv3x3
from acn_lightning.networks.pixelcnn.network import GatedActivation
from acn_lightning.utils.errors import UsageError

BITS = 16
"""Activations are multiples of 2^-16."""

WEIGHT_BITS = 20
"""Weights are multiples of 2^-20."""

LIMITS = tuple(2.0**power for power in range(8, 3, -1))
"""Bounds to which a layer may clamp its inputs, the preferred one first."""

FINE_BITS = 26
"""Values of the tables for probabilities are multiples of 2^-26."""


# ---------------------------------------------------------------- numbers


def settle(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Rounds float64 numbers below 2^35 to multiples of 2^-16, half to even.

    In float64, numbers from 2^36 to 2^37 are 2^-16 apart, so adding such a number rounds.
    """
    return (x + 1.5 * 2.0 ** (52 - BITS)).sub_(1.5 * 2.0 ** (52 - BITS))


def rounded(x: Float[Tensor, "..."], bits: int) -> Float[Tensor, "..."]:
    """Numbers as float64, rounded to multiples of 2^-bits."""
    return (x.detach().cpu().double() * 2.0**bits).round() / 2.0**bits


def root(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The square root as IEEE 754 defines it. PyTorch's float64 root on the CPU is a library's,
    which is now and then one unit off."""
    return torch.from_numpy(np.sqrt(x.numpy()))


def mean_square(x: Float[Tensor, "... n"]) -> Float[Tensor, "... 1"]:
    """The mean of the squares of settled numbers below 2^9 along the last axis, the same in every
    order of summation: each square is split into two halves whose sums are exact."""
    whole = (x * 2.0**BITS).square()  # below 2^50
    high = (whole * 2.0**-25).floor()
    low = whole - high * 2.0**25
    total = high.sum(-1, keepdim=True) * 2.0**25 + low.sum(-1, keepdim=True)
    return total / x.shape[-1] * 2.0 ** (-2 * BITS)


class Table:
    """A function of settled numbers, by a table of its values at multiples of 2^-step.

    No value is so near to a boundary of rounding that the errors of a good library decide: the
    tests check this. So every machine makes the same table.

    Args:
        function: of float64 arrays.
        low: the lowest argument; those below it are clamped.
        high: the same for the highest.
        bits: values are rounded to multiples of 2^-bits; None rounds to float32.
        step: arguments are rounded to multiples of 2^-step. Fewer make a table that fits into a
            core's cache.
    """

    def __init__(
        self,
        function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        low: int,
        high: int,
        bits: int | None,
        step: int = BITS,
    ) -> None:
        self.low, self.high, self.bits, self.step = low, high, bits, step
        values = function(self.arguments())
        if bits is None:
            values = values.astype(np.float32)
        else:
            values = np.round(values * 2.0**bits) / 2.0**bits
        self.values = torch.from_numpy(values)

    def arguments(self) -> NDArray[np.float64]:
        """All arguments of the table."""
        return np.arange(self.low << self.step, (self.high << self.step) + 1) / 2.0**self.step

    def __call__(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        half = 2.0 ** -(self.step + 1)  # so that cutting rounds
        index = x.clamp(self.low, self.high).sub_(self.low - half).mul_(2.0**self.step).long()
        return self.values[index]


@cache
def tanh() -> Table:
    """tanh, settled."""
    return Table(np.tanh, -8, 8, BITS, 12)


@cache
def gate() -> Table:
    """The logistic sigmoid, settled."""
    return Table(expit, -12, 12, BITS, 12)


@cache
def sigmoid() -> Table:
    """The logistic sigmoid as a probability, for arguments up to 0."""
    return Table(expit, -20, 0, FINE_BITS, 14)


@cache
def normal() -> Table:
    """The standard normal's cumulative distribution function, for arguments up to 0."""
    return Table(ndtr, -6, 0, FINE_BITS, 13)


@cache
def bell() -> Table:
    """The standard normal's density relative to its peak."""
    return Table(lambda x: np.exp(-(x**2) / 2), -8, 8, None, 8)


@cache
def exponential() -> Table:
    """exp."""
    return Table(np.exp, -20, 8, None)


@cache
def prior_scale() -> Table:
    """sqrt(1 + exp(2 x)): the standard deviation of a prior's Gaussian of log width x."""
    return Table(lambda x: np.sqrt(1 + np.exp(2 * x)), -9, 10, None)


TABLES = (tanh, gate, sigmoid, normal, bell, exponential, prior_scale)


def cumulative(table: Table, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A symmetric distribution's cumulative function at any settled number, from its table for
    arguments up to 0."""
    below = table(-x.abs())
    return torch.where(x > 0, 1 - below, below)


# ---------------------------------------------------------------- layers


def freeze(twin: nn.Linear | nn.Conv2d, layer: nn.Linear | nn.Conv2d) -> float:
    """Gives a layer's weights, rounded, to its twin. Returns to what inputs have to be clamped.

    Raises:
        UsageError: the weights are not finite, or so large that sums would not be exact.
    """
    weight = rounded(layer.weight, WEIGHT_BITS)
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias
    bias = rounded(bias, WEIGHT_BITS)
    room = 2.0 ** (53 - BITS - WEIGHT_BITS) - bias.abs()
    sums = weight.abs().flatten(1).sum(1)
    limit = next((one for one in LIMITS if bool((sums * one < room).all())), None)
    if limit is None:  # also if a weight is NaN
        raise UsageError(
            "The model's weights are too large for exact arithmetic, or not finite: for one output "
            f"their absolute values add up to {float(sums.max()):.4g}."
        )
    twin.weight = nn.Parameter(weight, requires_grad=False)
    twin.bias = nn.Parameter(bias, requires_grad=False)
    return limit


class ExactLinear(nn.Linear):
    """A linear layer whose sums are exact."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.limit = freeze(self, layer)

    def forward(self, x: Tensor) -> Tensor:
        return settle(super().forward(x.clamp(-self.limit, self.limit)))


class ExactConv2d(nn.Conv2d):
    """A convolution whose sums are exact. In float64 on the CPU, PyTorch computes convolutions as
    matrix products."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            cast(tuple[int, int], layer.kernel_size),
            stride=cast(tuple[int, int], layer.stride),
            padding=cast(tuple[int, int], layer.padding),
            device="meta",
        )
        self.limit = freeze(self, layer)

    def forward(self, x: Tensor) -> Tensor:
        return settle(super().forward(x.clamp(-self.limit, self.limit)))


class ExactGroupNorm(nn.Module):
    """Group normalisation from exact sums."""

    def __init__(self, layer: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = layer.num_groups, layer.eps
        self.scale = rounded(layer.weight, WEIGHT_BITS)[:, None, None]
        self.bias = rounded(layer.bias, BITS)[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.clamp(-LIMITS[0], LIMITS[0]).unflatten(1, (self.groups, -1)).flatten(2)
        apart = grouped - settle(grouped.sum(2, keepdim=True) / grouped.shape[2])
        deviation = root(mean_square(apart) + self.eps)
        inverse = torch.ones_like(deviation) / deviation
        return settle(settle(apart * inverse).view_as(x) * self.scale) + self.bias


class ExactAvgPool2d(nn.Module):
    """Average pooling, settled: windows hold one, two or four numbers."""

    def __init__(self, layer: nn.AvgPool2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return settle(self.layer(x))


class ExactTanh(nn.Module):
    """tanh, by its table."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return tanh()(x)


class ExactGatedActivation(nn.Module):
    """tanh(a) * sigmoid(b), by their tables."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()

    def forward(self, both: Tensor) -> Tensor:
        a, b = both.chunk(2, dim=1)
        return settle(tanh()(a).mul_(gate()(b)))


def exact_upsampling(layer: nn.Conv2d) -> nn.Module:
    """An `UpsamplingConv3x3` in two steps, as it was defined: files depend on its rounding."""
    return nn.Sequential(nn.Upsample(scale_factor=2), ExactConv2d(layer))


REPLACED: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Linear: ExactLinear,
    nn.Conv2d: ExactConv2d,
    Conv3x3: ExactConv2d,
    UpsamplingConv3x3: exact_upsampling,
    nn.GroupNorm: ExactGroupNorm,
    nn.AvgPool2d: ExactAvgPool2d,
    nn.Tanh: ExactTanh,
    GatedActivation: ExactGatedActivation,
}

KEPT = (
    nn.ReLU,
    nn.Flatten,
    nn.Identity,
    nn.Unflatten,
    nn.Upsample,
    nn.ParameterList,
    Component,
)
"""Layers that are exact as they are, and what is no layer."""


def exactly(network: nn.Module) -> nn.Module:
    """A copy of a network in exact arithmetic, on the CPU. It takes and returns settled float64
    numbers.

    Only for networks whose own code does nothing but call layers, join tensors, and add and
    multiply. `compression/model.py` lists them.

    Raises:
        UsageError: a layer has no exact form, or weights are too large or not finite.
    """
    twin = copy.deepcopy(network).cpu().double().eval().requires_grad_(False)
    for path, layer in [*twin.named_modules()]:
        for table in layer if isinstance(layer, nn.ParameterList) else ():
            table.data = rounded(table, BITS)
        if list(layer.children()) or isinstance(layer, KEPT):
            continue
        if type(layer) not in REPLACED:
            raise UsageError(f"The layer {type(layer).__name__} has no form in exact arithmetic.")
        replacement = REPLACED[type(layer)](layer)
        if not path:
            return replacement
        parent, _, name = path.rpartition(".")
        setattr(twin.get_submodule(parent), name, replacement)
    return twin
