"""Checkpoints at epoch boundaries, from which a run goes on as if it had not stopped."""

import shutil
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class BoundaryCheckpoint(ModelCheckpoint):
    """Saves at epoch boundaries only, not where `max_steps` or `max_time` cut an epoch short:
    training goes on exactly from a boundary alone."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        super().__init__(
            folder, name, save_on_train_epoch_end=True, enable_version_counter=False, **options
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)


class LastCheckpoint(BoundaryCheckpoint):
    """`last.ckpt`: the newest epoch boundary, the start of training being the first of them.

    Of an epoch that was cut short it keeps `unfinished.ckpt` beside it: weights to test and use.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "last")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._save_as("last.ckpt", trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if not trainer.is_last_batch:
            self._save_as("unfinished.ckpt", trainer)

    def _save_as(self, name: str, trainer: Trainer) -> None:
        if not getattr(trainer, "fast_dev_run", False):  # which keeps nothing
            trainer.save_checkpoint(Path(str(self.dirpath)) / name)


class BestCheckpoint(BoundaryCheckpoint):
    """`best.ckpt`: the epoch boundary with the lowest held-out cost.

    A resumed run inherits the best one of the run before, file included: what was best is
    remembered, in a folder that is complete in itself.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(folder, "best", monitor=monitor, mode="min")

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
