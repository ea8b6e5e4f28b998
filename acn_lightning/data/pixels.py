"""Converts an image file to the pixels that networks take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from acn_lightning.data.opener import (
    COMPLAINT,
    MAX_PIXELS,
    PILLOWS_LIMIT,
    is_animated,
    is_deep,
    is_reduced,
    open_image,
    orientation,
    tiles,
    turned,
)
from acn_lightning.utils.errors import UnreadableError, UsageError
from acn_lightning.utils.memory import Room, quarter_of_memory

if TYPE_CHECKING:
    from PIL.Image import Image

LYING = 5
"""The first `orientation` by which an image is shown on its side."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners use of 16."""

AUTO = "auto"
"""The value of `data.image_size` that stands for `USUAL`, at most."""

USUAL = (32, 32)
"""A (height, width) that is quick to train on."""

BYTES = 16
"""What a pixel takes while it is decoded: as decoded, converted, and laid on a background."""

TRANSPARENT, FRAMES, GREYED, DEEP, REDUCED, RESIZED = (
    "transparent", "frames", "greyed", "deep", "reduced", "resized",
)  # fmt: skip
"""What reading may change in an image."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How image files become pixels.

    Attributes:
        image_size: (height, width) to resize to; None keeps an image's size.
        channels: 1 for grey, 3 for RGB; None until the images have been looked at.
        background: colour that shows through transparent pixels, by a name that Pillow knows.
        bits: bits used of 16-bit grey values; None until the images have been looked at.
        max_pixels: larger images cannot be read.
        at_most: whether images that share a size which is not above `image_size` keep it.

    Raises:
        UsageError: an option is out of range.
    """

    image_size: Sequence[int] | None = None
    channels: int | None = None
    background: str = "white"
    bits: int | None = None
    max_pixels: int = MAX_PIXELS
    at_most: bool = False

    @classmethod
    def of(cls, image_size: Any, **others: Any) -> "Form":
        """The form that a source's options name.

        Args:
            image_size: as for `parse_size`.
            others: the other options.

        Raises:
            UsageError: an option is out of range.
        """
        return cls(image_size=parse_size(image_size), at_most=image_size == AUTO, **others)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be found in the images."""
        return bool(self.channels and self.bits and not self.at_most)

    def with_size_of(self, sizes: Iterable[Sequence[int] | None]) -> "Form":
        """The form once the (height, width) of all images is known."""
        if not self.at_most or self.image_size is None:
            return self
        every = {tuple(size or ()) for size in sizes}
        own = every.pop() if len(every) == 1 else ()
        keeps = own and all(side <= most for side, most in zip(own, self.image_size, strict=True))
        return replace(self, image_size=own if keeps else self.image_size, at_most=False)

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3) or isinstance(self.channels, bool):
            raise UsageError(f"data.channels: {self.channels} is neither 1 (grey) nor 3 (RGB).")
        if self.bits is not None and not 8 <= self.bits <= 16:
            raise UsageError(f"data.bits: {self.bits} is not from 8 to 16.")
        if not 1 <= self.max_pixels <= PILLOWS_LIMIT:
            raise UsageError(
                f"data.max_pixels: {self.max_pixels} is not from 1 to {PILLOWS_LIMIT}."
            )
        _ = self.ground

    @property
    def ground(self) -> tuple[int, ...]:
        """The background as (red, green, blue).

        Raises:
            UsageError: there is no such colour.
        """
        from PIL.ImageColor import getrgb

        try:
            ground = getrgb(self.background)[:3]
            if max(ground) > 255:
                raise ValueError
            return ground
        except ValueError:
            raise UsageError(
                f"data.background: '{self.background}' is not a colour. Use a name such "
                "as white, or rgb(240,240,240)."
            ) from None


@cache
def room() -> Room:
    """Room for the pixels that all threads decode at once. Many threads with a large photo each
    would otherwise fill the memory."""
    return Room(quarter_of_memory() // BYTES)


class Glance(NamedTuple):
    """What must be known of all images before one can be converted.

    Attributes:
        grey: whether it has no colour.
        brightest: its brightest pixel, if that tells how many of its 16 bits are used; else 0.
        size: its (height, width) as shown; None if that does not matter.
    """

    grey: bool
    brightest: int = 0
    size: tuple[int, int] | None = None


class Picture(NamedTuple):
    """An image that has been read.

    Attributes:
        pixels: uint8, (H, W) for 1 channel or (H, W, 3) for 3.
        size: (width, height) in the file, as shown.
        changes: what was changed.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    changes: tuple[str, ...]


def glance(path: Path, form: Form) -> Glance:
    """Looks at a file: at its header only, unless it has 16-bit grey values whose range is to be
    found.

    Raises:
        UnreadableError: the file cannot be read as an image.
    """
    with open_image(path, form.max_pixels) as image:
        return glance_at(image, form, path)


def glance_at(image: "Image", form: Form, name: object) -> Glance:
    """`glance` at an image that is open.

    Raises:
        UnreadableError: its grey values are no 16-bit numbers.
    """
    size = size_as_shown(image) if form.at_most else None
    if form.bits is None and is_deep(image) and not has_scale(image):
        with room().taken(image.width * image.height):
            return Glance(True, int(deep_values(image, name).max()), size)
    return Glance(is_grey(image), size=size)


