"""The one door through which image files come in."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acn_lightning.utils.errors import UnreadableError, foreign
from acn_lightning.utils.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow decodes by itself. Others, such as EPS, would start another program."""

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Suffixes of image files, in lower case."""

MAX_PIXELS = 89_478_485
"""Default for the most pixels of an image, at which Pillow warns."""

PILLOWS_LIMIT = 2 * MAX_PIXELS
"""Pillow refuses images of more pixels."""

COMPLAINT = " cannot be read as an image"

ORIENTATION = 0x0112
"""The EXIF tag that says how to turn a photo."""


@contextmanager
def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator["ImageFile"]:
    """Opens the image in a regular file. Its pixels are decoded within the `with` block, where
    everything that a decoder raises is an `UnreadableError` too.

    Args:
        path: file of one of `FORMATS`, whatever its suffix.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        UnreadableError: it is no regular file, not an image, damaged or too large.
        UsageError: it needs more memory than there is.
        OSError: the machine failed, so other files would fail too.
    """
    from PIL import Image, UnidentifiedImageError

    name = printable(path)
    complaint = name + COMPLAINT
    with foreign(complaint, name):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableError(f"{complaint}: it is not a regular file.")
        with open(path, "rb", opener=open_at_once) as file:
            try:
                image = Image.open(file, formats=FORMATS)
            except UnidentifiedImageError as error:
                known = ", ".join(FORMATS)
                raise UnreadableError(f"{complaint} (damaged, or none of {known}).") from error
            with image:
                check_pixels(image, name, max_pixels)
                yield image


def open_at_once(path: str, flags: int) -> int:
    """Opens a file without waiting: a pipe that took its place a moment ago would wait forever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_pixels(image: "Image", name: str, max_pixels: int) -> None:
    """Checks an image's size.

    Raises:
        UnreadableError: it has more than `max_pixels` pixels.
    """
    if image.width * image.height > max_pixels:
        raise UnreadableError(
            f"{name} has {image.width:,} x {image.height:,} pixels; the limit is {max_pixels:,} "
            "(data.max_pixels)."
        )


def turned(image: "Image", tag: int) -> "Image":
    """The image as its `orientation` says that it is to be shown."""
    from PIL.Image import Transpose

    ways = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(ways[tag]) if tag in ways else image


def orientation(image: "Image") -> int:
    """The tag that says how to turn an image; 1, upright, if there is none or it is damaged. Other
    tags are not looked at, since one that is damaged says nothing about this one."""
    try:
        tag = image.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever a damaged EXIF block makes of the parser
        return 1
    return tag if isinstance(tag, int) and 1 <= tag <= 8 else 1


def is_deep(image: "Image") -> bool:
    """Whether pixels are grey values of more than 8 bits, or floating-point numbers."""
    return image.mode.startswith(("I", "F"))


def tiles(image: "Image") -> list[Any]:
    """How the pixels of an image are stored in its file; none if they are decoded, or if it came
    from no file."""
    return getattr(image, "tile", [])


def is_reduced(image: "Image") -> bool:
    """Whether Pillow gives 8 bits for each channel where the file has another range. Asked before
    the pixels are decoded."""
    for codec, _, _, form in () if is_deep(image) else tiles(image):
        raw, *rest = (form,) if isinstance(form, str) else form or ("",)
        if str(raw).endswith((";16B", ";16L", ";16N")):
            return True
        if codec.startswith("ppm") and rest not in ([], [255]):
            return True
    return False


def is_animated(image: "Image") -> bool:
    """Whether there are more frames or pages after the first. A phone's JPEG may hold several
    pictures too, of which the first is the photo."""
    return image.format != "MPO" and getattr(image, "is_animated", False)
