"""Drawing from a gated PixelCNN pixel by pixel, with the activations of the pixels so far kept:
each new pixel costs what it adds, and an image as much as one pass over all its pixels."""

from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

if TYPE_CHECKING:
    from acn_lightning.networks.pixelcnn.network import GatedLayer, GatedPixelCNN


class PixelByPixel:
    """What a `GatedPixelCNN` says of one pixel after the other, in raster order.

    The vertical stack moves on by a row: each layer keeps the rows of its input that the next row
    sees. The horizontal stack moves on by a pixel: each layer keeps the row of its input so far.
    What one position sees of it lies in one vector, so that its convolutions are products of
    matrices. All in float32, or what the weights are.

    Args:
        network: whose weights are read once, now.
        features: the condition, (B, F, H, W) or (B, F, 1, 1); None without one.
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
        """Moves on to row i.

        Args:
            i: its number.
            above: values of the row above, 0 to 1; None for the first.
        """
        v = None if above is None else 2 * above - 1
        features = self.features
        if features is not None and features.shape[2] > 1:
            features = features[:, :, i : i + 1]
        for rows, along in zip(self.vertical, self.horizontal, strict=True):
            v, told = rows.next(v, features)
            along.start(told)

    def next(self, j: int, left: Float[Tensor, "batch channel"] | None) -> Tensor:
        """Parameters of the pixel at column j of the row, (B, P).

        Args:
            j: its number.
            left: values of the pixel to its left, 0 to 1; None for the first of a row.
        """
        h = None if left is None else 2 * left - 1
        for along in self.horizontal:
            h = along.next(j, h)
        hidden = torch.addmm(self.biases[0], torch.relu(cast(Tensor, h)), self.hidden)
        return torch.addmm(self.biases[1], torch.relu(hidden), self.output)


class RowByRow:
    """The vertical stack's part of a layer. `GatedLayer.vertical` for one row."""

    def __init__(self, layer: "GatedLayer", batch: int, width: int) -> None:
        self.layer = layer
        weight = layer.above.weight
        # The rows above the first are empty, as its padding.
        self.rows = weight.new_zeros(batch, weight.shape[1], weight.shape[2], width)

    def next(self, row: Tensor | None, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """(its next row of features, what is told to the horizontal stack), of the next row of its
        input; the first layer's is the row above, and None at first."""
        if row is not None:
            self.rows = torch.cat([self.rows[:, :, 1:], row], dim=2)
        above = self.layer.above
        padding = (0, self.layer.reach)
        return self.layer.gate_rows(
            conv2d(self.rows, above.weight, above.bias, 1, padding), features
        )


class AlongRow:
    """The horizontal stack's part of a layer. `GatedLayer.horizontal` for one pixel."""

    def __init__(self, layer: "GatedLayer", batch: int, width: int) -> None:
        self.inputs, self.reach = layer.left.weight.shape[1], layer.reach
        self.first, self.residual = not layer.residual, layer.residual
        self.left, self.mix = matrix(layer.left), matrix(layer.mix)
        self.biases = bias(layer.left), bias(layer.mix)
        # Position after position, `reach` empty ones first: what a pixel sees lies side by side.
        self.row = layer.left.weight.new_zeros(batch, (self.reach + width) * self.inputs)
        self.told: Tensor = self.row

    def start(self, told: Float[Tensor, "batch channel 1 width"]) -> None:
        """A new row, and what the vertical stack tells of it."""
        self.told = told[:, :, 0].permute(2, 0, 1) + self.biases[0]

    def next(self, j: int, h: Tensor | None) -> Tensor:
        """Its features at column j, of its input there; the first layer's is the pixel to the left,
        and None at first."""
        if h is not None:
            at = (self.reach + j - self.first) * self.inputs
            self.row[:, at : at + self.inputs] = h
        seen = self.row[:, j * self.inputs : j * self.inputs + len(self.left)]
        a, b = torch.addmm(self.told[j], seen, self.left).chunk(2, dim=1)
        gated = a.tanh_().mul_(b.sigmoid_())
        mixed = torch.addmm(self.biases[1], gated, self.mix)
        return mixed + h if self.residual and h is not None else mixed


def matrix(layer: torch.nn.Conv2d) -> Float[Tensor, "seen out"]:
    """The weights of a convolution of one row: its inputs at one place side by side, times this,
    are its outputs there."""
    return layer.weight[:, :, 0].permute(2, 1, 0).flatten(0, 1).contiguous()


def bias(layer: torch.nn.Conv2d) -> Tensor:
    """Known to be there."""
    return cast(Tensor, layer.bias)