def size_as_shown(image: "Image") -> tuple[int, int]:
    """(height, width) of an image that is turned as its `orientation` says."""
    # Pillow itself turns TIFFs, and has turned their size before it has their pixels.
    upright = image.format == "TIFF" or orientation(image) < LYING
    return (image.height, image.width) if upright else (image.width, image.height)


def read_picture(path: Path, form: Form) -> Picture:
    """Reads an image: its first frame, upright, laid on the background where it is transparent. It
    is resized to cover the size and cropped evenly on both sides, so nothing is stretched.

    Args:
        path: its file.
        form: with channels, and bits if there are 16-bit grey values.

    Raises:
        UnreadableError: the file cannot be read as an image.
    """
    with open_image(path, form.max_pixels) as image:
        return to_picture(image, form, path)


def to_picture(image: "Image", form: Form, name: object) -> Picture:
    """What `read_picture` makes of an image that is open.

    Args:
        image: its current frame is taken.
        form: as there.
        name: names the image in errors.

    Raises:
        UnreadableError: its pixels are no whole numbers of 8 or 16 bits.
    """
    with room().taken(image.width * image.height):
        scaled = has_scale(image)
        changes = {
            FRAMES: is_animated(image),
            REDUCED: is_reduced(image) or (scaled and is_deep(image)),
            DEEP: is_deep(image) and not scaled,
        }
        bits = 16 if scaled else form.bits or 16
        image.load()
        whole = eight_bits(image, name, bits) if is_deep(image) else image
        whole = turned(whole, orientation(image))
        changes[GREYED] = form.channels == 1 and not is_grey(whole)
        opaque = lay_on(whole, form.ground)
        changes[TRANSPARENT] = opaque is not whole
        pixels = fit_image(opaque, form.image_size, form.channels or 3)
        changes[RESIZED] = pixels.shape[:2] != (whole.height, whole.width)
        told = tuple(change for change, made in changes.items() if made)
        return Picture(pixels, whole.size, told)


def is_grey(image: "Image") -> bool:
    """Whether the image has no colour."""
    return image.mode in ("1", "L", "LA") or is_deep(image)


def has_scale(image: "Image") -> bool:
    """Whether the file says what its white is, by which Pillow has scaled it to 16 bits. Asked
    before the pixels are decoded."""
    return any(tile[0].startswith("ppm") for tile in tiles(image))


def deep_values(image: "Image", name: object) -> np.ndarray:
    """The grey values of an image of more than 8 bits, uint16 (H, W).

    Raises:
        UnreadableError: they are not whole numbers of 16 bits.
    """
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise UnreadableError(
            f"{name}{COMPLAINT}: its pixels are not whole numbers from "
            "0 to 65535, so their white is unknown. Convert it to 8 or 16 bits."
        )
    return values.astype(np.uint16, copy=False)


def eight_bits(image: "Image", name: object, bits: int) -> "Image":
    """A 16-bit grey image in 8 bits, with its transparency.

    Raises:
        UnreadableError: a value takes more than `bits` bits, or is no 16-bit number.
    """
    from PIL import Image

    values, white = deep_values(image, name), 2**bits - 1
    if values.max() > white:
        raise UnreadableError(
            f"{name}{COMPLAINT}: its brightest pixel is "
            f"{values.max():,}, and {bits} bits hold {white:,} at most (data.bits)."
        )
    scaled = values.astype(np.uint32)
    scaled *= 255  # in place: such an image may be large
    scaled //= white
    grey = Image.fromarray(scaled.astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        opaque = (values != clear) * np.uint8(255)
        grey.putalpha(Image.fromarray(opaque))
    return grey


def lay_on(image: "Image", ground: tuple[int, ...]) -> "Image":
    """The image on a ground of one colour; the same object if no pixel is transparent."""
    from PIL import Image

    if image.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in image.info:
        return image
    layer = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    if layer.getchannel("A").getextrema() == (255, 255):
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), layer).convert("RGB")


def fit_image(image: "Image", image_size: Sequence[int] | None, channels: int) -> np.ndarray:
    """An image's pixels with the given size and channels, in the form of `Picture`."""
    from PIL import ImageOps

    image = image.convert("L" if channels == 1 else "RGB")
    if image_size is not None:
        height, width = image_size
        image = ImageOps.fit(image, (width, height))
    return np.asarray(image)


def parse_size(value: Any) -> tuple[int, int] | None:
    """Parses [height, width], or one number for both. `AUTO` is `USUAL`.

    Raises:
        UsageError: it is none of these.
    """
    if value is None:
        return None
    if value == AUTO:
        return USUAL
    sides = (
        [value, value]
        if isinstance(value, int)
        else list(value)
        if isinstance(value, list | tuple)
        else []
    )
    if len(sides) != 2 or not all(type(side) is int and 0 < side <= 4096 for side in sides):
        raise UsageError(
            f"data.image_size: {value!r} is neither a number nor [height,width], from 1 to 4096, "
            f"nor {AUTO}."
        )
    return sides[0], sides[1]
