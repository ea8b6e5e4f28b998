"""Images that know their place: every example carries its data-set index."""

from acn_lightning.data.datamodule import ImageData
from acn_lightning.data.dataset import Batch, IndexedImages, binarise
from acn_lightning.data.sources.base import Part, Source

__all__ = ["Batch", "ImageData", "IndexedImages", "Part", "Source", "binarise"]
