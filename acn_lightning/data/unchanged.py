"""Reads images to compress: as they are, or not at all."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from acn_lightning.data.opener import SUFFIXES, is_reduced, open_image, orientation
from acn_lightning.data.sources.npz import load_npz
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.memory import check_memory
from acn_lightning.utils.progress import progress_bar
from acn_lightning.utils.text import as_text, shape_words

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile


class Unchanged(NamedTuple):
    """Images to compress.

    Attributes:
        images: as bytes, (N, C, H, W).
        names: their files, relative to the folder that was given; none if they come from one file.
        size: bytes of these files; 0 if there are none.
        jpegs: number of them that are JPEG, which stores less than pixels.
    """

    images: UInt8[Tensor, "n channel height width"]
    names: tuple[str, ...] = ()
    size: int = 0
    jpegs: int = 0


def read_unchanged(paths: Sequence[str], image_shape: tuple[int, ...], binary: bool) -> Unchanged:
    """Reads files and folders of images, or one .npz file. Nothing is converted: an image that a
    model would have to change is refused.

    Args:
        paths: what to read. Of a folder, all files at any depth; hidden ones are ignored.
        image_shape: (C, H, W) of the model.
        binary: whether its pixels are 0 or 255 only.

    Raises:
        UsageError: an image cannot be read or has another form, or two have the same name.
    """
    if len(paths) == 1 and paths[0].endswith(".npz"):
        return Unchanged(check_array(read_array(Path(paths[0])), image_shape, binary, paths[0]))
    files = list_files(paths)
    check_memory(f"{len(files):,} images", len(files) * math.prod(image_shape))
    images = np.empty((len(files), *image_shape), np.uint8)
    jpegs = 0
    with progress_bar("reading images", "image", total=len(files)) as shown:
        for row, file in enumerate(files.values()):
            images[row], jpeg = read_pixels(file, image_shape, binary)
            jpegs += jpeg
            shown.update()
    size = sum(file.stat().st_size for file in files.values())
    return Unchanged(torch.from_numpy(images), tuple(files), size, jpegs)


def list_files(paths: Sequence[str]) -> dict[str, Path]:
    """Files by the names under which they are stored.

    Raises:
        UsageError: a file does not exist, a folder holds other files, or two have the same name.
        OSError: a folder cannot be read.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = visible(path)
            odd = [one for one in inside if one.is_dir() or one.suffix.lower() not in SUFFIXES]
            if odd or not inside:
                what = f"{odd[0]}, which is not one" if odd else "none"
                raise UsageError(
                    f"{path}: a folder to compress holds images "
                    f"({', '.join(SUFFIXES)}) only; this one has {what}. Name the files instead."
                )
            own = {as_text(one.relative_to(path).as_posix()): one for one in inside}
        elif path.is_file():
            own = {as_text(path.name): path}
        else:
            raise UsageError(f"there is no image {path}.")
        if twice := found.keys() & own.keys():
            raise UsageError(f"{min(twice)}: two images have this name. Put them into one folder.")
        found |= own
    return found


def visible(folder: Path) -> list[Path]:
    """The files within a folder, at any depth, and the links to folders, whose files would not be
    found; sorted. What is hidden is left out.

    Raises:
        OSError: a folder cannot be read.
    """
    found: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = [Path(place, name) for name in folders]
        found += [one for one in inside if one.is_symlink()]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)


def fail(error: OSError) -> None:
    """Raises what `os.walk` meets, which would otherwise pass over the folder."""
    raise error


def read_pixels(
    path: Path, image_shape: tuple[int, ...], binary: bool
) -> tuple[UInt8[np.ndarray, "channel height width"], bool]:
    """(the pixels of a file, whether it is a JPEG).

    Raises:
        UsageError: it cannot be read, or the model would have to change it.
    """
    with open_image(path) as image:
        check_form(image, image_shape, path)
        pixels, jpeg = np.asarray(image), image.format in ("JPEG", "MPO")
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if binary:
        check_binary(pixels, str(path))
    return pixels, jpeg


def check_form(image: "ImageFile", image_shape: tuple[int, ...], path: Path) -> None:
    """Checks an image against what the model takes.

    Raises:
        UsageError: the model would have to change it.
    """
    channels, height, width = image_shape
    modes = {1: ("1", "L"), 3: ("RGB",)}[channels]
    wrong = None
    if image.mode not in modes:
        wrong = f"its pixels are {image.mode}"
    elif is_reduced(image):
        wrong = "its pixels have more than 8 bits a channel, or another white than 255"
    elif "transparency" in image.info:
        wrong = "it has a transparent colour"
    elif getattr(image, "n_frames", 1) > 1:
        wrong = f"it has {image.n_frames} frames"  # type: ignore[attr-defined]
    elif (image.height, image.width) != (height, width):
        wrong = f"it is {image.width} x {image.height}"
    elif orientation(image) != 1:
        wrong = "it is to be turned when shown"
    if wrong:
        kind = "grey" if channels == 1 else "RGB"
        raise UsageError(
            f"{path}: {wrong}; the model takes {kind} images of {width} x {height}. "
            "acn compress changes nothing: convert it first."
        )


def check_binary(pixels: np.ndarray, name: str) -> None:
    """Checks that all pixels are black or white.

    Raises:
        UsageError: they are not.
    """
    if not np.isin(pixels, (0, 255)).all():
        raise UsageError(
            f"{name}: it has grey pixels; the model takes 0 and 255 only. acn compress changes "
            "nothing: binarise it first."
        )


def read_array(path: Path) -> np.ndarray:
    """The array `images` of an .npz file, or its only one.

    Raises:
        UsageError: there is no such array.
    """
    try:
        arrays = load_npz(path)
    except UsageError as error:
        raise UsageError(str(error).removeprefix("data.root: ")) from error
    if "images" not in arrays and len(arrays) != 1:
        raise UsageError(f"{path} has no array 'images', only {', '.join(arrays) or 'none'}.")
    return arrays.get("images", next(iter(arrays.values())))


def check_array(
    array: np.ndarray, image_shape: tuple[int, ...], binary: bool, name: str
) -> UInt8[Tensor, "n channel height width"]:
    """An array (N, H, W), (N, H, W, C) or (N, C, H, W) in the form of the model.

    Raises:
        UsageError: it has another form.
    """
    given = f"{array.dtype} {array.shape}"
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1:] != image_shape:
        array = array.transpose(0, 3, 1, 2)
    if array.dtype != np.uint8 or array.shape[1:] != image_shape or not len(array):
        shape = shape_words(image_shape)
        raise UsageError(
            f"{name}: images are {given}; the model takes uint8 images of {shape} (channels x "
            "height x width). acn compress changes nothing."
        )
    if binary:
        check_binary(array, name)
    return torch.from_numpy(np.ascontiguousarray(array))
