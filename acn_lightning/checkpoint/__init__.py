"""Checkpoints and packs: written whole, read without running code, checked before they are used."""

from acn_lightning.checkpoint.packs import write_pack
from acn_lightning.checkpoint.reading import (
    find_model,
    newest_checkpoint,
    read_archive,
    read_checkpoint,
)
from acn_lightning.checkpoint.structure import KEY
from acn_lightning.checkpoint.writing import LAST, NEW, DurableCheckpointIO, rotate

__all__ = [
    "KEY", "LAST", "NEW", "DurableCheckpointIO", "find_model", "newest_checkpoint",
    "read_archive", "read_checkpoint", "rotate", "write_pack",
]  # fmt: skip
