"""Images in whatever form a user has them: arrays, tensors, pictures, files, lists, data sets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
import torch
from jaxtyping import UInt8
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

from acn_lightning.data.convert import as_images, refuse_dark
from acn_lightning.data.files import read_files
from acn_lightning.data.items import picture, split_item
from acn_lightning.data.listing import list_images
from acn_lightning.data.pixels import Form
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.text import shape_words

One: TypeAlias = Union[np.ndarray, Tensor, Image, Path, str]  # noqa: UP007  # for beartype
Given: TypeAlias = Union[One, Sequence[One], Dataset]  # noqa: UP007

CHANNELS = (1, 3)


def read_given(
    given: Any, image_shape: tuple[int, ...], form: Form
) -> UInt8[Tensor, "size channel height width"]:
    """Images in the form of a model's.

    Args:
        given: an array or tensor of one image or several, see `with_first_axis`; a Pillow image; a
            file, or a folder for the files in it; a list of images, each of which is a file or what
            `data.items.Items` may hold; or a map-style `Dataset` of such images, or of
            (image, label).
        image_shape: the model's, (C, H, W).
        form: what files and Pillow images are converted to.

    Raises:
        UsageError: it is none of these, an image cannot be read, or bytes are all 0 and 1.
    """
    if isinstance(given, np.ndarray | Tensor):
        images = as_images(with_first_axis(given, image_shape), image_shape)
        refuse_dark(filter(has_bytes, [given]))
        return images
    if isinstance(given, Dataset):
        given = [split_item(given[row])[0] for row in range(len(given))]  # type: ignore[arg-type]
    if not isinstance(given, list | tuple):
        given = [given]
    if not given:
        return torch.empty(0, *image_shape, dtype=torch.uint8)
    if all(isinstance(one, str | Path) for one in given):
        return read_files([file for one in given for file in files_of(Path(one))], form).images
    images = torch.cat([read_one(one, row, image_shape, form) for row, one in enumerate(given)])
    refuse_dark(filter(has_bytes, given))  # together: one of them may well be almost black
    return images


def has_bytes(one: Any) -> bool:
    """Whether this is an array or a tensor of bytes."""
    return (
        isinstance(one, np.ndarray | Tensor)
        and one.dtype in (np.uint8, torch.uint8)
        and 0 not in one.shape
    )


def files_of(path: Path) -> list[Path]:
    """A file, or the image files in a folder, its own before those of its sub-folders.

    Raises:
        UsageError: there is none.
    """
    path = path.expanduser()
    if path.is_dir():
        return list_images(path).train.files
    if not path.exists():
        raise UsageError(f"there is no image {path}.")
    return [path]


def read_one(one: Any, number: int, image_shape: tuple[int, ...], form: Form) -> Tensor:
    """The image of that number in a list, (1, C, H, W).

    Raises:
        UsageError: it is none, or cannot be read.
    """
    if isinstance(one, str | Path):
        return read_given(one, image_shape, form)
    if isinstance(one, np.ndarray | Tensor):
        found = as_images(with_first_axis(one, image_shape), image_shape)
        if len(found) != 1:
            raise UsageError(
                f"image {number} of the list has shape {tuple(one.shape)}, which is "
                f"{len(found):,} images: give one array of all images, or a list of single ones."
            )
        return found
    name = getattr(one, "filename", "") or f"image {number}"
    pixels = picture(one, form, name).pixels
    return torch.tensor(pixels).reshape(1, *image_shape[1:], -1).movedim(3, 1)


def with_first_axis(given: np.ndarray | Tensor, image_shape: tuple[int, ...]) -> Any:
    """An array of images with the axis of the images first; a single image gets one.

    Of three axes, the model's image shape decides: (C, H, W) as the model has it, or (H, W, C) of
    its size, is one image; (N, H, W) of its size are N grey ones. Of other sizes, C = 1 or 3 as the
    last axis makes one image, and (3, H, W) or (H, W, 4) could be both.

    Args:
        given: (H, W), (H, W, C), (C, H, W), (N, H, W), or already of four axes.
        image_shape: of the model, (C, H, W).

    Raises:
        UsageError: it could be both.
    """
    shape = tuple(given.shape)
    if len(shape) == 2:
        return given[None]
    if len(shape) != 3:
        return given
    size = image_shape[1:]
    if shape == image_shape or (shape[:2] == size and shape[2] in CHANNELS):
        return given[None]
    if shape[1:] == size:
        return given
    if shape[2] in (2, 4):
        raise UsageError(
            f"images of shape {shape} seem to be transparent: give Image.fromarray(image), which "
            "is laid on data.background as the training images were, or leave that channel out."
        )
    if shape[0] == 3:
        rest = shape_words(shape[1:])
        raise UsageError(
            f"images of shape {shape} could be one in colour or 3 grey ones of {rest}: give "
            f"{(1, *shape)} for one, {(3, 1, *shape[1:])} for three."
        )
    return given[None] if shape[2] in CHANNELS else given
