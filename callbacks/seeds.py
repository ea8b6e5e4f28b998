"""Gives a resumed run the same random numbers as one that never stopped."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from acn_lightning.utils.distributed import gather, of_this_rank


class SeedEpochs(Callback):
    """Seeds each epoch from (seed, epoch, rank), and each validation or test from (seed, rank).

    A run resumed at an epoch boundary thus draws the same numbers as one that never stopped. A run
    resumed within an epoch restores each rank's random state from the checkpoint. Held-out costs
    are measured with the same noise every time, and a validation in the middle of an epoch does
    not change the random numbers of training.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.isolation = ExitStack()
        self.resumed: list[Tensor] = []

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        state = torch.get_rng_state()
        if pl_module.device.type == "cuda":
            state = torch.cat([state, torch.cuda.get_rng_state(pl_module.device)])
        checkpoint["random"] = [one.cpu() for one in gather(state.to(pl_module.device))]

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.resumed = checkpoint.get("random", [])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fit_loop.restarted_mid_epoch and self.resumed:
            size = len(torch.get_rng_state())
            state = of_this_rank(self.resumed)
            torch.set_rng_state(state[:size])
            if pl_module.device.type == "cuda" and len(state) > size:
                torch.cuda.set_rng_state(state[size:], pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seed(trainer, 1 + trainer.current_epoch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.isolation.enter_context(isolate_rng())
        self._seed(trainer, 0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.isolation.close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seed(trainer, 0)

    def _seed(self, trainer: Trainer, epoch: int) -> None:
        mixed = np.random.SeedSequence([self.seed, epoch, trainer.global_rank])
        seed_everything(int(mixed.generate_state(1)[0]), verbose=False)
