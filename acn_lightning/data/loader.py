"""Training batches that can resume in the middle of an epoch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from lightning import Trainer
from torch.utils.data import DataLoader, DistributedSampler

from acn_lightning.data.dataset import Batch


class ResumableSampler(DistributedSampler[Any]):
    """A `DistributedSampler` that, in a resumed epoch, skips what was drawn before the run stopped.

    Attributes:
        trainer: knows whether the run resumed mid-epoch, and how many batches were drawn.
        batch_size: examples per batch.
    """

    trainer: Trainer | None = None
    batch_size = 0

    def __iter__(self) -> Iterator[int]:
        # Read when the first batch is drawn: the checkpoint is fully restored by then. (Lightning
        # would restore the loader's state, but not if a schedule has asked for the number of
        # steps.)
        had = 0
        if self.trainer is not None and self.trainer.fit_loop.restarted_mid_epoch:
            had = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return islice(super().__iter__(), had * self.batch_size, None)


class ResumableLoader(DataLoader[Batch]):
    """Uses a `ResumableSampler`. Its methods tell Lightning that it can resume mid-epoch."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def keep_whole(batch: Any) -> Any:
    """Collates nothing: `IndexedImages` already returns whole batches."""
    return batch
