"""A folder of image files."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from acn_lightning.data.sources.base import Part, Source, divide, require_folder
from acn_lightning.utils.errors import UsageError, check_choice
from acn_lightning.utils.progress import bar

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_folder(root: Path, image_size: Sequence[int] | None, channels: int | None) -> Source:
    """Images in a folder: a sub-folder for each class, or no sub-folders where there are no
    classes. Where `root` has sub-folders `train` and `test`, these are the two parts; else a fixed
    tenth is the test set.

    Args:
        root: the folder.
        image_size: (height, width) to resize to; None takes the images as they are.
        channels: 1 for grey, 3 for RGB; None takes 1 where all images are grey, else 3.

    Raises:
        UsageError: the folder is missing or has no images, an image cannot be read, sizes differ.
    """
    require_folder(root)
    if (root / "train").is_dir() and (root / "test").is_dir():
        listings = [list_images(root / part) for part in ("train", "test")]
    else:
        listings = [list_images(root)]
    classes = sorted(
        {path.parent.name for paths, labelled in listings if labelled for path in paths}
    )
    files = [path for paths, _ in listings for path in paths]
    images = read_images(files, image_size, channels)
    labels = torch.tensor(
        [
            classes.index(path.parent.name) if labelled else -1
            for paths, labelled in listings
            for path in paths
        ]
    )
    names = tuple(map(str, files))
    if len(listings) == 1:
        return divide(Part(images, labels, names), tuple(classes), 0.1, str(root))
    first = len(listings[0][0])
    # Slices share the images' memory.
    train = Part(images[:first], labels[:first], names[:first])
    test = Part(images[first:], labels[first:], names[first:])
    return Source(train, test, tuple(classes))


def list_images(root: Path) -> tuple[list[Path], bool]:
    """(files, whether their folders are classes)."""
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
            f"data.root: {root} has images beside its sub-folders ({own[0].name}). Give each "
            "image a sub-folder, its class, or none."
        )
    if not files:
        raise UsageError(
            f"data.root: {root} has no images ({', '.join(SUFFIXES)}), neither in it nor in "
            "sub-folders of it, one for each class."
        )
    return files, bool(folders)


def read_images(
    files: Sequence[Path], image_size: Sequence[int] | None, channels: int | None
) -> UInt8[Tensor, "size channel height width"]:
    """All of them, of one size and one number of channels; a bar where it takes long.

    Raises:
        UsageError: one cannot be read, or sizes differ.
    """
    channels = channels or (1 if all(map(is_grey, files)) else 3)
    first = read_image(files[0], image_size, channels)

    def read(file: Path) -> np.ndarray:
        array = read_image(file, image_size, channels)
        if array.shape != first.shape:
            raise UsageError(
                f"data.image_size: images differ in size: {files[0]} is {pixels(first)}, "
                f"{file} is {pixels(array)}. Give a size to bring them to: "
                "data.image_size=[64,64]."
            )
        return array

    return gather_images(files, (channels, *first.shape[:2]), read)


def read_readable(
    files: Sequence[Path], image_shape: tuple[int, ...], unreadable: str = "stop"
) -> tuple[UInt8[Tensor, "size channel height width"], list[Path]]:
    """(images, their files), brought to `image_shape`, (C, H, W).

    Args:
        files: what to read.
        image_shape: that they are to have.
        unreadable: "skip" leaves out what cannot be read, and warns with the names; "stop" does
            not go on.

    Raises:
        UsageError: one cannot be read, or with "skip" none.
    """
    check_choice("unreadable", unreadable, ("stop", "skip"))
    channels, *size = image_shape
    failed: dict[Path, str] = {}
    others: dict[Path, tuple[int, ...]] = {}

    def read(file: Path) -> np.ndarray:
        try:
            with opened(file) as one:
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
            raise UsageError(f"None of {len(files)} images can be read. {told}")
        warnings.warn(f"{len(failed)} of {len(files)} images are left out: {told}", stacklevel=2)
        images = images[kept]
    if one := next((file for file in files if file in others and file not in failed), None):
        tell_of_conversion(others[one], image_shape)
    return images, [files[row] for row in kept]


def tell_of_conversion(given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Warns that images are brought to another form."""
    one, other = (" x ".join(map(str, shape)) for shape in (given, wanted))
    warnings.warn(
        f"Images of {one} (channels x height x width) are brought to {other}, as the model was "
        "trained on.",
        stacklevel=3,
    )


def is_grey_mode(image: "Image") -> bool:
    """Whether its pixels have no colour."""
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def gather_images(
    files: Sequence[Path], shape: tuple[int, ...], read: Callable[[Path], np.ndarray]
) -> UInt8[Tensor, "size channel height width"]:
    """What `read` makes of each file, several at a time, in one tensor."""
    # In place, as twice the images of a large collection may be more than there is memory for.
    images = np.empty((len(files), *shape), np.uint8)

    def fill(rows: range) -> int:
        for row in rows:
            array = read(files[row])
            images[row] = array if array.ndim == 2 else array.transpose(2, 0, 1)
        return len(rows)

    # A task for every image would be more memory than the images where those are small.
    everything = range(len(files))
    pieces = [everything[start : start + 16] for start in everything[::16]]
    with bar("reading images", "image", total=len(files)) as shown, ThreadPoolExecutor() as pool:
        for count in pool.map(fill, pieces):
            shown.update(count)
    return torch.from_numpy(images)


def is_grey(path: Path) -> bool:
    """Whether the file's header says so."""
    with opened(path) as image:
        return is_grey_mode(image)


def read_image(path: Path, image_size: Sequence[int] | None, channels: int) -> np.ndarray:
    """(H, W) for 1 channel, (H, W, 3) for 3. Resized to cover `image_size`, the rest cut off
    evenly on both sides, so that nothing is stretched."""
    from PIL import Image, ImageOps

    with opened(path) as file:
        deep = file.mode.startswith("I")  # 16 bits a pixel; Pillow's convert would cut at 255
        whole = Image.fromarray((np.asarray(file) // 257).astype(np.uint8)) if deep else file
        return fitted(ImageOps.exif_transpose(whole), image_size, channels)


def fitted(image: "Image", image_size: Sequence[int] | None, channels: int) -> np.ndarray:
    """An image's pixels, of that size and number of channels, as `read_image` gives them."""
    from PIL import ImageOps

    image = image.convert("L" if channels == 1 else "RGB")
    if image_size is not None:
        height, width = image_size
        image = ImageOps.fit(image, (width, height))
    return np.asarray(image)


@contextmanager
def opened(path: Path) -> Iterator["Image"]:
    """The image in a file.

    Raises:
        UsageError: it cannot be read, now or in the course of the `with`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            yield file
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"data.root: {path} cannot be read as an image ({error}).") from error


def pixels(array: np.ndarray) -> str:
    """Width x height, as programs for pictures say it."""
    return f"{array.shape[1]} x {array.shape[0]}"
