"""Makes a `Codec` of a trained model, and identifies the model."""

import hashlib
import json
from collections.abc import Callable, Collection
from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from acn_lightning.compression.codec import Codec, batch_of, pixels_of
from acn_lightning.compression.latents import FINE, ExactPrior
from acn_lightning.compression.pixels import CODED
from acn_lightning.module import ACN
from acn_lightning.networks.base import Component
from acn_lightning.networks.decoders import ConvDecoder, Decoder, PixelCNNDecoder
from acn_lightning.networks.encoders import ConvEncoder
from acn_lightning.networks.exact import LIMITS, TABLES, exactly, mean_square, root, rounded, settle
from acn_lightning.networks.layers import eval_mode
from acn_lightning.networks.priors import MixturePrior, StandardNormalPrior
from acn_lightning.networks.shapes import FreeShape, Shape, SphereShape, WhiteShape
from acn_lightning.utils.errors import UsageError, check_choice

ARITHMETICS = ("exact", "float")

SHAPES = (FreeShape, SphereShape, WhiteShape)


def codec_of(module: ACN, nearest: int, arithmetic: str = "exact") -> Codec:
    """A trained model as a codec, on the CPU.

    Args:
        module: a trained module.
        nearest: number of stored codes among which the unconditional prior's is chosen.
        arithmetic: of the encoder: "exact", or "float" for an encoder that has no exact form. Such
            files can be read only where PyTorch computes the same numbers. All else is exact.

    Raises:
        UsageError: a part of the model has no exact form.
    """
    check_choice("arithmetic", arithmetic, ARITHMETICS)
    check_finite(module)
    check_part(module.prior, "prior", (MixturePrior, StandardNormalPrior))
    check_part(module.decoder, "decoder", (ConvDecoder, PixelCNNDecoder))
    check_part(module.decoder.likelihood, "likelihood", CODED)
    decoder = cast(Decoder, exactly(module.decoder))
    mixes = isinstance(module.prior, MixturePrior)
    prior = cast(MixturePrior, exactly(module.prior)) if mixes else None
    codes = settle(module.bank.codes[module.bank.rows].detach().cpu().double())
    # Farther codes, which no shape makes, would make distances inexact.
    found = ExactPrior(prior, codes.clamp(-64, 64), nearest)
    return Codec(encoder_of(module, arithmetic), found, decoder)


def check_finite(module: ACN) -> None:
    """Checks that the model's numbers are finite.

    Raises:
        UsageError: some are not.
    """
    tensors = [*module.state_dict().items(), ("codes", module.bank.codes)]
    for name, tensor in tensors:
        metric = name.startswith("means.") or name.startswith("knn_accuracy.")
        if not metric and not bool(tensor.isfinite().all()):
            raise UsageError(f"The checkpoint's {name} holds numbers that are not finite.")


def check_part(part: Component, name: str, known: Collection[type]) -> None:
    """Checks that a part is of a built-in kind. A subclass may compute anything.

    Raises:
        UsageError: it is not.
    """
    if type(part) not in known:
        raise UsageError(
            f"model.{name}.kind: {type(part).__name__} cannot be used to compress. Files need "
            "parts that compute the same numbers on every machine; the built-in ones do."
        )


# ---------------------------------------------------------------- encoder


def encoder_of(module: ACN, arithmetic: str) -> Callable[[Tensor], Tensor]:
    """The function from images to settled codes."""
    if arithmetic == "float":

        def encode_float(images: UInt8[Tensor, "n channel height width"]) -> Tensor:
            with eval_mode(module):  # one by one, as results may depend on the batch
                each = images.to(module.device).split(1)
                codes = torch.cat([module(image.float() / 255).mean for image in each])
            return settle(codes.cpu().double())

        return encode_float
    if type(module.encoder) is not ConvEncoder or type(module.shape) not in SHAPES:
        raise UsageError(
            f"model.encoder.kind: {type(module.encoder).__name__} with "
            f"{type(module.shape).__name__} has no exact form. With arithmetic=float, a file can "
            "be read only in an environment like this one."
        )
    encoder, shape = exactly(module.encoder), exact_shape(module.shape)
    batch = batch_of(module.decoder)

    @torch.no_grad()
    def encode(images: UInt8[Tensor, "n channel height width"]) -> Float[Tensor, "n code"]:
        means = [encoder(pixels_of(some)).mean for some in images.split(batch)]
        return shape(torch.cat(means))

    return encode


def exact_shape(shape: Shape) -> Callable[[Tensor], Tensor]:
    """A shape's function from means to codes, in exact arithmetic."""
    if isinstance(shape, WhiteShape):
        centre = rounded(shape.mean, 16)
        deviation = root(shape.variance.cpu().double().clamp(min=0) + 1e-12)
        factor = torch.full_like(deviation, shape.scale) / deviation
        return lambda mean: settle((mean - centre) * factor)
    if isinstance(shape, SphereShape):
        radius = shape.radius

        def on_sphere(mean: Tensor) -> Tensor:
            inside = mean.clamp(-LIMITS[0], LIMITS[0])
            norm = root(mean_square(inside) * mean.shape[1]).clamp(min=1e-12)
            return settle(radius * (inside / norm))

        return on_sphere
    return settle


# ---------------------------------------------------------------- identity


def fingerprint(module: ACN, image_shape: tuple[int, ...]) -> bytes:
    """32 bytes that identify what a file depends on: the kinds of the networks, their weights and
    the stored codes. Options that matter otherwise show in the names or shapes of weights."""
    shape, decoder = module.shape, module.decoder
    parts = (module.encoder, shape, module.prior, decoder, decoder.likelihood)
    described: list[Any] = [type(part).__name__ for part in parts]
    described += [getattr(shape, "scale", None), getattr(shape, "radius", None), *image_shape]
    digest = hashlib.sha256(json.dumps(described).encode())
    tensors = {
        f"{name}.{key}": tensor
        for name in ("encoder", "shape", "prior", "decoder")
        for key, tensor in getattr(module, name).state_dict().items()
    }
    tensors["codes"] = module.bank.codes[module.bank.rows]
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().float().contiguous().numpy()
        digest.update(f"{name} {list(tensor.shape)}\n".encode() + values.astype("<f4").tobytes())
    return digest.digest()


def probe(codec: Codec, image_shape: tuple[int, ...]) -> bytes:
    """8 bytes of what this environment computes for two fixed images."""
    count = 2 * image_shape[0] * image_shape[1] * image_shape[2]
    noise = hashlib.shake_128(b"acn").digest(count)
    images = torch.frombuffer(bytearray(noise), dtype=torch.uint8).view(2, *image_shape)
    if codec.scale == 255:
        images = images // 128 * 255
    codes = codec.encode(images)
    z = FINE.value(FINE.nearest(codes))
    with torch.no_grad():
        parameters = codec.decoder.describe(z, pixels_of(images))
        numbers = [codes, parameters, *codec.prior.given(codes)]
    numbers += [table().values.double() for table in TABLES]
    numbers.append(torch.tensor(codec.posterior.table).double())
    digest = hashlib.sha256()
    for one in numbers:
        digest.update(one.contiguous().numpy().astype("<f8").tobytes())
    return digest.digest()[:8]
