"""Converts images to the form that a model was trained on."""

import warnings

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from acn_lightning.data.pixels import fit_image
from acn_lightning.utils.errors import UsageError


def as_images(
    images: np.ndarray | Tensor, image_shape: tuple[int, ...]
) -> UInt8[Tensor, "size channel height width"]:
    """Converts arrays to the form in which this project stores images.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W); C is 1 or 3. uint8 from 0 to 255, floats
            from 0 to 1, or bool. If both the first and the last axis could be the channels, a torch
            tensor has them first and a NumPy array last.
        image_shape: (C, H, W) to convert to, with a warning if the images differ. They are resized
            to cover the size and cropped evenly; colour becomes grey, or grey becomes RGB.

    Raises:
        UsageError: the arrays have another form.
    """
    axes: tuple[int, ...]  # where channels may be, the likelier first
    if isinstance(images, Tensor):
        array, axes = images.cpu(), (1, 3)
    else:
        array, axes = torch.from_numpy(np.require(images, requirements="W")), (3, 1)
    if array.ndim == 3:
        array, axes = array[:, None], (1,)
    axis = next((one for one in axes if array.ndim == 4 and array.shape[one] in (1, 3)), None)
    if axis is None:
        raise UsageError(
            f"images have shape {tuple(images.shape)}, not (N, H, W), (N, H, W, C) or "
            "(N, C, H, W) with C = 1 or 3."
        )
    array = array.movedim(axis, 1)
    if array.dtype == torch.bool:
        array = array.to(torch.uint8) * 255
    elif array.is_floating_point():
        if array.numel() and not (array.min() >= 0 and array.max() <= 1):  # or NaN
            raise UsageError(
                f"images of {str(array.dtype).removeprefix('torch.')} must lie between 0 and 1; "
                f"these go from {float(array.min()):g} to {float(array.max()):g}."
            )
        array = (array.float() * 255).round().to(torch.uint8)
    elif array.dtype != torch.uint8:
        raise UsageError(
            f"images are {str(array.dtype).removeprefix('torch.')}: give uint8 from 0 to 255, or "
            "floats from 0 to 1."
        )
    if tuple(array.shape[1:]) == image_shape or not len(array):
        return array.reshape(-1, *image_shape) if not len(array) else array.contiguous()
    warn_of_conversion(tuple(array.shape[1:]), image_shape)
    channels, *size = image_shape
    converted = np.empty((len(array), *image_shape), np.uint8)
    for row, image in enumerate(array.permute(0, 2, 3, 1).numpy()):
        grey = image.shape[2] == 1
        pixels = fit_image(Image.fromarray(image[..., 0] if grey else image), size, channels)
        converted[row] = pixels if channels == 1 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(converted)


def warn_of_conversion(given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Warns that images are converted to another size or number of channels."""
    one, other = (" x ".join(map(str, shape)) for shape in (given, wanted))
    warnings.warn(
        f"Images of {one} (channels x height x width) are converted to {other}, which the model "
        "was trained on.",
        stacklevel=3,
    )
