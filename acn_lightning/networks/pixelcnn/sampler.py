"""Samples a gated PixelCNN pixel by pixel and keeps the activations of earlier pixels. Each pixel
costs only what it adds, so an image costs as much as one pass over all its pixels."""

import copy
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from acn_lightning.networks.exact import ExactConv2d, ExactLinear
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
        self, network: GatedPixelCNN, features: Tensor | None, batch: int, width: int
    ) -> None:
        layers = [cast(GatedLayer, layer) for layer in network.layers]
        self.vertical = [RowByRow(layer, batch, width) for layer in layers]
        self.horizontal = [AlongRow(layer, batch, width) for layer in layers]
        self.output = nn.Sequential(
            nn.ReLU(), linear(network.hidden[1]), nn.ReLU(), linear(network.output)
        )
        weight = network.output.weight
        self.features = None if features is None else features.to(weight.dtype)

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
        parameters: Tensor = self.output(h)
        return parameters


class RowByRow:
    """A layer of the vertical stack: `GatedLayer.vertical`, one row at a time."""

    def __init__(self, layer: GatedLayer, batch: int, width: int) -> None:
        self.layer = layer
        self.above = copy.copy(layer.above)
        self.above.padding = (0, layer.reach)  # `rows` are what one row sees
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
        return self.layer.gate_rows(self.above(self.rows), features)


class AlongRow:
    """A layer of the horizontal stack: `GatedLayer.horizontal`, one pixel at a time."""

    def __init__(self, layer: GatedLayer, batch: int, width: int) -> None:
        self.inputs, self.reach = layer.left.weight.shape[1], layer.reach
        self.first, self.residual = not layer.residual, layer.residual
        self.left, self.mix, self.gate = linear(layer.left), linear(layer.mix), layer.gate
        # Position by position, after `reach` empty ones: what a pixel sees is contiguous.
        self.row = layer.left.weight.new_zeros(batch, (self.reach + width) * self.inputs)
        self.told: Tensor = self.row

    def start(self, told: Float[Tensor, "batch channel 1 width"]) -> None:
        """Starts a new row, with the vertical stack's contribution to it."""
        self.told = told[:, :, 0].permute(2, 0, 1)

    def next(self, j: int, h: Tensor | None) -> Tensor:
        """Returns the layer's features at column j.

        `h` is the layer's input there. For the first layer this is the pixel to the left, None at
        the first column.
        """
        if h is not None:
            at = (self.reach + j - self.first) * self.inputs
            self.row[:, at : at + self.inputs] = h
        seen = self.row[:, j * self.inputs : j * self.inputs + self.left.in_features]
        mixed: Tensor = self.mix(self.gate(self.left(seen) + self.told[j]))
        return mixed + h if self.residual and h is not None else mixed


def linear(layer: nn.Module) -> nn.Linear:
    """A one-row convolution at one position: its concatenated inputs there to its outputs. In exact
    arithmetic if the convolution is."""
    assert isinstance(layer, nn.Conv2d)
    seen = layer.weight[:, :, 0].permute(0, 2, 1).flatten(1).contiguous()
    matrix = nn.Linear(seen.shape[1], len(seen), device="meta")
    matrix.weight, matrix.bias = nn.Parameter(seen), cast(nn.Parameter, layer.bias)
    return ExactLinear(matrix) if isinstance(layer, ExactConv2d) else matrix
