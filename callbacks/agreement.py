"""Checks that all ranks of a run agree, or has them agree."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision, Precision

from acn_lightning.callbacks.typed import data_of
from acn_lightning.utils.distributed import gather, single_process
from acn_lightning.utils.errors import UsageError

SAME_FOLDER = "Check that all hosts see the same run folder."


class CheckAgreement(Callback):
    """Checks before the first codes are exchanged that all ranks have the same data and resume from
    the same step, and before the first step that they start at the same one.

    Each host reads its own disk. Without this check, a host that has other images would train along
    silently, and one that cannot see the checkpoint would exchange codes that the others, which
    have them from there, never send.

    Raises:
        UsageError: on all ranks; the message shows which ones differ.
    """

    def __init__(self) -> None:
        self.loaded = -1  # the step of the checkpoint, if this rank has one

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.loaded = checkpoint["global_step"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if single_process():
            return
        fingerprint = int(data_of(trainer).fingerprint[-15:], 16)
        steps, prints = of_all_ranks(pl_module.device, self.loaded, fingerprint)
        if len(set(steps)) > 1:
            found = ", ".join("none" if step < 0 else str(step) for step in steps)
            raise UsageError(
                f"resume: ranks have checkpoints of different steps: [{found}], in rank order. "
                f"{SAME_FOLDER}"
            )
        if len(set(prints)) > 1:
            others = [rank for rank, one in enumerate(prints) if one != prints[0]]
            raise UsageError(
                f"data.root: ranks {others} have different training images from rank 0. Give all "
                "hosts the same files."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Checkpoints of one step may be from before and after the epoch's end.
        if single_process():
            return
        counted = of_all_ranks(pl_module.device, trainer.global_step, trainer.current_epoch)
        for name, values in zip(("steps", "epochs"), counted, strict=True):
            if len(set(values)) > 1:
                raise UsageError(
                    f"resume: ranks start at different {name}: {list(values)}, in rank order. "
                    f"{SAME_FOLDER}"
                )


def of_all_ranks(device: torch.device, *numbers: int) -> list[tuple[int, ...]]:
    """For each number, those of all ranks, in rank order."""
    everyones = gather(torch.tensor(numbers, device=device))
    return list(zip(*(one.tolist() for one in everyones), strict=True))


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
