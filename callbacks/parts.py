"""What callbacks of an ACN work on, with their types."""

from lightning import LightningModule, Trainer

from acn_lightning.data import ImageData
from acn_lightning.module import ACN


def acn_of(module: LightningModule) -> ACN:
    """The module, known to be an ACN.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(module, ACN):
        raise TypeError(f"This callback is for an ACN, not for a {type(module).__name__}.")
    return module


def data_of(trainer: Trainer) -> ImageData:
    """The data module of a run, known to be `ImageData`.

    Raises:
        TypeError: it is not.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ImageData):
        raise TypeError(
            f"This callback needs a datamodule of ImageData, not {type(data).__name__}."
        )
    return data
