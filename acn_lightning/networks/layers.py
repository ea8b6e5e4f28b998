"""Layers and helpers that several networks share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from acn_lightning.networks.convolutions import Conv3x3, UpsamplingConv3x3
from acn_lightning.utils.errors import UsageError


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Runs the block in evaluation mode and without gradients, then restores each part's mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def in_float32(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Runs a layer in float32, even under autocast: a network's last one, whose outputs are stored,
    searched or summed over thousands of pixels, which needs more than eight bits of precision. On
    an NVIDIA GPU convolutions still round what they multiply to TF32's ten bits and a sign, unless
    `torch.backends.cudnn.allow_tf32` is off."""
    with torch.autocast(inputs.device.type, enabled=False):
        outputs: Tensor = layer(inputs.to(next(layer.parameters(), inputs).dtype))
    return outputs


GROUP = 8
"""Channels per group in group normalisation."""

MOST_CHANNELS = 16_384
"""Far more than any network here has."""


def check_channels(name: str, channels: int | None) -> int:
    """Checks a number of channels and returns it.

    Raises:
        UsageError: it is None, or not a multiple of `GROUP` in range.
    """
    if channels is None:
        raise UsageError(f"{name}: null works only with acn fit, which chooses. Set it: {name}=16.")
    if not GROUP <= channels <= MOST_CHANNELS or channels % GROUP:
        raise UsageError(
            f"{name}: {channels} is not a multiple of {GROUP} from {GROUP} to {MOST_CHANNELS:,}."
        )
    return channels


def conv(inputs: int, outputs: int, *, upsampling: bool = False) -> list[nn.Module]:
    """A 3 x 3 convolution that keeps the resolution, or doubles it by upsampling first; group
    normalisation and a ReLU."""
    return [
        (UpsamplingConv3x3 if upsampling else Conv3x3)(inputs, outputs),
        nn.GroupNorm(outputs // GROUP, outputs),
        nn.ReLU(inplace=True),  # no gradient needs the normalisation's output
    ]


def upsampling(code_size: int, size: tuple[int, ...], channels: int) -> list[nn.Module]:
    """Layers from codes (B, D) to a feature map (B, `channels`, H, W): `ConvEncoder` mirrored."""
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
        size = sizes.pop()
        doubled = size == (2 * height, 2 * wide)
        layers += [
            *conv(width, width // 2),
            # Numbers in the names of weights stay as they were.
            nn.Identity() if doubled else nn.Upsample(size=size),
            *conv(width // 2, width // 2, upsampling=doubled),
        ]
        width //= 2
        height, wide = size
    return layers
