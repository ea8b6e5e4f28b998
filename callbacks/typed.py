"""Typed access to the module, the data and the callbacks of a run."""

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device

from acn_lightning.data import Batch, ImageData
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


def as_it_is(trainer: Trainer, batch: Batch) -> Batch:
    """A batch on the run's device, in floats. While a run trains, `strategy.batch_to_device` would
    also transform the images and draw random numbers."""
    moved: Batch = move_data_to_device(batch, trainer.strategy.root_device)
    return moved.in_floats()


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The callbacks of a run."""
    found: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return found
