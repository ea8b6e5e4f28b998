"""Pictures of what a model does, as Pillow images."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.distributions import Distribution


def expected(images: Distribution) -> Tensor:
    """Their mean where it is known, else a sample."""
    try:
        return images.mean
    except NotImplementedError:
        return images.sample()


def thumbnails(
    images: UInt8[Tensor, "size channel height width"], side: int
) -> Iterator[Image.Image]:
    """Pictures of these images, the longest side at most `side` pixels."""
    for image in images.permute(0, 2, 3, 1).numpy():
        pixels = image[..., 0] if image.shape[2] == 1 else image
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        picture.thumbnail((side, side))
        yield picture


def grid(
    rows: Float[Tensor, "rows columns channel height width"], apart: int | None = None
) -> Image.Image:
    """Images in rows and columns on white, enlarged until one has about 56 pixels a side.

    Args:
        rows: pixel values 0 to 1; 1 or 3 channels.
        apart: a wider gap follows this many columns.
    """
    height, columns, channels, tall, wide = rows.shape
    pad, gap = 2, 10
    factor = max(1, round(56 / max(tall, wide)))
    pixels = rows.clamp(0, 1).mul(255).round().byte().cpu()
    pixels = pixels.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    tall, wide = tall * factor, wide * factor
    canvas = torch.full(
        (
            channels,
            height * (tall + pad) + pad,
            columns * (wide + pad) + pad + (gap if apart else 0),
        ),
        255,
        dtype=torch.uint8,
    )
    for i, row in enumerate(pixels):
        for j, image in enumerate(row):
            top = pad + i * (tall + pad)
            left = pad + j * (wide + pad) + (gap if apart and j >= apart else 0)
            canvas[:, top : top + tall, left : left + wide] = image
    array = canvas.permute(1, 2, 0).numpy()
    return Image.fromarray(array.squeeze(2) if channels == 1 else array)
