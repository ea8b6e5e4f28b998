"""Data sources, one file each. Imported here so that `Source.kinds` has them all."""

from acn_lightning.data.sources import (
    arrays,
    celeba,
    cifar10,
    digits,
    folder,
    huggingface,
    idx,
    imagenet,
    npz,
)

__all__ = [
    "arrays",
    "celeba",
    "cifar10",
    "digits",
    "folder",
    "huggingface",
    "idx",
    "imagenet",
    "npz",
]
