"""Checks that all ranks of a run agree, or has them agree."""

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision, Precision

from acn_lightning.callbacks.typed import data_of
from acn_lightning.utils.distributed import gather, single_process
from acn_lightning.utils.errors import UsageError


class CheckAgreement(Callback):
    """Checks before the first step that all ranks have the same data and start at the same step.

    Each host reads its own disk. Without this check, a host that has other images, or that cannot
    see the checkpoint that the others resume from, would train along silently.

    Raises:
        UsageError: on all ranks; the message shows which ones differ.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if single_process():
            return
        data = data_of(trainer)
        mine = [trainer.global_step, trainer.current_epoch, int(data.fingerprint[-15:], 16)]
        everyones = gather(torch.tensor(mine, device=pl_module.device))
        steps, epochs, prints = zip(*(one.tolist() for one in everyones), strict=True)
        for name, values in [("steps", steps), ("epochs", epochs)]:
            if len(set(values)) > 1:
                raise UsageError(
                    f"resume: ranks start at different {name}: {list(values)}, in rank order. "
                    "Check that all hosts see the same run folder."
                )
        if len(set(prints)) > 1:
            others = [rank for rank, one in enumerate(prints) if one != prints[0]]
            raise UsageError(
                f"data.root: ranks {others} have different training images from rank 0. Give all "
                "hosts the same files."
            )


class ShareWay(Callback):
    """Has all ranks take their steps in the way that rank 0 has measured to be the fastest.

    Args:
        way: (precision, whether the memory format is channels last, whether to compile) on rank 0,
            whose Trainer and module have it already; None on the others.
    """

    def __init__(self, way: tuple[str, bool, bool] | None) -> None:
        self.way = way

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        everyones = trainer.strategy.broadcast(self.way)
        if self.way is not None or everyones is None:
            return
        self.way = precision, channels_last, compiled = everyones
        trainer.strategy.precision_plugin = plugin_for(precision, pl_module.device)
        last = torch.channels_last if channels_last else torch.contiguous_format
        pl_module.to(memory_format=last)
        if compiled:
            pl_module.compile()


def plugin_for(precision: str, device: torch.device) -> Precision:
    """Lightning's plugin of a precision that keeps weights in 32 bits."""
    return Precision() if precision == "32-true" else MixedPrecision(precision, device.type)  # type: ignore[arg-type]
