"""The same images by general compressors."""

import bz2
import io
import lzma
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, features
from torch import Tensor

from acn_lightning.inference.pictures import as_picture
from acn_lightning.utils.optional import package_if_installed
from acn_lightning.utils.progress import progress_bar

SAMPLE = 1000
"""Images of which each gets a file of its own; more are estimated from these."""

MAX_SIDE = 16_383
"""The longest side that WebP can have."""


class Other(NamedTuple):
    """What another compressor takes.

    Attributes:
        name: of the compressor.
        size: bytes.
        estimated: whether it was estimated from a sample.
    """

    name: str
    size: int
    estimated: bool = False


def other_sizes(images: UInt8[Tensor, "n channel height width"], binary: bool) -> list[Other]:
    """Sizes by other lossless compressors, the smallest first.

    Args:
        images: what to compress.
        binary: whether pixels are 0 or 255; each compressor is then given bits.
    """
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    raw = (np.packbits(arrays > 0) if binary else arrays).tobytes()
    sizes = [Other(f"{name}, solid", len(code(raw))) for name, code in streams().items()]
    coders = pictures(binary)
    every = max(1, len(arrays) // SAMPLE)
    with progress_bar("other compressors", "file", total=2 * len(coders)) as shown:
        for name, code in coders.items():
            sizes.append(Other(f"{name}, solid", sum(len(code(one)) for one in mosaics(arrays))))
            shown.update()
            some = sum(len(code(as_picture(one))) for one in arrays[::every][:SAMPLE])
            share = len(arrays) / len(arrays[::every][:SAMPLE])
            sizes.append(Other(f"{name}, one file each", round(some * share), share > 1))
            shown.update()
    return sorted(sizes, key=lambda one: one.size)


def streams() -> dict[str, Callable[[bytes], bytes]]:
    """Compressors of bytes."""
    found: dict[str, Callable[[bytes], bytes]] = {
        "xz": lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),
        "bzip2": lambda raw: bz2.compress(raw, 9),
    }
    if zstandard := package_if_installed("zstandard"):
        found["zstd"] = lambda raw: zstandard.ZstdCompressor(level=22).compress(raw)
    return found


def pictures(binary: bool) -> dict[str, Callable[[Image.Image], bytes]]:
    """Compressors of pictures."""

    def png(image: Image.Image) -> bytes:
        bits = binary and image.mode == "L"  # black and white colours have no mode of their own
        return saved(image.convert("1") if bits else image, "PNG", optimize=True)

    found: dict[str, Callable[[Image.Image], bytes]] = {"PNG": png}
    if features.check("webp"):
        found["WebP lossless"] = lambda image: saved(
            image.convert("RGB"), "WEBP", lossless=True, quality=100, method=6
        )
    if package_if_installed("pillow_jxl"):  # it registers the format
        found["JPEG XL lossless"] = lambda image: saved(image, "JXL", lossless=True, effort=9)
    return found


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def mosaics(arrays: np.ndarray) -> Iterator[Image.Image]:
    """All images side by side, in as few pictures as WebP can hold."""
    count, height, width, channels = arrays.shape
    across = min(max(1, MAX_SIDE // width), int(np.ceil(np.sqrt(count))))
    down = min(max(1, MAX_SIDE // height), -(-count // across))
    for start in range(0, count, across * down):
        some = arrays[start : start + across * down]
        rows = -(-len(some) // across)
        whole = np.zeros((rows * across, height, width, channels), np.uint8)
        whole[: len(some)] = some
        grid = whole.reshape(rows, across, height, width, channels).swapaxes(1, 2)
        yield as_picture(grid.reshape(rows * height, across * width, channels))
