"""Encoders: an image to the posterior q(z|x) = N(mu(x), I) over its code."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from acn_lightning.errors import UsageError
from acn_lightning.networks import Component


class Encoder(Component):
    """Maps images (B, C, H, W) in [0, 1] to a posterior: batch shape (B,), event shape (D,)."""

    def calibrate(self, images: Float[Tensor, "batch channel height width"]) -> None:
        """Looks at some training images before training; may adapt its first weights to them."""


def unit_normal(mean: Float[Tensor, "... code"]) -> Distribution:
    """N(mean, I): the posterior's variance is fixed, so the mean alone is the code."""
    # float32, also where autocast computed the mean in less: it is stored and searched for.
    mean = mean.float()
    normal = Normal(mean, torch.ones_like(mean), validate_args=False)
    return Independent(normal, 1, validate_args=False)


class ConvEncoder(Encoder, kind="conv"):
    """VGG-like body (Simonyan and Zisserman, arXiv 1409.1556): pairs of 3 x 3 convolutions, the
    resolution halved and the channels doubled between them until a side is 4 or less; then one
    linear layer to the mean.

    Group normalisation in place of batch normalisation: a code depends on its own image alone,
    so that a code stored while training equals the one that the same weights give afterwards.

    Args:
        image_shape: (C, H, W).
        code_size: D.
        channels: of the first stage; a multiple of 8.
        spread: standard deviation of the codes of different images before training, in units of
            the posterior's noise; in each dimension the same, see `calibrate`. A decoder that could
            do without the code needs it well above 1, or it never begins to listen.

    Raises:
        UsageError: `channels` is no positive multiple of 8; `spread` is not above 0.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        code_size: int,
        *,
        channels: int = 32,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        check_channels("model.encoder.channels", channels)
        if not 0 < spread < math.inf:
            raise UsageError(f"model.encoder.spread: {spread} is not above 0.")
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
        self.mean = nn.Linear(width * height * wide, code_size)
        self.spread = spread

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Distribution:
        return unit_normal(self.mean(self.features(image)))

    def features(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch feature"]:
        """What the linear layer makes the mean of."""
        features: Tensor = self.body(2 * image - 1)  # from [0, 1] to [-1, 1]
        return features

    @torch.no_grad()
    def calibrate(self, images: Float[Tensor, "batch channel height width"]) -> None:
        """Makes the linear layer a whitening: the dimensions of the code begin as the principal
        components of the body's features, each with mean 0 and standard deviation `spread`.

        By torch's default codes begin a seventh of the posterior's noise apart: drowned in it they
        teach the decoder nothing, and on digits training stands still for its first 30 epochs. And
        a random projection begins with a few wide dimensions and many narrow ones. A wide one is
        cheap to an ACN, as a neighbour tells where an image lies on it, and a narrow one is noise
        that does not pay: those never come to life.
        """
        features = torch.cat([self.features(piece) for piece in images.split(256)]).double()
        centre = features.mean(0)
        _, sizes, directions = torch.linalg.svd(features - centre, full_matrices=False)
        deviations = sizes / len(features) ** 0.5
        # Of as many directions as the features vary in; any other dimension stays as it is.
        alive = int((deviations > 1e-4 * deviations[0]).sum())
        dims = min(alive, self.mean.out_features)
        whitening = self.spread * directions[:dims] / deviations[:dims, None]
        self.mean.weight[:dims] = whitening.float()
        self.mean.bias[:dims] = -(whitening @ centre).float()


class NoEncoder(Encoder, kind="none"):
    """The code says nothing: q(z|x) = N(0, I) for every image. With a standard normal prior it
    costs nothing either, and what remains is the decoder alone, a model without codes.

    Args:
        image_shape: (C, H, W).
        code_size: D.
    """

    def __init__(self, image_shape: tuple[int, int, int], code_size: int) -> None:
        super().__init__()
        self.code_size = code_size

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Distribution:
        return unit_normal(image.new_zeros(len(image), self.code_size))


GROUP = 8
"""Channels that are normalised together."""


def check_channels(name: str, channels: int) -> None:
    """Raises:
    UsageError: `channels` is no positive multiple of the group that is normalised together.
    """
    if channels < GROUP or channels % GROUP:
        raise UsageError(f"{name}: {channels} is no positive multiple of {GROUP}.")


def conv(inputs: int, outputs: int) -> list[nn.Module]:
    """One 3 x 3 convolution that keeps the resolution, normalised and rectified."""
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(outputs // GROUP, outputs),
        nn.ReLU(),
    ]
