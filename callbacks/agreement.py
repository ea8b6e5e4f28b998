"""What all processes of a run have to have in common."""

import torch
from lightning import Callback, LightningModule, Trainer

from acn_lightning.callbacks.parts import data_of
from acn_lightning.utils.distributed import alone, gather
from acn_lightning.utils.errors import UsageError


class CheckAgreement(Callback):
    """Before the first step: that all processes have the same data and begin at the same step.

    Each host reads its own disk. One that has other images, or that does not see the checkpoint
    which the others go on from, would train along without a word.

    Raises:
        UsageError: in all processes; it names the ranks.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if alone():
            return
        data = data_of(trainer)
        mine = [trainer.global_step, trainer.current_epoch, int(data.fingerprint[-15:], 16)]
        everyones = gather(torch.tensor(mine, device=pl_module.device))
        steps, epochs, prints = zip(*(one.tolist() for one in everyones), strict=True)
        for name, values in [("steps", steps), ("epochs", epochs)]:
            if len(set(values)) > 1:
                raise UsageError(
                    f"resume: the processes begin at different {name}, {list(values)} by rank. Do "
                    "all hosts see the same run folder?"
                )
        if len(set(prints)) > 1:
            others = [rank for rank, one in enumerate(prints) if one != prints[0]]
            raise UsageError(
                f"data.root: ranks {others} have other training images than rank 0. Give all hosts "
                "the same files."
            )
