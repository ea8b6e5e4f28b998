"""Checkpoints at epoch boundaries, from which a run goes on as if it had not stopped."""

import shutil
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`: the newest epoch boundary, the start of training being the first of them.

    Of an epoch that `max_steps` or `max_time` cut short it keeps `unfinished.ckpt` beside it:
    weights to test and use. Training goes on exactly from a boundary only.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder, "last", save_on_train_epoch_end=True, enable_version_counter=False
        )  # fmt: skip

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not getattr(trainer, "fast_dev_run", False):  # which keeps nothing
            trainer.save_checkpoint(Path(str(self.dirpath)) / "last.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)
        elif not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(Path(str(self.dirpath)) / "unfinished.ckpt")


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
