"""Samples a gated PixelCNN pixel by pixel and keeps the activations of earlier pixels. Each pixel
costs only what it adds, so an image costs as much as one pass over all its pixels."""

from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

if TYPE_CHECKING:
    from acn_lightning.networks.pixelcnn.network import GatedLayer, GatedPixelCNN


class IncrementalSampler:
    """Computes a `GatedPixelCNN`'s parameters one pixel at a time, in raster order.

    The vertical stack advances by rows: each layer keeps the rows of its input that its next row
    sees. The horizontal stack advances by pixels: each layer keeps its input row so far. What one
    position sees of that row is contiguous, so the convolutions become matrix products. Computes in
    the weights' dtype, normally float32.

    Args:
        network: to sample from. Its weights must not change while sampling: most are copied here.
        features: the condition, (B, F, H, W) or (B, F, 1, 1); None if there is none.
        batch: B.
        width: W.
    """

    def __init__(
        self, network: "GatedPixelCNN", features: Tensor | None, batch: int, width: int
    ) -> None:
        layers = [cast("GatedLayer", layer) for layer in network.layers]
        self.vertical = [RowByRow(layer, batch, width) for layer in layers]
        self.horizontal = [AlongRow(layer, batch, width) for layer in layers]
        weight = network.output.weight
        self.features = None if features is None else features.to(weight.dtype)
        hidden = cast(torch.nn.Conv2d, network.hidden[1])
        self.hidden, self.output = matrix(hidden), matrix(network.output)
        self.biases = bias(hidden), bias(network.output)

    def start_row(self, i: int, above: Float[Tensor, "batch channel 1 width"] | None) -> None:
        """Advances to row i.

        Args:
            i: number of the row.
            above: values of the row above, 0 to 1; None for the first row.
        """
        v = None if above is None else 2 * above - 1
        features = self.features
        if features is not None and features.shape[2] > 1:
            features = features[:, :, i : i + 1]
        for rows, along in zip(self.vertical, self.horizontal, strict=True):
            v, told = rows.next(v, features)
            along.start(told)

    def next(self, j: int, left: Float[Tensor, "batch channel"] | None) -> Tensor:
        """Parameters of the pixel at column j of the current row, (B, P).

        Args:
            j: number of the column.
            left: values of the pixel to its left, 0 to 1; None for the first pixel of a row.
        """
        h = None if left is None else 2 * left - 1
        for along in self.horizontal:
            h = along.next(j, h)
        hidden = torch.addmm(self.biases[0], torch.relu(cast(Tensor, h)), self.hidden)
        return torch.addmm(self.biases[1], torch.relu(hidden), self.output)


class RowByRow:
    """A layer of the vertical stack: `GatedLayer.vertical`, one row at a time."""

    def __init__(self, layer: "GatedLayer", batch: int, width: int) -> None:
        self.layer = layer
        weight = layer.above.weight
        # Zeros above the first row, like the padding of `GatedLayer`.
        self.rows = weight.new_zeros(batch, weight.shape[1], weight.shape[2], width)

    def next(self, row: Tensor | None, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns (the layer's next row of features, its contribution to the horizontal stack).

        `row` is the next row of the layer's input. For the first layer this is the image's row
        above, None at the first row.
        """
        if row is not None:
            self.rows = torch.cat([self.rows[:, :, 1:], row], dim=2)
        above = self.layer.above
        padding = (0, self.layer.reach)
        return self.layer.gate_rows(
            conv2d(self.rows, above.weight, above.bias, 1, padding), features
        )


class AlongRow:
    """A layer of the horizontal stack: `GatedLayer.horizontal`, one pixel at a time."""

    def __init__(self, layer: "GatedLayer", batch: int, width: int) -> None:
        self.inputs, self.reach = layer.left.weight.shape[1], layer.reach
        self.first, self.residual = not layer.residual, layer.residual
        self.left, self.mix = matrix(layer.left), matrix(layer.mix)
        self.biases = bias(layer.left), bias(layer.mix)
        # Position by position, after `reach` empty ones: what a pixel sees is contiguous.
        self.row = layer.left.weight.new_zeros(batch, (self.reach + width) * self.inputs)
        self.told: Tensor = self.row

    def start(self, told: Float[Tensor, "batch channel 1 width"]) -> None:
        """Starts a new row, with the vertical stack's contribution to it."""
        self.told = told[:, :, 0].permute(2, 0, 1) + self.biases[0]

    def next(self, j: int, h: Tensor | None) -> Tensor:
        """Returns the layer's features at column j.

        `h` is the layer's input there. For the first layer this is the pixel to the left, None at
        the first column.
        """
        if h is not None:
            at = (self.reach + j - self.first) * self.inputs
            self.row[:, at : at + self.inputs] = h
        seen = self.row[:, j * self.inputs : j * self.inputs + len(self.left)]
        a, b = torch.addmm(self.told[j], seen, self.left).chunk(2, dim=1)
        gated = a.tanh_().mul_(b.sigmoid_())
        mixed = torch.addmm(self.biases[1], gated, self.mix)
        return mixed + h if self.residual and h is not None else mixed


def matrix(layer: torch.nn.Conv2d) -> Float[Tensor, "seen out"]:
    """Weights of a one-row convolution as a matrix: its concatenated inputs at a position, times
    this matrix, give its outputs there."""
    return layer.weight[:, :, 0].permute(2, 1, 0).flatten(0, 1).contiguous()


def bias(layer: torch.nn.Conv2d) -> Tensor:
    """The layer's bias, which these layers always have."""
    return cast(Tensor, layer.bias)
