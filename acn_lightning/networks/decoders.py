"""Decoders: a code z to the distribution r(x|z) over images.

A decoder returns a torch `Distribution`, and nobody asks more of it than `log_prob`, `sample` and,
where its pixels are independent, `mean`. What it says of a pixel is for its likelihood to put into
a distribution (`likelihoods.py`).
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from acn_lightning.networks.component import Component, in_float32
from acn_lightning.networks.encoders import check_channels, conv
from acn_lightning.networks.likelihoods import Likelihood
from acn_lightning.networks.pixelcnn.network import AutoregressiveImages, GatedPixelCNN
from acn_lightning.utils.errors import UsageError, check_choice

CONDITIONINGS = ("map", "vector", "none")


class Decoder(Component):
    """Maps codes (B, D) to r(x|z): batch shape (B,), event shape (C, H, W)."""


class ConvDecoder(Decoder, kind="conv"):
    """Pixels independent given z: a feature map of z, then one convolution to the likelihood.

    Args:
        image_shape: (C, H, W).
        code_size: D.
        likelihood: of a pixel.
        channels: of the feature map; a multiple of 8. With null, `acn fit` chooses: see `budget`.

    Raises:
        UsageError: `channels` is no positive multiple of 8.
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
        self.likelihood = likelihood
        self.body = nn.Sequential(*upsampling(code_size, image_shape[1:], channels))
        self.output = nn.Conv2d(channels, likelihood.per_pixel, 3, padding=1)

    def forward(self, z: Float[Tensor, "batch code"]) -> Distribution:
        distribution: Distribution = self.likelihood(in_float32(self.output, self.body(z)))
        return distribution


class PixelCNNDecoder(Decoder, kind="pixelcnn"):
    """r(x|z) = prod_i r(x_i | x_1, ..., x_(i-1), z) by a gated PixelCNN (arXiv 1606.05328).

    It models images well without z, and so leaves z empty where z costs more than it saves.

    Args:
        image_shape: (C, H, W).
        code_size: D.
        likelihood: of a pixel; the order of its channels is the likelihood's matter.
        channels: of each stack; a multiple of 8. With null, `acn fit` chooses: see `budget`.
        layers: how many.
        kernel: side of the convolutions, odd.
        first_kernel: the same of the first layer, which sees pixels: wide at little cost.
        conditioning: "map" upsamples z to a feature map, so that it tells each place something of
            its own; "vector" tells all places the same; "none" leaves z out: a PixelCNN without
            codes.
        map_channels: of that feature map; a multiple of 8.

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
        if layers < 1:
            raise UsageError(f"model.decoder.layers: {layers} is below 1.")
        for name, side in [("kernel", kernel), ("first_kernel", first_kernel)]:
            if side < 3 or side % 2 == 0:
                raise UsageError(f"model.decoder.{name}: {side} is no odd number from 3 on.")
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

    def forward(self, z: Float[Tensor, "batch code"]) -> Distribution:
        features = self.condition(z) if self.condition is not None else None
        return AutoregressiveImages(
            self.network, self.likelihood, features, len(z), self.image_shape
        )


def upsampling(code_size: int, size: tuple[int, ...], channels: int) -> list[nn.Module]:
    """Codes (B, D) to a feature map (B, `channels`, H, W): the mirror image of `ConvEncoder`."""
    sizes = [tuple(size)]
    while min(sizes[-1]) > 4:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    width = channels * 2 ** (len(sizes) - 1)
    height, wide = sizes.pop()
    layers: list[nn.Module] = [
        nn.Linear(code_size, width * height * wide),
        nn.Unflatten(1, (width, height, wide)),
        *conv(width, width),
    ]
    while sizes:
        layers += [
            *conv(width, width // 2),
            nn.Upsample(size=sizes.pop()),
            *conv(width // 2, width // 2),
        ]
        width //= 2
    return layers
