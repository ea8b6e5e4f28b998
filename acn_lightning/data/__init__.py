"""Images that know their place: every example carries its data-set index."""

from acn_lightning.data.datamodule import ImageData
from acn_lightning.data.images import Batch, IndexedImages, binarise
from acn_lightning.data.sources import Part, Source

__all__ = ["Batch", "ImageData", "IndexedImages", "Part", "Source", "binarise"]
