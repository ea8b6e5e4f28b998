"""Checkpoints: written whole, read without running code, checked before they are used."""

from acn_lightning.checkpoint.reading import newest_checkpoint, read_checkpoint
from acn_lightning.checkpoint.structure import KEY
from acn_lightning.checkpoint.writing import LAST, NEW, DurableCheckpointIO, rotate

__all__ = [
    "KEY", "LAST", "NEW", "DurableCheckpointIO", "newest_checkpoint", "read_checkpoint", "rotate",
]  # fmt: skip
