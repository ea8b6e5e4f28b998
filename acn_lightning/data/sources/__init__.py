"""Data sources, one file each. Imported here so that `Source.kinds` has them all."""

from acn_lightning.data.sources import celeba, cifar10, digits, folder, idx, imagenet, npz

__all__ = ["celeba", "cifar10", "digits", "folder", "idx", "imagenet", "npz"]
