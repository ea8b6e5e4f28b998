"""Lists and reads image files, and converts them to one form."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from acn_lightning.utils.errors import UsageError, check_choice
from acn_lightning.utils.progress import progress_bar

if TYPE_CHECKING:
    from PIL.Image import Image


SUFFIXES = (".png", ".jpg", ".jpeg")


def list_images(root: Path) -> tuple[list[Path], bool]:
    """Returns (files, whether their folders are classes)."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    own, files = (
        [
            path
            for folder in places
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in SUFFIXES and path.name[0] != "."
        ]
        for places in ([root], folders or [root])
    )
    if folders and own:
        raise UsageError(
            f"data.root: {root} has both images ({own[0].name}) and sub-folders. Put every image "
            "in a sub-folder, its class, or none."
        )
    if not files:
        raise UsageError(
            f"data.root: {root} has no images ({', '.join(SUFFIXES)}), neither directly nor in "
            "sub-folders, one per class."
        )
    return files, bool(folders)


def read_images(
    files: Sequence[Path], image_size: Sequence[int] | None, channels: int | None
) -> UInt8[Tensor, "size channel height width"]:
    """Reads all files to one size and number of channels, with a progress bar if it takes long.

    Raises:
        UsageError: a file cannot be read, or sizes differ.
    """
    channels = channels or (1 if all(map(is_grey, files)) else 3)
    first = read_image(files[0], image_size, channels)

    def read(file: Path) -> np.ndarray:
        array = read_image(file, image_size, channels)
        if array.shape != first.shape:
            raise UsageError(
                f"data.image_size: images differ in size: {files[0]} is {size_in_pixels(first)}, "
                f"{file} is {size_in_pixels(array)}. Give one size for all: "
                "data.image_size=[64,64]."
            )
        return array

    return gather_images(files, (channels, *first.shape[:2]), read)


def read_readable(
    files: Sequence[Path], image_shape: tuple[int, ...], unreadable: str = "stop"
) -> tuple[UInt8[Tensor, "size channel height width"], list[Path]]:
    """Returns (images, their files), with the images converted to `image_shape`.

    Args:
        files: what to read.
        image_shape: (C, H, W) to convert to.
        unreadable: "skip" leaves out files that cannot be read, with a warning that names them;
            "stop" raises.

    Raises:
        UsageError: a file cannot be read; with "skip", no file can be read.
    """
    check_choice("unreadable", unreadable, ("stop", "skip"))
    channels, *size = image_shape
    failed: dict[Path, str] = {}
    others: dict[Path, tuple[int, ...]] = {}

    def read(file: Path) -> np.ndarray:
        try:
            with open_image(file) as one:
                given = (1 if is_grey_mode(one) else 3, one.height, one.width)
            if given != image_shape:
                others[file] = given
            return read_image(file, size, channels)
        except UsageError as error:
            if unreadable == "stop":
                raise UsageError(f"{error} To leave such files out: unreadable=skip.") from error
            failed[file] = str(error).removeprefix("data.root: ")
            return np.zeros(size if channels == 1 else (*size, channels), np.uint8)

    images = gather_images(files, image_shape, read)
    kept = [row for row, file in enumerate(files) if file not in failed]
    if failed:
        told = " ".join(failed[file] for file in files if file in failed)
        if not kept:
            raise UsageError(f"None of the {len(files)} images can be read. {told}")
        warnings.warn(f"{len(failed)} of {len(files)} images are left out: {told}", stacklevel=2)
        images = images[kept]
    if one := next((file for file in files if file in others and file not in failed), None):
        warn_of_conversion(others[one], image_shape)
    return images, [files[row] for row in kept]


def warn_of_conversion(given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Warns that images are converted to another size or number of channels."""
    one, other = (" x ".join(map(str, shape)) for shape in (given, wanted))
    warnings.warn(
        f"Images of {one} (channels x height x width) are converted to {other}, which the model "
        "was trained on.",
        stacklevel=3,
    )


def is_grey_mode(image: "Image") -> bool:
    """Whether the image has no colour."""
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def gather_images(
    files: Sequence[Path], shape: tuple[int, ...], read: Callable[[Path], np.ndarray]
) -> UInt8[Tensor, "size channel height width"]:
    """Calls `read` on each file, several in parallel, and collects the images in one tensor."""
    # Filled in place: a large collection may not fit in memory twice.
    images = np.empty((len(files), *shape), np.uint8)

    def fill(rows: range) -> int:
        for row in rows:
            array = read(files[row])
            images[row] = array if array.ndim == 2 else array.transpose(2, 0, 1)
        return len(rows)

    # A task per image would take more memory than the images, if those are small.
    everything = range(len(files))
    pieces = [everything[start : start + 16] for start in everything[::16]]
    with (
        progress_bar("reading images", "image", total=len(files)) as shown,
        ThreadPoolExecutor() as pool,
    ):
        for count in pool.map(fill, pieces):
            shown.update(count)
    return torch.from_numpy(images)


def is_grey(path: Path) -> bool:
    """Whether the file's header says that the image has no colour."""
    with open_image(path) as image:
        return is_grey_mode(image)


def read_image(path: Path, image_size: Sequence[int] | None, channels: int) -> np.ndarray:
    """Reads an image as (H, W) for 1 channel or (H, W, 3) for 3. It is resized to cover
    `image_size` and cropped evenly on both sides, so nothing is stretched."""
    from PIL import Image, ImageOps

    with open_image(path) as file:
        deep = file.mode.startswith("I")  # 16 bits per pixel; Pillow's convert would clip at 255
        whole = Image.fromarray((np.asarray(file) // 257).astype(np.uint8)) if deep else file
        return fit_image(ImageOps.exif_transpose(whole), image_size, channels)


def fit_image(image: "Image", image_size: Sequence[int] | None, channels: int) -> np.ndarray:
    """An image's pixels with the given size and channels, in the form of `read_image`."""
    from PIL import ImageOps

    image = image.convert("L" if channels == 1 else "RGB")
    if image_size is not None:
        height, width = image_size
        image = ImageOps.fit(image, (width, height))
    return np.asarray(image)


@contextmanager
def open_image(path: Path) -> Iterator["Image"]:
    """Opens the image in a file.

    Raises:
        UsageError: it cannot be read, either now or inside the `with` block.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            yield file
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"data.root: {path} cannot be read as an image ({error}).") from error


def size_in_pixels(array: np.ndarray) -> str:
    """Width x height, the order that image programs use."""
    return f"{array.shape[1]} x {array.shape[0]}"


def parse_size(value: Any) -> tuple[int, int] | None:
    """Parses [height, width], or one number for both.

    Raises:
        UsageError: it is neither.
    """
    if value is None:
        return None
    sides = (
        [value, value]
        if isinstance(value, int)
        else list(value)
        if isinstance(value, list | tuple)
        else []
    )
    if len(sides) != 2 or not all(isinstance(side, int) and 0 < side <= 4096 for side in sides):
        raise UsageError(
            f"data.image_size: {value!r} is neither a number nor [height,width], from 1 to 4096."
        )
    return sides[0], sides[1]
