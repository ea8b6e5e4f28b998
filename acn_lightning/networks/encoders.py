"""Encoders: an image to the posterior q(z|x) = N(mu(x), I) over its code."""

import importlib
import operator
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from acn_lightning.networks.component import Component, in_float32
from acn_lightning.networks.weights import read_weights, table, take
from acn_lightning.utils.errors import UsageError


class Encoder(Component):
    """Maps images (B, C, H, W) in [0, 1] to a posterior: batch shape (B,), event shape (D,). The
    codes are its means once they have their shape (`shapes.py`).

    Attributes:
        pretrained: names of its parameters whose values come from elsewhere.
    """

    pretrained: Sequence[str] = ()


def unit_normal(mean: Float[Tensor, "... code"]) -> Distribution:
    """N(mean, I): the posterior's variance is fixed, so the mean alone is the code."""
    normal = Normal(mean, torch.ones_like(mean), validate_args=False)
    return Independent(normal, 1, validate_args=False)


class FeatureEncoder:
    """What encoders by way of features share: a `body`, and a linear layer to the mean."""

    body: nn.Module

    def make_mean(self, features: int, code_size: int) -> None:
        self.mean = nn.Linear(features, code_size)
        # By torch's default, codes begin a seventh of the posterior's noise apart. Where no shape
        # holds them, they are drowned in it and teach the decoder nothing.
        nn.init.normal_(self.mean.weight, std=4 / features**0.5)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Distribution:
        features = self.body(2 * image - 1)  # from [0, 1] to [-1, 1]
        return unit_normal(in_float32(self.mean, features.flatten(1)))


class ConvEncoder(FeatureEncoder, Encoder, kind="conv"):
    """VGG-like body (Simonyan and Zisserman, arXiv 1409.1556): pairs of 3 x 3 convolutions, the
    resolution halved and the channels doubled between them until a side is 4 or less; then one
    linear layer to the mean.

    Group normalisation in place of batch normalisation: a code depends on its own image alone,
    so that a code stored while training equals the one that the same weights give afterwards.

    Args:
        image_shape: (C, H, W).
        code_size: D.
        channels: of the first stage; a multiple of 8. With null, `acn fit` chooses: see `budget`.

    Raises:
        UsageError: `channels` is no positive multiple of 8.
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


class ImportedEncoder(FeatureEncoder, Encoder, kind="import"):
    """A network of the user's own, or of another package, for the features; then one linear layer
    to the mean, which is always trained here.

    A code that is stored while training should be the one that the same weights give afterwards:
    where the network has batch normalisation or dropout, freeze it (`finetune.freeze`), or have the
    bank encoded anew at each boundary (`refresh.encode`), which is done in evaluation mode.

    Args:
        image_shape: (C, H, W).
        code_size: D.
        path: package.module:Name of an `nn.Module`, or of a function that returns one. It is given
            images (B, C, H, W) in [-1, 1] and returns features (B, ...). Modules in the current
            folder are found as well.
        arguments: that it is made with.
        weights: a file for it, see `read_weights`; what does not fit begins anew, with a warning.

    Raises:
        UsageError: there is no such network, it cannot be made so, does not take the images, or
            nothing of the weights fits.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        code_size: int,
        *,
        path: str = "",
        arguments: dict[str, Any] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.body = make(path, arguments or {})
        if weights is not None:
            taken = take(self.body, read_weights(weights))
            if not taken.names:
                raise UsageError(f"model.encoder.weights: nothing of {weights} fits {path}.")
            own = dict(self.body.named_parameters())
            self.pretrained = [f"body.{name}" for name in taken.names if name in own]
            if taken.anew or taken.left:
                found = "\n".join([f"weights of {weights} for {path}", *table(taken)])
                rank_zero_warn(found)
        try:
            with torch.no_grad(), isolate_rng(include_cuda=False):
                features = self.body.eval()(torch.zeros(2, *image_shape)).flatten(1).shape[1]
        except Exception as error:  # of whatever kind a network of others has
            size = " x ".join(map(str, image_shape))
            raise UsageError(
                f"model.encoder.path: {path} does not make features (B, ...) of images of {size}: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error
        self.body.train()
        self.make_mean(features, code_size)


def make(path: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network at package.module:Name.

    Raises:
        UsageError: there is none, or it cannot be made so.
    """
    package, colon, name = path.partition(":")
    if not (package and colon and name):
        raise UsageError(f"model.encoder.path: '{path}' is no package.module:Name.")
    here = str(Path.cwd())
    try:
        sys.path.append(here)  # behind all that is installed
        found = operator.attrgetter(name)(importlib.import_module(package))
        network = found(**arguments)
    except Exception as error:  # the module is run, and may raise any
        said = " ".join(str(error).split())[:300]
        raise UsageError(f"model.encoder.path: {path} cannot be made: {said}") from error
    finally:
        sys.path.remove(here)
    if not isinstance(network, nn.Module):
        raise UsageError(f"model.encoder.path: {path} makes no nn.Module.")
    return network


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


def check_channels(name: str, channels: int | None) -> int:
    """The channels.

    Raises:
        UsageError: they are left open, or no positive multiple of the group that is normalised
            together.
    """
    if channels is None:
        raise UsageError(f"{name}: null is for acn fit, which chooses: say how many, {name}=16.")
    if channels < GROUP or channels % GROUP:
        raise UsageError(f"{name}: {channels} is no positive multiple of {GROUP}.")
    return channels


def conv(inputs: int, outputs: int) -> list[nn.Module]:
    """One 3 x 3 convolution that keeps the resolution, normalised and rectified."""
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(outputs // GROUP, outputs),
        nn.ReLU(),
    ]
