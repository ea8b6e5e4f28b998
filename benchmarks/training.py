"""Training: what the framework adds to a step, and what its defaults take from a PixelCNN's."""

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from acn_lightning import objective
from acn_lightning.callbacks.parts import acn_of
from acn_lightning.commands.report import hush
from acn_lightning.config.compose import Plain, compose
from acn_lightning.data import Batch
from acn_lightning.experiment import build as building
from acn_lightning.experiment import folder as run
from acn_lightning.experiment import run as experiment
from benchmarks.data import images_in
from benchmarks.measure import Figure, alternate, clock, seconds_each
from benchmarks.references import BareLoop, contiguous, decoder_cost

SETTLING = 3
"""Steps after each change of sides that do not count."""


# ---------------------------------------------------------------- a step


def step(
    block: int = 20, blocks: int = 8, size: int = 60_000, overrides: Sequence[str] = ()
) -> Figure:
    """A training step of `acn fit mnist+small` against one of a bare PyTorch loop.

    It is `acn fit` that runs, with its callbacks, its log and its bar, and beside them a callback
    that notes when a step starts. After each block of steps that callback lets the bare loop take
    as many, on the same batches, which cost it nothing: both sides live in one process from the
    first block to the last, and figures are medians over all steps that count.

    Args:
        block: steps in a row.
        blocks: of each side.
        size: images.
        overrides: of the config.
    """
    times = SideBySide(block, blocks)

    def make_trainer(config: Plain, callbacks: list[Callback], *rest: Any) -> Trainer:
        return run.make_trainer(config, [times, *callbacks], *rest)

    quieten()
    with (
        TemporaryDirectory() as folder,
        patch.object(experiment, "make_trainer", make_trainer),
        redirect_stdout(io.StringIO()),  # the bar's
        suppress(EnoughError),
    ):
        where = images_in(folder, size)
        bar = ["trainer.enable_progress_bar=true", f"trainer.default_root_dir={folder}/runs"]
        experiment.fit("mnist+small", [*where, *bar, *overrides])
    note = f"{len(times.ours)} steps each"
    return Figure(median(times.ours), median(times.reference), "<= 1.05", note)


class EnoughError(Exception):
    """All blocks are done. What would come next, the end of an epoch, is no step."""


class SideBySide(Callback):
    """Times the Trainer's steps, from the start of one to the start of the next, and those of a
    bare loop after each block of them.

    Args:
        block: steps in a row.
        blocks: of each side that count; one before them warms up.

    Attributes:
        ours, reference: seconds of the steps that count.

    Raises:
        EnoughError: at the end.
    """

    def __init__(self, block: int, blocks: int) -> None:
        self.block, self.blocks = block, blocks
        self.ours: list[float] = []
        self.reference: list[float] = []
        self.warm = False
        self.batches: list[Batch] = []
        self.starts: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = acn_of(pl_module)
        self.bare = BareLoop(module, trainer.precision_plugin.forward_context)
        self.codes = module.bank.codes.clone()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.starts.append(clock())
        if len(self.batches) == self.block:
            self._end_block()
            self.starts = [clock()]
        self.batches.append(batch)

    def _end_block(self) -> None:
        starts = [clock()]
        for batch in self.batches:
            self.bare.step(batch.image, self.codes[: len(batch.image)])
            starts.append(clock())
        if self.warm:
            self.ours += seconds_each(self.starts)[SETTLING:]
            self.reference += seconds_each(starts)[SETTLING:]
        self.warm, self.batches = True, []
        if len(self.ours) >= self.blocks * (self.block - SETTLING):
            raise EnoughError


# ---------------------------------------------------------------- the decoder


def decoder(repeats: int = 15, overrides: Sequence[str] = ()) -> Figure:
    """Loss, gradients and their removal of mnist+small's PixelCNN for a batch, in the precision and
    memory format that its config has on this machine, against the same weights in eager PyTorch,
    float32 and contiguous."""
    quieten()
    with TemporaryDirectory() as folder:
        config = compose("mnist+small", [*images_in(folder, 3000), *overrides])
        data, module = building.build(config)
        trainer = run.make_trainer(config, [], [], Path(folder))
    device = trainer.strategy.root_device
    ours = module.decoder.to(device)
    reference = contiguous(ours)
    image = (data.fixed_set.images[: data.batch_size] / 255).to(device)
    z = torch.randn(len(image), config["model"]["code_size"], device=device)

    def configured(z: Tensor, image: Tensor) -> Tensor:
        return objective.distortion(ours(z), image).mean()

    cost = torch.compile(configured) if config["compile"] else configured

    def step() -> None:
        with trainer.precision_plugin.forward_context():
            loss = cost(z, image)
        loss.backward()
        ours.zero_grad()

    def eager_step() -> None:
        decoder_cost(reference, z, image).backward()
        reference.zero_grad()

    timed = alternate(step, eager_step, repeats)
    memory = "channels last" if config["channels_last"] else "contiguous"
    compiled = ", compiled" if config["compile"] else ""
    note = f"{trainer.precision}, {memory}{compiled}, batches of {len(image)}"
    return Figure(timed.ours_s, timed.reference_s, ">= 2", note)


def quieten() -> None:
    """What Lightning says of a run would stand between figures."""
    hush()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
