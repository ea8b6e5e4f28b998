"""Pictures of a model's results, as Pillow images."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor
from torch.distributions import Distribution


def pixels_of(images: Distribution, noise: bool = False) -> Tensor:
    """What to show of a decoder's images: their mean, or a sample if they have no closed-form mean
    (an autoregressive decoder, or categorical colours) or `noise` is set.

    Raises:
        ValueError, RuntimeError: the model predicts NaN or infinity.
    """
    if not noise:
        with suppress(NotImplementedError):
            mean = images.mean
            if not mean.isfinite().all():
                raise ValueError("the mean of a pixel is NaN")
            return mean
    return images.sample()


def thumbnails(
    images: UInt8[Tensor, "size channel height width"], side: int
) -> Iterator[Image.Image]:
    """Pictures of these images, with a longest side of at most `side` pixels."""
    for image in images.permute(0, 2, 3, 1).numpy():
        pixels = image[..., 0] if image.shape[2] == 1 else image
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        picture.thumbnail((side, side))
        yield picture


COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
    "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#4b5563",
)  # fmt: skip
"""Colours of the first ten classes. The others get hues far from each other."""


def colour(label: int) -> str:
    """The colour of a class; grey for -1, no class."""
    if label < 0:
        return "#999999"
    return COLOURS[label] if label < len(COLOURS) else f"hsl({label * 137.508 % 360:.0f},65%,45%)"


def scatter(
    places: Float[Tensor, "size 2"], labels: Sequence[int], classes: Sequence[str], side: int = 640
) -> Image.Image:
    """Points coloured by class, with a legend of up to twenty classes."""
    scale = 2  # drawn larger, then shrunk, for smooth edges
    low, high = places.min(0).values, places.max(0).values
    span = float((high - low).max()) or 1.0
    margin, radius = 12 * scale, 3 * scale
    middle = (places - (low + high) / 2) / span * (side * scale - 2 * margin) + side * scale / 2
    shown = [(label, name) for label, name in enumerate(classes) if label in set(labels)][:20]
    width = side + (150 if shown else 0)
    picture = Image.new("RGB", (width * scale, side * scale), "white")
    draw = ImageDraw.Draw(picture)
    for (x, y), label in zip(middle.tolist(), labels, strict=True):
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=colour(label), outline="white")
    for row, (label, name) in enumerate(shown):
        x, y = (side + 10) * scale, (20 + 18 * row) * scale
        draw.ellipse((x, y, x + 10 * scale, y + 10 * scale), fill=colour(label))
        draw.text((x + 16 * scale, y - scale), name[:18], fill="black", font_size=12 * scale)
    return picture.resize((width, side), Image.Resampling.LANCZOS)


def grid(
    rows: Float[Tensor, "rows columns channel height width"], apart: int | None = None
) -> Image.Image:
    """Images in rows and columns on white, each enlarged to about 56 pixels a side.

    Args:
        rows: pixel values from 0 to 1; 1 or 3 channels.
        apart: number of columns before a wider gap; None for no gap.
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
    return as_picture(canvas.permute(1, 2, 0).numpy())


def as_picture(array: np.ndarray) -> Image.Image:
    """An array (H, W, C) of bytes, C = 1 or 3, as a picture."""
    return Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)


def write_png(image: UInt8[Tensor, "channel height width"], path: Path) -> None:
    """Writes an image to a new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        as_picture(image.permute(1, 2, 0).numpy()).save(file, "PNG")
