"""Checkpoints that a run resumes from as if it had never stopped."""

import shutil
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from acn_lightning.checkpoint import LAST, NEW, rotate
from acn_lightning.utils.errors import UsageError, check_range
from acn_lightning.utils.files import replacing


class LastCheckpoint(Checkpoint):
    """Keeps the newest state of a run as `last.ckpt`, and the ones before as `last-1.ckpt`, ...

    Saves when training starts, at the end of each epoch, when training stops within an epoch
    (`max_steps`, `max_time`), and when `save` is called.

    Args:
        folder: folder to save to; all ranks use rank 0's.
        keep: number of checkpoints to keep. If one is damaged, the one before it remains.
        every_n_steps: number of steps between additional saves within an epoch; 0 for none.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(self, folder: Path, *, keep: int = 2, every_n_steps: int = 0) -> None:
        check_range("checkpoints.keep", keep, 1, 1000)
        check_range("checkpoints.every_n_steps", every_n_steps, 0, 10**9)
        self.folder, self.keep, self.every_n_steps = folder, keep, every_n_steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = trainer.strategy.broadcast(self.folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that resumes in its own folder already has one.
        if not trainer.strategy.broadcast((self.folder / LAST).is_file()):
            self.save(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Save only between optimiser steps: a checkpoint does not hold accumulated gradients.
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.is_last_batch or not stepped:
            return
        step = trainer.global_step
        due = self.every_n_steps and step % self.every_n_steps == 0
        # Below `min_epochs` or `min_steps` it goes on, however often it is told to stop.
        early = trainer.current_epoch < (trainer.min_epochs or 0) or step < (trainer.min_steps or 0)
        if due or (trainer.should_stop and not early) or step == trainer.max_steps:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch:  # else the epoch was cut short and its last step is already saved
            self.save(trainer)

    @property
    def file(self) -> Path | None:
        """The newest checkpoint; None before the first."""
        return self.folder / LAST if (self.folder / LAST).is_file() else None

    def save(self, trainer: Trainer) -> None:
        """Saves a checkpoint. Call it on all ranks at once."""
        if getattr(trainer, "fast_dev_run", False):  # it saves nothing
            return
        trainer.save_checkpoint(self.folder / NEW)
        rank_zero_only(rotate)(self.folder, self.keep)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the epoch boundary with the lowest held-out cost as `best.ckpt`.

    A resumed run inherits the best checkpoint of the run before, and copies its file. So it
    remembers the best cost, and its own folder is complete.

    Args:
        folder: folder to save to.
        monitor: name of the cost.
        inherited: the best checkpoint of the run that this one resumes; None if there is none. The
            path that the run's state names is not followed: a checkpoint may be a stranger's.
    """

    def __init__(self, folder: Path, monitor: str, inherited: Path | None = None) -> None:
        super().__init__(
            folder, "best", monitor=monitor, mode="min", save_on_train_epoch_end=True,
            enable_version_counter=False,
        )  # fmt: skip
        self.inherited = inherited

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch:  # the costs of an epoch that was cut short cover other images
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        score = state_dict.get("best_model_score")
        if self.inherited is None or score is None:  # there was no best yet: start over
            return
        if not isinstance(score, Tensor) or score.ndim or not score.isfinite():
            raise UsageError("The checkpoint's best cost is not a number.")
        own = Path(str(self.dirpath)) / self.inherited.name
        if own != self.inherited:
            rank_zero_only(copy)(self.inherited, own)
        super().load_state_dict(
            {
                "dirpath": str(self.dirpath),
                "best_model_path": str(own),
                "best_model_score": score,
                "kth_best_model_path": str(own),
                "kth_value": score,
                "best_k_models": {str(own): score},
            }
        )


def copy(file: Path, to: Path) -> None:
    """Copies a file; the copy appears whole."""
    with replacing(to, durable=True) as beside:
        shutil.copyfile(file, beside)
