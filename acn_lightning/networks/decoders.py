"""Decoders: map a code z to the distribution r(x|z) over images.

A decoder returns a torch `Distribution`. Callers use only `log_prob`, `sample` and, if pixels are
independent, `mean`. A likelihood turns the decoder's output for each pixel into a distribution
(`likelihoods.py`).
"""

from collections.abc import Callable
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from acn_lightning.networks.base import Component
from acn_lightning.networks.layers import check_channels, in_float32, upsampling
from acn_lightning.networks.likelihoods import Likelihood
from acn_lightning.networks.pixelcnn.distribution import AutoregressiveImages
from acn_lightning.networks.pixelcnn.network import GatedPixelCNN
from acn_lightning.utils.errors import UsageError, check_choice, check_range

CONDITIONINGS = ("map", "vector", "none")


class Decoder(Component, key="model.decoder.kind"):
    """Maps codes (B, D) to r(x|z): batch shape (B,), event shape (C, H, W).

    `acn compress` needs the attributes and the methods `describe` and `fill`.

    Attributes:
        image_shape: (C, H, W).
        likelihood: of a pixel.
    """

    image_shape: tuple[int, int, int]
    likelihood: Likelihood

    def describe(
        self, z: Float[Tensor, "batch code"], image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch parameter height width"]:
        """The likelihood's parameters for each pixel of an image, given z and the pixels before
        it."""
        raise NotImplementedError

    def fill(
        self, z: Float[Tensor, "batch code"], choose: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "batch channel height width"]:
        """Images whose pixels are chosen one by one, in raster order, all images at once.

        Args:
            z: codes.
            choose: maps a pixel's parameters (B, P, 1, 1) to its values (B, C, 1, 1).
        """
        raise NotImplementedError


class ConvDecoder(Decoder, kind="conv"):
    """Pixels independent given z: upsamples z to a feature map, then one convolution gives the
    likelihood's parameters.

    Args:
        image_shape: (C, H, W).
        code_size: D.
        likelihood: of a pixel.
        channels: of the feature map, a multiple of 8. null lets `acn fit` choose: see `budget`.

    Raises:
        UsageError: `channels` is not a positive multiple of 8.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        code_size: int,
        likelihood: Likelihood,
        *,
        channels: int | None = 32,
    ) -> None:
        super().__init__()
        channels = check_channels("model.decoder.channels", channels)
        self.image_shape, self.likelihood = image_shape, likelihood
        self.body = nn.Sequential(*upsampling(code_size, image_shape[1:], channels))
        self.output = nn.Conv2d(channels, likelihood.per_pixel, 3, padding=1)

    def forward(self, z: Float[Tensor, "batch code"]) -> Distribution:
        distribution: Distribution = self.likelihood(self._of_pixels(z))
        return distribution

    def _of_pixels(self, z: Tensor) -> Tensor:
        return in_float32(self.output, self.body(z))

    def describe(self, z: Tensor, image: Tensor) -> Tensor:
        return self._of_pixels(z)

    @torch.no_grad()
    def fill(self, z: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
        parameters = self._of_pixels(z)
        image = parameters.new_zeros(len(z), *self.image_shape)
        for i, j in product(*map(range, self.image_shape[1:])):
            image[:, :, i : i + 1, j : j + 1] = choose(parameters[:, :, i : i + 1, j : j + 1])
        return image


class PixelCNNDecoder(Decoder, kind="pixelcnn"):
    """r(x|z) = prod_i r(x_i | x_1, ..., x_(i-1), z) by a gated PixelCNN (arXiv 1606.05328).

    It can model images well without z, so it leaves z empty if z costs more than it saves.

    Args:
        image_shape: (C, H, W).
        code_size: D.
        likelihood: of a pixel; it also orders the pixel's channels.
        channels: of each stack, a multiple of 8. null lets `acn fit` choose: see `budget`.
        layers: number of layers.
        kernel: side of the convolutions, odd.
        first_kernel: side of the first layer's convolutions, odd. They see pixels, so a wide one
            costs little.
        conditioning: "map" upsamples z to a feature map, which tells each position something
            different; "vector" tells every position the same; "none" ignores z: a PixelCNN without
            codes.
        map_channels: channels of that feature map, a multiple of 8.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        code_size: int,
        likelihood: Likelihood,
        *,
        channels: int | None = 32,
        layers: int = 6,
        kernel: int = 5,
        first_kernel: int = 7,
        conditioning: str = "map",
        map_channels: int = 16,
    ) -> None:
        super().__init__()
        channels = check_channels("model.decoder.channels", channels)
        check_channels("model.decoder.map_channels", map_channels)
        check_choice("model.decoder.conditioning", conditioning, CONDITIONINGS)
        check_range("model.decoder.layers", layers, 1, 1000)
        for name, side in [("kernel", kernel), ("first_kernel", first_kernel)]:
            if not 3 <= side <= 255 or side % 2 == 0:
                raise UsageError(
                    f"model.decoder.{name}: {side} is not an odd number from 3 to 255."
                )
        self.image_shape, self.likelihood = image_shape, likelihood
        self.condition: nn.Module | None = None
        features = 0
        if conditioning == "map":
            features = map_channels
            self.condition = nn.Sequential(*upsampling(code_size, image_shape[1:], features))
        elif conditioning == "vector":
            features = code_size
            self.condition = nn.Unflatten(1, (code_size, 1, 1))
        self.network = GatedPixelCNN(
            image_shape[0], likelihood.per_pixel, features, channels, layers, kernel, first_kernel
        )

    def forward(self, z: Float[Tensor, "batch code"]) -> AutoregressiveImages:
        features = self.condition(z) if self.condition is not None else None
        return AutoregressiveImages(
            self.network, self.likelihood, features, len(z), self.image_shape
        )

    def describe(self, z: Tensor, image: Tensor) -> Tensor:
        return self(z).describe(image)

    def fill(self, z: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
        return self(z).fill(choose)
