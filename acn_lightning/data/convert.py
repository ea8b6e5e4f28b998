"""Converts images to the form that a model was trained on."""

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from acn_lightning.data.pixels import fit_image
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.text import shape_words

PIECE = 2**12
"""Number of images converted at once."""


def as_images(
    images: np.ndarray | Tensor, image_shape: tuple[int, ...]
) -> UInt8[Tensor, "size channel height width"]:
    """Converts arrays to the form of a model's images.

    Args:
        images: as for `as_bytes`.
        image_shape: (C, H, W) to convert to, with a warning if the images differ.

    Raises:
        UsageError: the arrays have another form.
    """
    array = as_bytes(images)
    if not len(array):
        return array.reshape(-1, *image_shape)
    if tuple(array.shape[1:]) == image_shape:
        return array.contiguous()
    warn_of_conversion(tuple(array.shape[1:]), image_shape)
    return resized(array, image_shape)


def as_bytes(images: np.ndarray | Tensor) -> UInt8[Tensor, "size channel height width"]:
    """Converts arrays to the form in which this project stores images. Bytes are not copied.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W); C is 1 or 3. uint8 from 0 to 255, floats
            from 0 to 1, or bool. If both the first and the last axis could be the channels, a torch
            tensor has them first and a NumPy array last.

    Raises:
        UsageError: the arrays have another form.
    """
    axes: tuple[int, ...]  # where channels may be, the likelier first
    if isinstance(images, Tensor):
        if images.layout is not torch.strided or images.is_quantized or images.is_nested:
            raise UsageError("images are no dense tensor: give images.to_dense().")
        array, axes = images.detach().cpu(), (1, 3)
    else:
        array, axes = shared(images), (3, 1)
    if array.ndim == 3:
        array, axes = array[:, None], (1,)
    axis = next((one for one in axes if array.ndim == 4 and array.shape[one] in (1, 3)), None)
    if axis is None:
        raise UsageError(
            f"images have shape {tuple(images.shape)}, not (N, H, W), (N, H, W, C) or "
            "(N, C, H, W) with C = 1 or 3."
        )
    array = array.movedim(axis, 1)
    if array.dtype == torch.uint8:
        return array
    if array.dtype != torch.bool and not array.is_floating_point():
        raise UsageError(
            f"images are {str(array.dtype).removeprefix('torch.')}: give uint8 from 0 to 255, or "
            "floats from 0 to 1."
        )
    if array.is_floating_point() and array.numel():
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # or NaN
            raise UsageError(
                f"images of {str(array.dtype).removeprefix('torch.')} must lie between 0 and 1; "
                f"these go from {float(low):g} to {float(high):g}."
            )
    stored = torch.empty(array.shape, dtype=torch.uint8)
    for some, own in zip(array.split(PIECE), stored.split(PIECE), strict=True):
        own.copy_((some.float() * 255).round())
    return stored


def refuse_dark(images: Iterable[np.ndarray | Tensor]) -> None:
    """Checks that bytes go beyond 1, or are all 0. Else they were meant from 0 to 1, and all would
    be black.

    Args:
        images: bytes in pieces, none of which is empty. No more of them are looked at than needed.

    Raises:
        UsageError: the highest is 1.
    """
    highest = 0
    for some in images:
        highest = max(highest, int(some.max()))
        if highest > 1:
            return
    if highest:
        raise UsageError(
            "images are uint8 and go from 0 to 1 only, which is black. Give bytes from 0 to 255 "
            "(images * 255), floats from 0 to 1, or bool."
        )


def shared(array: np.ndarray) -> Tensor:
    """The array as a tensor in the same memory, or on the same disk, if its type allows it.

    Raises:
        UsageError: it does not hold numbers of a type that torch has.
    """
    if array.dtype.byteorder not in "=|" or any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*not writable")  # nobody writes to it
            return torch.from_numpy(array)
    except TypeError as error:
        raise UsageError(f"arrays are {array.dtype}: give uint8, or floats from 0 to 1.") from error


def resized(
    images: UInt8[Tensor, "size channel height width"], image_shape: tuple[int, ...]
) -> UInt8[Tensor, "size channel2 height2 width2"]:
    """Images resized to cover a size and cropped evenly; colour becomes grey, or grey RGB."""
    channels, *size = image_shape
    converted = np.empty((len(images), *image_shape), np.uint8)
    for row, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        grey = image.shape[2] == 1
        pixels = fit_image(Image.fromarray(image[..., 0] if grey else image), size, channels)
        converted[row] = pixels if channels == 1 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(converted)


def warn_of_conversion(given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Warns that images are converted to another size or number of channels."""
    one, other = map(shape_words, (given, wanted))
    warnings.warn(
        f"Images of {one} (channels x height x width) are converted to {other}, which the model "
        "was trained on.",
        stacklevel=3,
    )
