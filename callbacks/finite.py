"""Ends a run at a non-finite loss before any of its effects are saved."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from acn_lightning.utils.errors import TrainingError


class StopOnNonFiniteLoss(Callback):
    """Ends the run when the loss turns NaN or infinite, and reports the step.

    The step is recorded on the device and read only now and then, because each read makes the host
    wait for the device. One read is at the end of an epoch, before the bank is searched and a
    checkpoint saved. It covers the weights too: the epoch's last step may have spoilt them after
    its loss was computed. So every saved checkpoint is good, provided that this callback comes
    before those that save.

    Args:
        every_n_steps: number of steps between reads.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self.first_bad = torch.tensor(-1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.first_bad = torch.full((), -1, device=pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        self._note(outputs["loss"], trainer)
        if trainer.is_last_batch:
            self._look_at_weights(trainer, pl_module)
        elif trainer.global_step % self.every_n_steps == 0:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Weights may be finite, yet so large that the costs are not.
        if "val/total" in trainer.callback_metrics:
            self._note(trainer.callback_metrics["val/total"].to(self.first_bad.device), trainer)
        self._look_at_weights(trainer, pl_module)  # an epoch cut short had no last batch

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._look_at_weights(trainer, pl_module)

    def _note(self, values: torch.Tensor, trainer: Trainer) -> None:
        bad = ~values.isfinite().all() & (self.first_bad < 0)
        self.first_bad = torch.where(bad, trainer.global_step, self.first_bad)

    def _look_at_weights(self, trainer: Trainer, module: LightningModule) -> None:
        for weight in module.parameters():
            self._note(weight, trainer)
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        if (step := int(self.first_bad)) >= 0:
            raise TrainingError(
                f"The loss or the weights turned NaN or infinite at step {step} (epoch "
                f"{trainer.current_epoch}). Try a lower optimizer.learning_rate or "
                "trainer.gradient_clip_val=1."
            )
