"""The gated PixelCNN (van den Oord et al., arXiv 1606.05328): predicts each pixel from all pixels
before it in raster order, and from a condition."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from acn_lightning.networks.layers import in_float32


class GatedPixelCNN(nn.Module):
    """Two stacks of gated convolutions that map an image and a condition's features to the
    parameters of each pixel's distribution.

    The vertical stack sees all rows above a pixel. The horizontal stack sees the pixels to its left
    and, at each layer, the vertical stack. Together they see everything above and to the left
    within the receptive field, where a single stack of masked convolutions has a blind spot. A
    layer computes tanh(a) * sigmoid(b). The horizontal stack is residual. The condition enters
    every layer of both stacks.

    Args:
        pixels: channels of the image, C.
        parameters: numbers per pixel, P.
        features: channels of the condition, F; 0 for none.
        channels: of each stack.
        layers: number of layers.
        kernel: side of the convolutions, odd; only the part above or to the left is used.
        first_kernel: the same for the first layer.
    """

    def __init__(
        self,
        pixels: int,
        parameters: int,
        features: int,
        channels: int,
        layers: int,
        kernel: int,
        first_kernel: int,
    ) -> None:
        super().__init__()
        first = GatedLayer(pixels, channels, first_kernel, features, first=True)
        others = (
            GatedLayer(channels, channels, kernel, features, first=False) for _ in range(layers - 1)
        )
        self.layers = nn.ModuleList([first, *others])
        self.hidden = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.ReLU(),
        )
        self.output = nn.Conv2d(2 * channels, parameters, 1)

    def forward(
        self, image: Float[Tensor, "batch channel height width"], features: Tensor | None
    ) -> Float[Tensor, "batch parameter height width"]:
        """Parameters of all pixels at once.

        Args:
            image: values from 0 to 1.
            features: (B, F, H, W), or (B, F, 1, 1) for the same at every position.
        """
        return self.along_rows(image, self.rows_above(image, features))

    def rows_above(
        self, image: Float[Tensor, "batch channel height width"], features: Tensor | None
    ) -> list[Tensor]:
        """The vertical stack's contribution to the horizontal stack, for each layer. Row i of it
        depends only on image rows before i."""
        told: list[Tensor] = []
        v = 2 * image - 1
        for layer in self.layers:
            v, words = cast(GatedLayer, layer).vertical(v, features)
            told.append(words)
        return told

    def along_rows(
        self, image: Float[Tensor, "batch channel height width"], told: Sequence[Tensor]
    ) -> Float[Tensor, "batch parameter height width"]:
        """The horizontal stack and output: each row separately, given `told` by `rows_above`."""
        h = 2 * image - 1
        for layer, words in zip(self.layers, told, strict=True):
            h = cast(GatedLayer, layer).horizontal(h, words)
        return in_float32(self.output, self.hidden(h))


class GatedLayer(nn.Module):
    """One layer of both stacks.

    No convolution is masked. Each kernel is cut to the part that a pixel may see, and the input is
    padded on that side.

    Args:
        inputs: input channels.
        channels: output channels.
        kernel: side of the uncut kernel.
        features: channels of the condition; 0 for none.
        first: whether the input is the image. A pixel must not see itself then: the vertical stack
            starts at the row above, the horizontal stack at the pixel to the left.
    """

    def __init__(
        self, inputs: int, channels: int, kernel: int, features: int, *, first: bool
    ) -> None:
        super().__init__()
        reach = kernel // 2
        seen = reach if first else reach + 1
        self.residual, self.reach = not first, reach
        # Padded on both sides, then cropped: one operation fewer than padding one side.
        self.above = nn.Conv2d(inputs, 2 * channels, (seen, kernel), padding=(reach, reach))
        self.left = nn.Conv2d(inputs, 2 * channels, (1, seen), padding=(0, reach))
        self.down = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.gate = GatedActivation()
        self.condition = nn.Conv2d(features, 4 * channels, 1, bias=False) if features else None

    def vertical(self, v: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns (the next features, the contribution to the horizontal stack)."""
        height = v.shape[2]
        return self.gate_rows(self.above(v)[:, :, :height], features)

    def gate_rows(self, above: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """What `vertical` returns, from its convolution's output."""
        if self.condition is None or features is None:
            return self.gate(above), self.down(above)
        mine, other = self.condition(features).chunk(2, dim=1)
        above = above + mine
        return self.gate(above), self.down(above) + other

    def horizontal(self, h: Tensor, told: Tensor) -> Tensor:
        """The horizontal stack's next features."""
        left = self.left(h)[..., : h.shape[3]]
        mixed: Tensor = self.mix(self.gate(left + told))
        return h + mixed if self.residual else mixed


class GatedActivation(nn.Module):
    """tanh(a) * sigmoid(b), where a and b are the two halves of the channels."""

    def forward(self, both: Tensor) -> Tensor:
        gated: Tensor = Gate.apply(both)
        return gated


class Gate(torch.autograd.Function):
    """The gated activation and its gradient.

    Autograd would keep the input as well as both activations. On the CPU these element-wise passes
    over memory cost as much as the convolutions.
    """

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        a, b = both.chunk(2, dim=1)
        b = torch.sigmoid(b)
        if a.is_cpu and a.dtype in (torch.float32, torch.float64):
            # The tanh of a, in half the time. In 16 bits, small values would lose their digits.
            a = (2 * a).sigmoid_().mul_(2).sub_(1)
        else:
            a = torch.tanh(a)
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        a, b = ctx.saved_tensors
        once = gradient * b
        twice = once * a
        of_a = torch.addcmul(once, twice, a, value=-1)
        of_b = torch.addcmul(twice, twice, b, value=-1)
        return torch.cat([of_a, of_b], dim=1)
