"""Typed access to the module and the data that an ACN's callbacks work on."""

from lightning import LightningModule, Trainer

from acn_lightning.data import ImageData
from acn_lightning.module import ACN


def acn_of(module: LightningModule) -> ACN:
    """The module, typed as an ACN.

    Raises:
        TypeError: it is not an ACN.
    """
    if not isinstance(module, ACN):
        raise TypeError(f"This callback is for an ACN, not for a {type(module).__name__}.")
    return module


def data_of(trainer: Trainer) -> ImageData:
    """The data module of a run, typed as `ImageData`.

    Raises:
        TypeError: it is not `ImageData`.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ImageData):
        raise TypeError(
            f"This callback needs a datamodule of ImageData, not {type(data).__name__}."
        )
    return data
