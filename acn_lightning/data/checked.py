"""Checks what a source has read, once and in one place: a source may be the user's own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from acn_lightning.data.convert import as_bytes, refuse_dark, shared
from acn_lightning.data.sources.base import Source, Split, Splits, size_words
from acn_lightning.data.storage import PIECE
from acn_lightning.utils.errors import UsageError, keyed


def checked(found: Any, source: Source) -> Splits:
    """What a source returned, in the form that the rest of this package takes. Converted are NumPy
    arrays, images without an axis for channels or with it last, floats from 0 to 1, labels of any
    integer type or None, and class numbers in place of names.

    Raises:
        UsageError: it has another form.
    """
    where = f"data.source: {type(source).__name__}.read"
    if not isinstance(found, tuple) or len(found) != 3:
        kind = type(found).__name__
        raise UsageError(f"{where} must return Splits(train, test, classes), not {kind}.")
    train, test = (
        checked_split(part, f"{where}: {name} split")
        for part, name in zip(found[:2], ("training", "test"), strict=True)
    )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UsageError(
            f"{where}: training images are {size_words(train.images)} and test images "
            f"{size_words(test.images)} (channels x height x width)."
        )
    highest = int(max(train.labels.max(), test.labels.max()))
    classes = tuple(map(str, found[2] or range(highest + 1)))
    if highest >= len(classes):
        raise UsageError(
            f"{where}: labels go up to {highest}, but there are {len(classes)} classes. Number "
            "them from 0."
        )
    return Splits(train, test, classes)


def checked_split(part: Any, where: str) -> Split:
    """A split of such a form.

    Raises:
        UsageError: it has another form.
    """
    if not isinstance(part, tuple) or not 1 <= len(part) <= 3:
        raise UsageError(f"{where} must be Split(images, labels), not {type(part).__name__}.")
    missing: tuple[Any, ...] = (None, ())
    given, labels, names = (*part, *missing[len(part) - 1 :])
    if not isinstance(given, np.ndarray | Tensor):
        raise UsageError(f"{where}: images are {type(given).__name__}, not a tensor or an array.")
    with keyed(where, UsageError):
        images = as_bytes(given)
        if not images.numel():
            raise UsageError("there are no images.")
        refuse_dark(images.split(PIECE))
        numbers = checked_labels(labels, len(images))
    if (
        isinstance(names, str)
        or not isinstance(names, Sequence)
        or len(names) not in (0, len(images))
    ):
        raise UsageError(f"{where}: names must be one for each of {len(images):,} images, or none.")
    return Split(images, numbers, tuple(map(str, names)))


def checked_labels(labels: Any, size: int) -> Int[Tensor, " size"]:
    """Labels as numbers; -1, no label, for all images if they are None.

    Raises:
        UsageError: they are not one integer from -1 for each image.
    """
    if labels is None:
        return torch.full((size,), -1)
    try:
        numbers = labels if isinstance(labels, Tensor) else shared(np.asarray(labels))
    except (UsageError, ValueError):
        numbers = torch.empty(0)
    whole = not numbers.is_floating_point() and not numbers.is_complex()
    if not whole or numbers.dtype == torch.bool or numbers.ndim != 1:
        raise UsageError(
            "labels are not whole numbers (N,): give the number of each image's class, from 0, or "
            "-1 for none."
        )
    if len(numbers) != size:
        raise UsageError(f"{size:,} images, but {len(numbers):,} labels.")
    numbers = numbers.cpu().long()
    if numbers.numel() and numbers.min() < -1:
        raise UsageError(f"labels go down to {int(numbers.min())}; -1 means no label.")
    return numbers
