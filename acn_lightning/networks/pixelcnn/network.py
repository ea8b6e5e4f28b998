"""The gated PixelCNN (van den Oord et al., arXiv 1606.05328): each pixel's distribution from all
pixels before it in raster order, and from a condition."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from acn_lightning.networks.component import in_float32
from acn_lightning.networks.distributions import check_one_sample
from acn_lightning.networks.likelihoods import Likelihood
from acn_lightning.networks.pixelcnn.sampler import PixelByPixel


class GatedPixelCNN(nn.Module):
    """The two stacks of gated convolutions, from an image and the features of a condition to the
    parameters of each pixel's distribution.

    The vertical stack sees all rows above a pixel; the horizontal stack sees the pixels to its left
    and, at each layer, the vertical stack. Between them nothing above or to the left goes unseen
    within the receptive field (a single stack of masked convolutions has a blind spot there). A
    layer computes tanh(a) * sigmoid(b); the horizontal stack is residual. The condition enters each
    layer of both stacks.

    Args:
        pixels: channels of the image, C.
        parameters: numbers for each pixel, P.
        features: channels of the condition, F; 0 for none.
        channels: of each stack.
        layers: how many.
        kernel: side of the convolutions, odd; they use the part of it that lies above or left.
        first_kernel: the same of the first layer.
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
            image: values 0 to 1.
            features: (B, F, H, W), or (B, F, 1, 1) for the same in all places.
        """
        return self.along_rows(image, self.rows_above(image, features))

    def rows_above(
        self, image: Float[Tensor, "batch channel height width"], features: Tensor | None
    ) -> list[Tensor]:
        """What the vertical stack tells the horizontal one at each layer: row i of it knows only
        rows before i of the image."""
        told: list[Tensor] = []
        v = 2 * image - 1
        for layer in self.layers:
            v, words = cast(GatedLayer, layer).vertical(v, features)
            told.append(words)
        return told

    def along_rows(
        self, image: Float[Tensor, "batch channel height width"], told: Sequence[Tensor]
    ) -> Float[Tensor, "batch parameter height width"]:
        """The horizontal stack, to the parameters: each row by itself, with what was told of it."""
        h = 2 * image - 1
        for layer, words in zip(self.layers, told, strict=True):
            h = cast(GatedLayer, layer).horizontal(h, words)
        return in_float32(self.output, self.hidden(h))


class GatedLayer(nn.Module):
    """One layer of both stacks.

    No convolution is masked: each is cut to the part of the kernel that may see something, and its
    input padded on that side.

    Args:
        inputs: channels of its input.
        channels: of its output.
        kernel: its side.
        features: channels of the condition; 0 for none.
        first: whether its input is the image. A pixel may not see itself then: the vertical stack
            begins with the row above, the horizontal one with the pixel to the left.
    """

    def __init__(
        self, inputs: int, channels: int, kernel: int, features: int, *, first: bool
    ) -> None:
        super().__init__()
        reach = kernel // 2
        seen = reach if first else reach + 1
        self.residual, self.reach = not first, reach
        # Padded on both sides, and cut to size after: one operation less than padding one side.
        self.above = nn.Conv2d(inputs, 2 * channels, (seen, kernel), padding=(reach, reach))
        self.left = nn.Conv2d(inputs, 2 * channels, (1, seen), padding=(0, reach))
        self.down = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.condition = nn.Conv2d(features, 4 * channels, 1, bias=False) if features else None

    def vertical(self, v: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """(its next features, what is told to the horizontal stack)."""
        height = v.shape[2]
        return self.gate_rows(self.above(v)[:, :, :height], features)

    def gate_rows(self, above: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """What `vertical` returns, of what its convolution saw."""
        if self.condition is None or features is None:
            return Gate.apply(above), self.down(above)
        mine, other = self.condition(features).chunk(2, dim=1)
        above = above + mine
        return Gate.apply(above), self.down(above) + other

    def horizontal(self, h: Tensor, told: Tensor) -> Tensor:
        """The horizontal stack's next features."""
        left = self.left(h)[..., : h.shape[3]]
        mixed: Tensor = self.mix(Gate.apply(left + told))
        return h + mixed if self.residual else mixed


class Gate(torch.autograd.Function):
    """tanh(a) * sigmoid(b), a and b the halves of the channels.

    Autograd's own would keep the input as well as both activations, and on the CPU these
    element-wise passes over memory cost as much as the convolutions.
    """

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        a, b = both.chunk(2, dim=1)
        a, b = torch.tanh(a), torch.sigmoid(b)
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        a, b = ctx.saved_tensors
        of_a = gradient * b
        return torch.cat([of_a - of_a * a * a, of_a * a * (1 - b)], dim=1)


class AutoregressiveImages(Distribution):
    """prod_i r(x_i | x_1, ..., x_(i-1), z), in raster order: batch shape (B,), event shape
    (C, H, W). It has no closed-form mean.

    Args:
        network: gives each pixel's parameters, from those before it and the condition.
        likelihood: makes a distribution of them.
        features: the condition, (B, F, H, W) or (B, F, 1, 1); None without one.
        batch: B.
        event_shape: (C, H, W).
    """

    arg_constraints = {}  # noqa: RUF012  # torch's name and type for it

    def __init__(
        self,
        network: GatedPixelCNN,
        likelihood: Likelihood,
        features: Tensor | None,
        batch: int,
        event_shape: Sequence[int],
    ) -> None:
        self.network, self.likelihood, self.features = network, likelihood, features
        super().__init__(torch.Size([batch]), torch.Size(event_shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log r(x|z) in nats, (B,): one pass over all pixels at once."""
        parameters = self.network(value, self.features)
        log_prob: Tensor = self.likelihood(parameters).log_prob(value)
        return log_prob

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws pixel by pixel, all images of the batch at once."""
        check_one_sample(sample_shape)
        weight = self.network.output.weight
        image = torch.zeros(*self.batch_shape, *self.event_shape, device=weight.device)
        height, width = image.shape[2:]
        with torch.autocast(weight.device.type, enabled=False):
            pixels = PixelByPixel(self.network, self.features, len(image), width)
            for i in range(height):
                pixels.start_row(i, image[:, :, i - 1 : i] if i else None)
                for j in range(width):
                    parameters = pixels.next(j, image[:, :, i, j - 1] if j else None)
                    pixel = self.likelihood(parameters[:, :, None, None]).sample()
                    image[:, :, i, j] = pixel[:, :, 0, 0]
        return image
