"""Image data sets in which every example carries its data-set index."""

from acn_lightning.data.binarise import binarise
from acn_lightning.data.datamodule import ImageData
from acn_lightning.data.dataset import Batch, IndexedImages
from acn_lightning.data.sources.base import Source, Split, Splits

__all__ = ["Batch", "ImageData", "IndexedImages", "Source", "Split", "Splits", "binarise"]
