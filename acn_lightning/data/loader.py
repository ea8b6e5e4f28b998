"""Training batches that go on in the middle of an epoch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from lightning import Trainer
from torch.utils.data import DataLoader, DistributedSampler

from acn_lightning.data.dataset import Batch


class ResumableSampler(DistributedSampler[Any]):
    """A `DistributedSampler` that leaves out what an epoch had already before the run was stopped.

    Attributes:
        trainer: knows whether there was such an epoch, and how many batches it had.
        batch_size: examples of each.
    """

    trainer: Trainer | None = None
    batch_size = 0

    def __iter__(self) -> Iterator[int]:
        # Asked when the first batch is drawn: all of the checkpoint is in its place then.
        # (Lightning would tell the loader, but not where a schedule has asked for the number of
        # steps.)
        had = 0
        if self.trainer is not None and self.trainer.fit_loop.restarted_mid_epoch:
            had = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return islice(super().__iter__(), had * self.batch_size, None)


class ResumableLoader(DataLoader[Batch]):
    """Over a `ResumableSampler`. By these two methods Lightning knows that it goes on rightly."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
