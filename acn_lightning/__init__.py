"""Associative Compression Networks (Graves, Menick and van den Oord 2018) with PyTorch Lightning.

The names below are imported on first use, so `acn --help` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acn_lightning.api import ACN, TrainedACN, fit, load
    from acn_lightning.config.compose import compose
    from acn_lightning.data import ImageData
    from acn_lightning.experiment.build import build
    from acn_lightning.retrieval.code_bank import CodeBank
    from acn_lightning.retrieval.index import NeighbourIndex

__all__ = [
    "ACN",
    "CodeBank",
    "ImageData",
    "NeighbourIndex",
    "TrainedACN",
    "build",
    "compose",
    "fit",
    "load",
]

_HOMES = {
    "ACN": "acn_lightning.api",
    "CodeBank": "acn_lightning.retrieval.code_bank",
    "ImageData": "acn_lightning.data",
    "NeighbourIndex": "acn_lightning.retrieval.index",
    "TrainedACN": "acn_lightning.api",
    "build": "acn_lightning.experiment.build",
    "compose": "acn_lightning.config.compose",
    "fit": "acn_lightning.api",
    "load": "acn_lightning.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
