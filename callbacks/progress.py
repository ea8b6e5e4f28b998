"""Progress for a log file, where a bar would leave thousands of lines."""

import time

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class PrintEpochs(Callback):
    """Prints one line per epoch: costs in nats per image, and seconds."""

    def __init__(self) -> None:
        self.start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.perf_counter()  # an epoch resumed midway has no start hook

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.perf_counter()

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        costs = ", ".join(
            f"{name} {metrics[name]:.2f}"
            for name in ("train/total", "val/rate", "val/distortion", "val/total")
            if name in metrics
        )
        seconds = time.perf_counter() - self.start
        limit = trainer.max_epochs if trainer.max_epochs is not None else -1
        epoch = f"{trainer.current_epoch + 1}" + (f"/{limit}" if limit >= 0 else "")
        print(f"epoch {epoch}: {costs}, {seconds:.1f} s", flush=True)
