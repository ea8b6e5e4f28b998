"""Ends a run: when its held-out cost no longer falls, or when its time is over."""

import math
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from torch import Tensor

from acn_lightning.callbacks.progress import say
from acn_lightning.utils.errors import UsageError, check_range


class StopEarly(EarlyStopping):
    """Lightning's `EarlyStopping`, for whole epochs: ends the run once the cost that `best.ckpt` is
    chosen by has not fallen for some epochs.

    A run that has ended so, and is resumed, is complete; with a larger patience it goes on.

    Args:
        monitor: name of the cost.
        patience: epochs with a validation in a row after which the run ends, if none of them has a
            lower cost; null for never.
        min_delta: nats per image by which the cost has to be lower.

    Attributes:
        wanted: whether there is a patience; if not, no run should have this callback.

    Raises:
        UsageError: an option is out of range; when fitting, nothing is validated, or not at epochs'
            ends.
    """

    def __init__(
        self, monitor: str, *, patience: int | None = None, min_delta: float = 0.0
    ) -> None:
        if patience is not None:
            check_range("early_stopping.patience", patience, 1, 10**9)
        check_range("early_stopping.min_delta", min_delta, 0, 1e9)
        super().__init__(monitor, min_delta, patience or 1, check_on_train_epoch_end=True)
        self.wanted = patience is not None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor.startswith("val/") and not trainer.enable_validation:
            raise UsageError(
                "early_stopping.patience: nothing is validated. Leave trainer.limit_val_batches "
                "out, or early_stopping.patience."
            )
        # No epochs: Lightning counts steps through all of them; no batch: it goes by the clock.
        when = trainer.check_val_every_n_epoch, trainer.val_check_batch
        if self.monitor.startswith("val/") and None in when:
            raise UsageError(
                "early_stopping.patience counts epochs, so they must be validated at their ends. "
                "Set trainer.check_val_every_n_epoch=1 and leave trainer.val_check_interval out, "
                "or leave early_stopping.patience out."
            )
        if self.wait_count >= self.patience:  # the run that is resumed had ended
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The costs of an epoch that was cut short cover other images.
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        if not trainer.is_last_batch or not validated:
            return
        super().on_train_epoch_end(trainer, pl_module)
        if self.wait_count >= self.patience:
            say(
                f"Stopped: {self.monitor} has not fallen below {self.best_score:.2f} for "
                f"early_stopping.patience={self.patience} epochs."
            )

    def state_dict(self) -> dict[str, Any]:
        return {"wait_count": self.wait_count, "best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        waited, best = state_dict["wait_count"], state_dict["best_score"]
        if not isinstance(waited, int) or not isinstance(best, Tensor) or best.ndim:
            raise UsageError("The checkpoint's state of early_stopping is damaged.")
        if math.isnan(best):
            raise UsageError("The checkpoint's best cost is not a number.")
        self.wait_count, self.best_score = waited, best.to(torch.float32).cpu()


class StopOnTime(Timer):
    """Lightning's `Timer`, which ends a run between two steps of the optimiser only: gradients that
    are still being summed are in no checkpoint, so a run that ended there would lose its work."""

    @property
    def state_key(self) -> str:
        return Timer.__qualname__  # as in checkpoints written before

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        between = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if between or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
