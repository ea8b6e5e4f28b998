"""Checkpoints, from each of which a run goes on as if it had not stopped."""

import shutil
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning.checkpoint import LAST, NEW, rotate
from acn_lightning.utils.errors import UsageError


class LastCheckpoint(Checkpoint):
    """`last.ckpt`: the newest state of a run, and `last-1.ckpt`, ... the ones before.

    Saved when training starts, at each epoch's end, where training stops within an epoch
    (`max_steps`, `max_time`), and when `save` is called.

    Args:
        folder: where to; the first process's counts.
        keep: how many. Where one is damaged, the one before it is there.
        every_n_steps: how often to save within an epoch as well; 0 for never.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(self, folder: Path, *, keep: int = 2, every_n_steps: int = 0) -> None:
        if keep < 1:
            raise UsageError(f"checkpoints.keep: {keep} is below 1.")
        if every_n_steps < 0:
            raise UsageError(f"checkpoints.every_n_steps: {every_n_steps} is below 0.")
        self.folder, self.keep, self.every_n_steps = folder, keep, every_n_steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = trainer.strategy.broadcast(self.folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that goes on in its own folder has it already.
        if not trainer.strategy.broadcast((self.folder / LAST).is_file()):
            self.save(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Between two steps of the optimiser, as gradients are in no checkpoint.
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.is_last_batch or not stepped:
            return
        step = trainer.global_step
        due = self.every_n_steps and step % self.every_n_steps == 0
        if due or trainer.should_stop or step == trainer.max_steps:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch:  # else the epoch was cut short, and its last step was saved
            self.save(trainer)

    @property
    def file(self) -> Path | None:
        """The newest checkpoint; None before the first."""
        return self.folder / LAST if (self.folder / LAST).is_file() else None

    def save(self, trainer: Trainer) -> None:
        """In all processes at once."""
        if getattr(trainer, "fast_dev_run", False):  # which keeps nothing
            return
        trainer.save_checkpoint(self.folder / NEW)
        rank_zero_only(rotate)(self.folder, self.keep)


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: the epoch boundary with the lowest held-out cost.

    A resumed run inherits the best one of the run before, file included: what was best is
    remembered, in a folder that is complete in itself.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(
            folder, "best", monitor=monitor, mode="min", save_on_train_epoch_end=True,
            enable_version_counter=False,
        )  # fmt: skip

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch:  # the costs of an epoch that was cut short are of other images
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        inherited = Path(state_dict["best_model_path"])
        if not inherited.is_file():  # nothing was best yet, or it is gone: begin anew
            return
        own = Path(str(self.dirpath)) / inherited.name
        if own != inherited:
            rank_zero_only(own.parent.mkdir)(parents=True, exist_ok=True)
            rank_zero_only(shutil.copy2)(inherited, own)
        super().load_state_dict(
            state_dict
            | {
                "dirpath": str(self.dirpath),
                "best_model_path": str(own),
                "kth_best_model_path": str(own),
                "best_k_models": {str(own): state_dict["best_model_score"]},
            }
        )
