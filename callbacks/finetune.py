"""Fine-tuning: which parts train, from which epoch, and how fast."""

import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn
from torch.optim import Optimizer

from acn_lightning.callbacks.typed import acn_of
from acn_lightning.utils.errors import UsageError, check_range

PRETRAINED, FROZEN = "pretrained", "frozen"
"""Names of the optimiser's parameter groups. The remaining parameters are the first group."""


class Finetune(BackboneFinetuning):
    """Fine-tunes an ACN, some or all of whose weights come from elsewhere (`ACN.pretrained`).

    The options and the schedule are those of Lightning's `BackboneFinetuning`. Frozen parts start
    to train at a given epoch, at a tenth of their final learning rate, which doubles each epoch
    until it is reached.

    The implementation differs. Lightning gives frozen parameters no gradient, and adds them to the
    optimiser when they thaw. With Lightning 2.6 we measured three failures of this: a resumed run
    leaves parameters frozen for good; DDP does not see the thawed parameters, so each rank trains
    its own copy; and a `LambdaLR` fails at its next step. Here, parameters that will thaw have a
    gradient and a learning rate of 0 instead. All groups exist from the start, and the optimiser
    state in a checkpoint records how far each has thawed.

    Args:
        checkpoint: checkpoint to take the initial weights from; null starts from random ones.
        freeze: parts that do not train: encoder, shape (the codes' mean and variance), prior,
            decoder, or a submodule of one by its name in the module, such as decoder.network.
        unfreeze_epoch: epoch from which the frozen parts train; null for never.
        rate: factor of `optimizer.learning_rate` for weights that come from elsewhere.

    Raises:
        UsageError: an option is out of range or contradicts another; when fitting, the module has
            no such part, no part is left to train, or no weights come from elsewhere.
    """

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        freeze: list[str] = [],  # noqa: B006  # a config's default, never mutated
        unfreeze_epoch: int | None = None,
        rate: float = 1.0,
    ) -> None:
        super().__init__(sys.maxsize if unfreeze_epoch is None else unfreeze_epoch)
        if not 0 < rate <= 1e3:
            raise UsageError(f"finetune.rate: {rate} is not above 0 and at most 1000.")
        if unfreeze_epoch is not None:
            check_range("finetune.unfreeze_epoch", unfreeze_epoch, 1, 10**9)
        if unfreeze_epoch is not None and not freeze:
            raise UsageError("finetune.unfreeze_epoch: nothing is frozen. Set freeze=[...] too.")
        self.freeze_parts, self.unfreeze_epoch, self.rate = list(freeze), unfreeze_epoch, rate
        self.used = bool(freeze) or rate != 1

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        if self.used and not acn_of(pl_module).pretrained:
            raise UsageError(
                "finetune: these keys need weights from elsewhere, and this run has none. Use acn "
                "finetune CHECKPOINT NAME to start from a checkpoint's weights."
            )
        parts = self._frozen(pl_module)
        if self.unfreeze_epoch is None:
            self.freeze(parts, train_bn=False)
        if not any(parameter.requires_grad for parameter in pl_module.parameters()):
            raise UsageError("finetune.freeze: no part would be left to train.")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Splits the optimiser's parameters into groups, before a checkpoint's state is loaded."""
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set_modes(trainer, pl_module)  # an epoch that resumes midway does not start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._set_modes(trainer, pl_module)

    def _set_modes(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for part in self._frozen(pl_module):  # freezes running means and dropout too
            part.train(trainer.current_epoch >= self.unfreeze_backbone_at_epoch)

    def finetune_function(
        self, pl_module: LightningModule, epoch: int, optimizer: Optimizer
    ) -> None:
        for group in optimizer.param_groups:
            if group.get("name") == FROZEN:
                group["factor"] = self.rate * self.thawed(epoch)

    def thawed(self, epoch: int) -> float:
        """The fraction of their final learning rate that the frozen parts have in an epoch."""
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
                    "decoder, and submodules of these, such as encoder.body."
                ) from error
        return parts

    def state_dict(self) -> dict[str, Any]:
        return {}  # the optimiser's groups hold all of it

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass
