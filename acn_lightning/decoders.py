"""Decoders: a code z to the distribution r(x|z) over images.

A decoder returns a torch `Distribution`, and nobody asks more of it than `log_prob`, `sample` and
`mean`. An autoregressive decoder fits in the same place: the distribution it returns holds z and
runs the network over the image within `log_prob`, pixel by pixel within `sample`.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent

from acn_lightning.encoders import check_channels, conv
from acn_lightning.networks import Component


class Decoder(Component):
    """Maps codes (B, D) to r(x|z): batch shape (B,), event shape (C, H, W)."""


class ConvDecoder(Decoder, kind="conv"):
    """Independent Bernoulli pixels; the mirror image of `ConvEncoder`.

    Args:
        image_shape: (C, H, W).
        code_size: D.
        channels: of the last stage, before the pixels; a multiple of 8.

    Raises:
        UsageError: `channels` is no positive multiple of 8.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], code_size: int, *, channels: int = 32
    ) -> None:
        super().__init__()
        check_channels("model.decoder.channels", channels)
        pixels, *size = image_shape
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
        self.body = nn.Sequential(*layers, nn.Conv2d(width, pixels, 3, padding=1))

    def forward(self, z: Float[Tensor, "batch code"]) -> Distribution:
        logits = self.body(z).float()
        return Independent(Bernoulli(logits=logits, validate_args=False), 3, validate_args=False)
