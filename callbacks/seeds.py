"""Random numbers that a resumed run has in common with one that never stopped."""

from contextlib import ExitStack

import numpy as np
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.seed import isolate_rng


class SeedEpochs(Callback):
    """Seeds each epoch from (seed, epoch, rank), and each validation or test from (seed, rank).

    A run resumed at an epoch boundary so draws what an undisturbed one draws, without a random
    state to carry along; held-out costs are measured with the same noise every time; and a
    validation in the middle of an epoch leaves the training's numbers alone.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.isolation = ExitStack()

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
