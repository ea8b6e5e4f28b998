"""Evaluates and keeps a moving average of the weights, with codes of its own."""

from itertools import chain
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from acn_lightning.callbacks.refresh import encode_all
from acn_lightning.callbacks.typed import acn_of
from acn_lightning.module import ACN
from acn_lightning.utils.distributed import share_buffers
from acn_lightning.utils.errors import UsageError

PART = "average"
"""Key of the other weights and codes in a checkpoint."""


class AverageWeights(Callback):
    """Keeps an exponential moving average of the weights (Polyak and Juditsky 1992), which is often
    better than the weights of any step. Training itself does not change: with or without an
    average, the same steps are taken.

    From an epoch's last step until the next epoch begins, the module holds the averaged weights,
    and its bank and index hold all training images' codes by them. So validation, probe, pictures,
    `best.ckpt` and `last.ckpt` are of the average, and with them the test and all commands. What
    `RefreshNeighbours` logs is of the last step's weights. It costs a forward pass of the encoder
    over the training images in each epoch, and a second copy of weights and codes.

    A validation within an epoch has the averaged weights too, with the codes of the last boundary.
    A checkpoint within an epoch holds the weights of its step, to resume from.

    Lightning's `WeightAveraging` would copy the whole module, with bank and index, and would
    evaluate the average among codes of other weights.

    Running statistics are averaged like weights. Early on the average forgets faster: its decay is
    at most (1 + s) / (10 + s) after s steps, as in TensorFlow's `ExponentialMovingAverage`.

    Args:
        decay: share of the average that each step keeps, such as 0.999, which then covers about the
            last 1,000 steps; 0 for no average.

    Raises:
        UsageError: `decay` is out of range.
    """

    def __init__(self, *, decay: float = 0.0) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"average.decay: {decay} is not at least 0 and below 1.")
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        self.codes, self.written = torch.zeros(0), torch.zeros(0)
        self.step = 0
        self.held = False  # whether the module holds the average, and this callback the rest
        self.within = False  # whether it does for a validation within an epoch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = acn_of(pl_module)
        if not self.weights:
            self.weights = {name: one.clone() for name, one in tensors_of(module).items()}
            self.codes, self.written = module.bank.codes.clone(), module.bank.written.clone()
            return
        device = module.bank.codes.device  # that of the networks was not known yet
        self.weights = {name: one.to(device) for name, one in self.weights.items()}
        self.codes, self.written = self.codes.to(device), self.written.to(device)
        self._swap(module)  # the index is of the average's codes
        module.bank.rebuild(module.index)
        self._swap(module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.step = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.held:
            self._swap(acn_of(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        module = acn_of(pl_module)
        if trainer.global_step > self.step:  # not while gradients are still being summed
            self.step = trainer.global_step
            self._update(module)
        if trainer.is_last_batch:  # after `RefreshNeighbours` has made the table
            self._swap(module)
            share_buffers(module)  # each rank has averaged its own
            encode_all(trainer, module)
            module.bank.synchronise()
            module.bank.written.clamp_(max=module.bank.boundary - 1)  # all ranks have them
            module.bank.rebuild(module.index, divide=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not self.held:
            self.within = True
            self._swap(acn_of(pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.within:
            self.within = False
            self._swap(acn_of(pl_module))

    @torch.no_grad()
    def _update(self, module: ACN) -> None:
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        pairs = [(self.weights[name], one) for name, one in tensors_of(module).items()]
        mine, current = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        get_ema_multi_avg_fn(decay)(list(mine), list(current), self.step)
        for own, other in pairs:
            if not own.is_floating_point():  # a count
                own.copy_(other)

    @torch.no_grad()
    def _swap(self, module: ACN) -> None:
        """Exchanges weights and codes with the module."""
        for name, one in tensors_of(module).items():
            before = one.clone()
            one.copy_(self.weights[name])
            self.weights[name].copy_(before)
        bank = module.bank
        bank.codes, self.codes = self.codes, bank.codes
        bank.written, self.written = self.written, bank.written
        self.held = not self.held

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[PART] = {
            "weights": self.weights, "codes": self.codes, "written": self.written, "held": self.held
        }  # fmt: skip

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        kept = checkpoint.get(PART)
        if trainer.state.fn != "fit" or kept is None:
            return
        module = acn_of(pl_module)
        self.weights = {name: one.clone() for name, one in kept["weights"].items()}
        self.codes, self.written = kept["codes"].clone(), kept["written"].clone()
        self.held = kept["held"]
        if self.held:  # go on with the weights and codes of the last step
            device = module.bank.codes.device
            self.codes, self.written = self.codes.to(device), self.written.to(device)
            self._swap(module)


def tensors_of(module: ACN) -> dict[str, Tensor]:
    """What is averaged: parameters and running statistics, by name."""
    named = chain(module.named_parameters(), module.named_buffers())
    return {name: one.detach() for name, one in named}
