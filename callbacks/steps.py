"""Measures how training steps go: their speed, learning rate and gradients."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer


class MeasureSteps(Callback):
    """Logs for each epoch:

    - `train/images_per_second`: of all processes together, over the training steps of the epoch
      with the loading of their data; searches, validations and pictures are not counted;
    - `train/learning_rate`: at the last step, of the optimiser's first group of parameters; that of
      another group NAME as `train/learning_rate_NAME`;
    - `train/gradient_norm`: the mean over the optimiser's steps of the norm of all gradients, as
      they are before clipping. Steps whose norm is not finite, which mixed precision skips, are
      left out.

    The norms are summed on the device, so no step waits for the device. A checkpoint within an
    epoch has the sum, as a run that resumes there has to log the same mean.
    """

    def __init__(self) -> None:
        self.norms, self.steps = torch.zeros(()), torch.zeros(())
        self.start = self.paused = self.pauses = self.seconds = 0.0
        self.images = 0
        self.weights: list[nn.Parameter] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.norms, self.steps = (one.to(pl_module.device) for one in (self.norms, self.steps))
        self.weights = []  # of another module, perhaps
        self._start_clock()  # an epoch resumed midway has no start hook

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_clock()

    def _start_clock(self) -> None:
        self.start, self.pauses, self.seconds = time.perf_counter(), 0.0, 0.0
        self.images = 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pauses += time.perf_counter() - self.paused

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        # By now gradients are summed over batches and processes, and mixed precision's scale is
        # taken out.
        if not self.weights:
            self.weights = list(pl_module.parameters())  # to walk through modules takes a while
        gradients = [one.grad for one in self.weights if one.grad is not None]
        norm = get_total_norm(gradients).float()
        finite = norm.isfinite()
        self.norms += torch.where(finite, norm, 0)
        self.steps += finite

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += len(batch.index) * trainer.world_size
        self.seconds = time.perf_counter() - self.start - self.pauses

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stats = {f"train/{name}": rate for name, rate in learning_rates(trainer).items()}
        if self.steps:
            stats["train/gradient_norm"] = float(self.norms / self.steps)
        if self.images:
            stats["train/images_per_second"] = self.images / max(self.seconds, 1e-9)
        for name, value in stats.items():
            pl_module.log(name, value, on_step=False, on_epoch=True, rank_zero_only=True)
        self.norms.zero_()
        self.steps.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"norms": float(self.norms), "steps": int(self.steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.norms = torch.tensor(float(state_dict["norms"]))
        self.steps = torch.tensor(float(state_dict["steps"]))


def learning_rates(trainer: Trainer) -> dict[str, float]:
    """The learning rate of each group of the optimiser's parameters."""
    first, *others = trainer.optimizers[0].param_groups
    rates = {"learning_rate": first["lr"]}
    return rates | {f"learning_rate_{one['name']}": one["lr"] for one in others if "name" in one}
