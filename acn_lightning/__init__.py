"""Associative Compression Networks (Graves, Menick and van den Oord 2018) with PyTorch Lightning.

The names below are imported when first asked for: `acn --help` does without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acn_lightning.data import ImageData
    from acn_lightning.module import ACN
    from acn_lightning.retrieval.code_bank import CodeBank
    from acn_lightning.retrieval.index import NeighbourIndex

__all__ = ["ACN", "CodeBank", "ImageData", "NeighbourIndex"]

_HOMES = {
    "ACN": "acn_lightning.module",
    "CodeBank": "acn_lightning.retrieval.code_bank",
    "ImageData": "acn_lightning.data",
    "NeighbourIndex": "acn_lightning.retrieval.index",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
