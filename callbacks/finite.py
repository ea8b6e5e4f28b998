"""A loss that is no number ends the run before anything of it is kept."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from acn_lightning.utils.errors import TrainingError


class StopOnNonFiniteLoss(Callback):
    """Ends the run when the loss turned NaN or infinite, and says at which step.

    The step is noted on the device and looked up now and then, as each look makes the host wait
    for the device. One look is at the epoch's end, before the bank is searched and a checkpoint
    saved, and takes in the weights: the epoch's last step may have spoilt them after its loss was
    computed. So what was saved is good, provided that this callback stands before those that save.

    Args:
        every_n_steps: how often to look.
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
        # Weights may be numbers, and yet so large that no cost is.
        if "val/total" in trainer.callback_metrics:
            self._note(trainer.callback_metrics["val/total"].to(self.first_bad.device), trainer)
        self._look_at_weights(trainer, pl_module)  # an epoch cut short had no last batch

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._look_at_weights(trainer, pl_module)

    def _note(self, figures: torch.Tensor, trainer: Trainer) -> None:
        bad = ~figures.isfinite().all() & (self.first_bad < 0)
        self.first_bad = torch.where(bad, trainer.global_step, self.first_bad)

    def _look_at_weights(self, trainer: Trainer, module: LightningModule) -> None:
        for weight in module.parameters():
            self._note(weight, trainer)
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        if (step := int(self.first_bad)) >= 0:
            raise TrainingError(
                f"The loss or the weights turned NaN or infinite at step {step} (epoch "
                f"{trainer.current_epoch}). Try a lower model.learning_rate or "
                "trainer.gradient_clip_val=1."
            )
