"""Encoders: map an image to the posterior q(z|x) = N(mu(x), I) over its code."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from acn_lightning.networks.base import Component
from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.layers import check_channels, conv, in_float32


class Encoder(Component, key="model.encoder.kind"):
    """Maps images (B, C, H, W) in [0, 1] to a posterior: batch shape (B,), event shape (D,). A
    `Shape` turns its means into codes (`shapes.py`).

    Attributes:
        pretrained: names of its parameters that were loaded from elsewhere.
        has_codes: whether its codes tell images apart.
    """

    pretrained: Sequence[str] = ()
    has_codes = True


class FeatureEncoder:
    """Base of encoders with a feature network, `body`, and a linear layer to the mean.

    Computes in float32, even under autocast. In a run's first steps features differ little between
    images. 16 bits round these differences away, and a shape then enlarges the rounding errors to
    codes, from which training does not recover.

    Attributes:
        body: the feature network.
        float32: whether it does so; otherwise it computes as autocast tells it.
    """

    body: nn.Module
    float32 = True

    def make_mean(self, features: int, code_size: int) -> None:
        self.mean = nn.Linear(features, code_size)
        # With torch's default, codes start a seventh of the posterior's noise apart. Without a
        # shape to hold them, they drown in that noise and the decoder learns nothing from them.
        nn.init.normal_(self.mean.weight, std=4 / features**0.5)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Distribution:
        return unit_normal(in_float32(self.mean, self.features(image).flatten(1)))

    def features(self, image: Float[Tensor, "batch channel height width"]) -> Tensor:
        """The feature network's output, (B, ...)."""
        inputs = 2 * image - 1  # from [0, 1] to [-1, 1]
        features: Tensor = in_float32(self.body, inputs) if self.float32 else self.body(inputs)
        return features


class ConvEncoder(FeatureEncoder, Encoder, kind="conv"):
    """VGG-like body (Simonyan and Zisserman, arXiv 1409.1556), then one linear layer to the mean.
    The body has pairs of 3 x 3 convolutions; between pairs the resolution halves and the channels
    double, until a side is 4 or less.

    Uses group normalisation instead of batch normalisation, so a code depends only on its own
    image: a code stored during training equals the one that the same weights give afterwards.

    Args:
        image_shape: (C, H, W).
        code_size: D.
        channels: width of the first stage, a multiple of 8. null lets `acn fit` choose: see
            `budget`.

    Raises:
        UsageError: `channels` is not a positive multiple of 8.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        code_size: int,
        *,
        channels: int | None = 32,
    ) -> None:
        super().__init__()
        channels = check_channels("model.encoder.channels", channels)
        width, height, wide = image_shape[0], image_shape[1], image_shape[2]
        layers: list[nn.Module] = []
        while True:
            layers += [*conv(width, channels), *conv(channels, channels)]
            width = channels
            if min(height, wide) <= 4:
                break
            layers.append(nn.AvgPool2d(2, ceil_mode=True))
            height, wide, channels = -(-height // 2), -(-wide // 2), channels * 2
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.make_mean(width * height * wide, code_size)


class NoEncoder(Encoder, kind="none"):
    """An uninformative code: q(z|x) = N(0, I) for every image. With a standard normal prior it
    costs nothing, which leaves the decoder alone: a model without codes.

    Args:
        image_shape: (C, H, W).
        code_size: D.
    """

    has_codes = False

    def __init__(self, image_shape: tuple[int, int, int], code_size: int) -> None:
        super().__init__()
        self.code_size = code_size

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Distribution:
        return unit_normal(image.new_zeros(len(image), self.code_size))
