"""Labels of any kind, as numbers of classes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from acn_lightning.utils.errors import UsageError, foreign, nearest
from acn_lightning.utils.text import as_text

Label = int | str | None


def plain_labels(labels: Any, size: int, name: str = "labels") -> list[Label]:
    """Labels as plain values.

    Args:
        labels: a list, array, tensor or column of a table; None for no labels.
        size: number of images.
        name: what errors begin with.

    Raises:
        UsageError: they are not one class for each image.
    """
    if labels is None:
        return [None] * size
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    with foreign(f"{name}: one class for each image is needed", name):
        if np.ndim(labels) != 1:
            raise UsageError(
                f"{name}: the shape is {np.shape(labels)}. Give one class for each image, (N,)."
            )
    values = [plain_label(one, name) for one in labels]
    if len(values) != size:
        raise UsageError(f"{name}: there are {size:,} images, but {len(values):,} labels.")
    return values


def plain_label(label: Any, name: str = "labels") -> Label:
    """One label. -1 is no label, and truth values are the classes False and True.

    Raises:
        UsageError: it is neither a whole number from 0 nor text.
    """
    if isinstance(label, np.generic | Tensor) and label.ndim == 0:
        label = label.item()
    if isinstance(label, bool):
        return str(label)
    if isinstance(label, str):
        return as_text(label)
    if label is None or (isinstance(label, int) and label == -1):
        return None
    if not isinstance(label, int) or label < 0:
        raise UsageError(
            f"{name}: {label!r} is neither the number of a class, from 0, nor its name. None or -1 "
            "is no label."
        )
    return label


def named_classes(classes: Any) -> list[str]:
    """Names of classes.

    Raises:
        UsageError: they are no list, or two are the same.
    """
    if isinstance(classes, str | bytes):
        raise UsageError(f"classes: {classes!r:.60} is no list of names.")
    with foreign("classes: a list of names is needed", "classes"):
        names = list(map(as_text, map(str, classes)))
    often = Counter(names).most_common(1)
    if often and often[0][1] > 1:
        raise UsageError(f"classes: '{often[0][0]}' is there twice.")
    return names


def number_labels(
    parts: Sequence[Sequence[Label]], classes: Sequence[str] | None = None, name: str = "labels"
) -> tuple[list[Int[Tensor, " size"]], tuple[str, ...]]:
    """(labels of each part from 0, names of the classes).

    Args:
        parts: labels of the training and test images.
        classes: names, to which numbers refer; None takes the labels themselves, sorted.
        name: what errors begin with.

    Raises:
        UsageError: there are both numbers and names, or one is none of the classes.

    Example:
        >>> number_labels([["cat", "dog", None], ["dog"]])
        ([tensor([ 0,  1, -1]), tensor([1])], ('cat', 'dog'))
    """
    found = {label for part in parts for label in part if label is not None}
    kinds = {type(label) for label in found}
    if len(kinds) > 1:
        raise UsageError(f"{name}: there are both numbers and names of classes. Use one of them.")
    if classes is None:
        known: Sequence[Any] = sorted(found)  # of one kind
    else:
        classes = named_classes(classes)
        known = range(len(classes)) if kinds == {int} else classes
    number: dict[Any, int] = {label: row for row, label in enumerate(known)}
    if odd := sorted(map(str, found - number.keys())):
        raise UsageError(
            f"{name}: '{odd[0]}' is none of the {len(number)} classes."
            f"{nearest(odd[0], map(str, number))}"
        )
    number[None] = -1
    told = tuple(map(str, known if classes is None else classes))
    return [torch.tensor([number[one] for one in part], dtype=torch.long) for part in parts], told
