"""Fine-tuning: what learns, from when on, and how fast."""

import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn
from torch.optim import Optimizer

from acn_lightning.callbacks.parts import acn_of
from acn_lightning.utils.errors import UsageError

PRETRAINED, FROZEN = "pretrained", "frozen"
"""Names of groups of the optimiser's parameters; the rest is the first group."""


class Finetune(BackboneFinetuning):
    """Trains an ACN whose weights came, in part or all, from elsewhere (`ACN.pretrained`).

    Lightning's `BackboneFinetuning` by its options and its rule: frozen parts begin to learn at an
    epoch, at a tenth of the rate that they are to have, twice as much each epoch until they have
    it. Its way is another one here. There, frozen parameters have no gradient and come to the
    optimiser when they thaw. With Lightning 2.6 that meant, measured: parameters that a resumed run
    leaves frozen for good; DDP, which never hears of them, so that each process trains weights of
    its own; and a `LambdaLR` that fails at its next step. So here parameters that are to thaw have
    a gradient and a learning rate of 0, all groups are there from the start, and a checkpoint's
    optimiser knows how far each is.

    Args:
        checkpoint: whose weights to begin with; null begins with random ones.
        freeze: parts that do not learn: encoder, shape (the codes' mean and variance), prior,
            decoder, or a part of one by its name in the module, such as decoder.network.
        unfreeze_epoch: from which epoch they do; null for never.
        rate: of what came from elsewhere, as a factor of `model.learning_rate`.

    Raises:
        UsageError: an option is out of range, or contradicts another; when fitting, a part is none
            of the module's, or none is left to learn, or no
            weights came from elsewhere.
    """

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        freeze: list[str] = [],  # noqa: B006  # a config's default; it is not changed
        unfreeze_epoch: int | None = None,
        rate: float = 1.0,
    ) -> None:
        super().__init__(sys.maxsize if unfreeze_epoch is None else unfreeze_epoch)
        if not 0 < rate <= 1e3:
            raise UsageError(f"finetune.rate: {rate} is not above 0.")
        if unfreeze_epoch is not None and unfreeze_epoch < 1:
            raise UsageError(f"finetune.unfreeze_epoch: {unfreeze_epoch} is below 1.")
        if unfreeze_epoch is not None and not freeze:
            raise UsageError("finetune.unfreeze_epoch: say what is frozen till then, freeze=[...].")
        self.freeze_parts, self.unfreeze_epoch, self.rate = list(freeze), unfreeze_epoch, rate
        self.used = bool(freeze) or rate != 1

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        if self.used and not acn_of(pl_module).pretrained:
            raise UsageError(
                "finetune: its keys are for weights from elsewhere, and there are none here. "
                "acn finetune CHECKPOINT NAME takes those of a checkpoint."
            )
        parts = self._frozen(pl_module)
        if self.unfreeze_epoch is None:
            self.freeze(parts, train_bn=False)
        if not any(parameter.requires_grad for parameter in pl_module.parameters()):
            raise UsageError("finetune.freeze: no part would be left to learn.")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Divides the optimiser's parameters, before it gets what a checkpoint has of them."""
        frozen = {id(one) for part in self._frozen(pl_module) for one in part.parameters()}
        taken = set(acn_of(pl_module).pretrained)
        groups: dict[str | None, list[nn.Parameter]] = {None: [], PRETRAINED: [], FROZEN: []}
        for name, parameter in pl_module.named_parameters():
            kind = PRETRAINED if name in taken else None
            groups[FROZEN if id(parameter) in frozen else kind].append(parameter)
        if not taken and not frozen:
            return
        (optimizer,) = trainer.optimizers
        (defaults,) = optimizer.param_groups
        optimizer.param_groups[:] = [
            defaults | {"params": some, "name": kind, "factor": 1.0 if kind is None else self.rate}
            for kind, some in groups.items()
            if some
        ]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        for part in self._frozen(pl_module):  # running means and dropout are frozen as well
            part.train(trainer.current_epoch >= self.unfreeze_backbone_at_epoch)

    def finetune_function(
        self, pl_module: LightningModule, epoch: int, optimizer: Optimizer
    ) -> None:
        for group in optimizer.param_groups:
            if group.get("name") == FROZEN:
                group["factor"] = self.rate * self.thawed(epoch)

    def thawed(self, epoch: int) -> float:
        """How much of the rate that they are to have the frozen parts have in an epoch."""
        since = self.unfreeze_backbone_at_epoch
        if epoch < since:
            return 0.0
        ratio = self.backbone_initial_ratio_lr
        for one in range(since + 1, epoch + 1):
            ratio *= self.lambda_func(one)
        return min(1.0, ratio)

    def _frozen(self, module: LightningModule) -> list[nn.Module]:
        parts = []
        for name in self.freeze_parts:
            try:
                parts.append(module.get_submodule(name) if name else module)
            except AttributeError as error:
                raise UsageError(
                    f"finetune.freeze: there is no part {name}. Parts are encoder, shape, prior, "
                    "decoder, and parts of these by their names, such as encoder.body."
                ) from error
        return parts

    def state_dict(self) -> dict[str, Any]:
        return {}  # the optimiser's groups have it all

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass
