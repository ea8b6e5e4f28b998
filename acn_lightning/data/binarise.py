"""Binarises grey images."""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from acn_lightning.data.storage import IN_MEMORY
from acn_lightning.utils.errors import check_choice

BINARISATIONS = ("none", "threshold", "static", "dynamic")


def binarise(
    images: UInt8[Tensor, "size channel height width"],
    how: str,
    seed: int,
    empty: Callable[[torch.Size], Tensor] = IN_MEMORY.empty,
) -> UInt8[Tensor, "size channel height width"]:
    """Makes images of 0 and 255 only. The result is reproducible.

    Args:
        images: grey values, 0 to 255.
        how: "none" leaves them alone; "threshold" sets pixels of 128 or more; "static" and
            "dynamic" set a pixel with its grey value's probability, in one draw that depends only
            on `seed` and the image's row. (`draw_binary` makes the fresh draws of "dynamic".)
        seed: of the draw.
        empty: makes room for the result.

    Raises:
        UsageError: `how` is not one of these.
    """
    check_choice("data.binarisation", how, BINARISATIONS)
    if how == "none":
        return images
    generator, room = torch.Generator().manual_seed(seed), empty(images.shape)
    # In pieces, because the probabilities take four times the memory of the images.
    for some, own in zip(images.split(4096), room.split(4096), strict=True):
        drawn = some >= 128 if how == "threshold" else (some / 255).bernoulli(generator=generator)
        own.copy_(drawn).mul_(255)
    return room


def binarise_alike(
    images: UInt8[Tensor, "size channel height width"], how: str, seed: int
) -> UInt8[Tensor, "size channel height width"]:
    """`binarise` for images that are not rows of a data set. "static" and "dynamic" use one draw
    for all images, so each image's result depends only on that image.

    Raises:
        UsageError: `how` is not one of `BINARISATIONS`.
    """
    if how not in ("static", "dynamic"):
        return binarise(images, how, seed)
    generator = torch.Generator().manual_seed(seed)
    bounds = torch.rand(images.shape[1:], generator=generator) * 255
    return (images > bounds).to(torch.uint8) * 255  # set with its grey value's probability


def draw_binary(image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A fresh sample of binary pixels, each 1 with its grey value's probability."""
    return torch.bernoulli(image)
