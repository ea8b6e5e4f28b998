"""Checks that all ranks of a run agree."""

import torch
from lightning import Callback, LightningModule, Trainer

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
