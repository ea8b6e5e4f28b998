"""Times what the framework adds to a step, and what its defaults save in a PixelCNN."""

import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from acn_lightning import objective
from acn_lightning.callbacks.typed import acn_of
from acn_lightning.commands.fit import fit
from acn_lightning.config.compose import Plain, compose
from acn_lightning.data import Batch
from acn_lightning.experiment import train, trainer
from acn_lightning.experiment.build import build
from acn_lightning.utils.quiet import quiet_libraries
from benchmarks.data import images_in, photos_in
from benchmarks.measure import Figure, Timed, alternate, clock, seconds_each
from benchmarks.references import BareLoop, EarlierFolder, decoder_cost, plainly

SETTLING = 3
"""Steps that do not count after each change of sides."""


@contextmanager
def quieten() -> Iterator[None]:
    """Silences Lightning, whose messages would appear between the figures."""
    with quiet_libraries():
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        yield


# ---------------------------------------------------------------- a step


@quieten()
def step(
    block: int = 20,
    blocks: int = 8,
    size: int = 60_000,
    overrides: Sequence[str] = (),
    experiment: str = "mnist+small",
) -> Figure:
    """Compares a training step of `acn fit EXPERIMENT` with one of a bare PyTorch loop.

    `acn fit` runs with its callbacks, log and progress bar, and with an extra callback that notes
    when a step starts. After each block of steps that callback runs as many steps of the bare loop
    on the same batches, which the loop gets for free. Both sides share one process throughout, and
    figures are medians over all steps that count.

    Args:
        block: steps in a row.
        blocks: number of blocks of each side.
        size: number of images.
        overrides: overrides of the config.
        experiment: `mnist`, with or without layers.
    """
    times = SideBySide(block, blocks)

    def make_trainer(config: Plain, callbacks: list[Callback], *rest: Any) -> Trainer:
        return trainer.make_trainer(config, [times, *callbacks], *rest)

    with (
        TemporaryDirectory() as folder,
        patch.object(train, "make_trainer", make_trainer),
        redirect_stdout(io.StringIO()),  # the progress bar's
        suppress(EnoughError),
    ):
        where = images_in(folder, size)
        bar = ["trainer.enable_progress_bar=true", f"trainer.default_root_dir={folder}/runs"]
        fit(experiment, [*where, *bar, *overrides])
    note = f"{len(times.ours)} steps each"
    return Figure(median(times.ours), median(times.reference), "<= 1.05", note)


class EnoughError(Exception):
    """All blocks are done; the end of the epoch, which would come next, is not a step."""


class SideBySide(Callback):
    """Times the Trainer's steps, from the start of one to the start of the next, and after each
    block the steps of a bare loop.

    Args:
        block: steps in a row.
        blocks: blocks of each side that count; one more before them warms up.

    Attributes:
        ours, reference: seconds of the steps that count.

    Raises:
        EnoughError: after the last block.
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


# ---------------------------------------------------------------- a step of folder


@quieten()
def step_folder(repeats: int = 7, overrides: Sequence[str] = ()) -> Figure:
    """Compares a training step of `folder` with a convolutional decoder at 28 x 28 in colour,
    batches of 64 and 32 channels, in the precision and memory format its config has on this
    machine, with the step as it was, in CPU seconds: with ten logistics per pixel, and with as many
    as now."""
    networks = ["model.encoder.channels=32", "model.prior.width=512", "model.decoder.kind=conv",
                "model.decoder.channels=32", "data.batch_size=64"]  # fmt: skip
    with TemporaryDirectory() as folder:
        config = compose("folder", [*photos_in(folder, 300), *networks, *overrides])
        data, module = build(config)
        made = trainer.make_trainer(config, [], [], Path(folder))
    image = data.fixed_set.images[: data.batch_size] / 255
    code = torch.randn(len(image), config["model"]["code_size"])
    ours = BareLoop(module, made.precision_plugin.forward_context)
    ours.optimizer = module.optimizer.make(ours.networks.parameters(), fused=True)
    if config["compile"] is True:
        ours.loss = torch.compile(ours.loss)  # type: ignore[method-assign]
    mixtures = config["model"]["likelihood"]["mixtures"]
    earlier, alike = EarlierFolder(module), EarlierFolder(module, mixtures)

    def against(reference: BareLoop) -> Timed:
        steps = (lambda: ours.step(image, code)), (lambda: reference.step(image, code))
        return alternate(*steps, repeats, now=time.process_time)

    timed, other = against(earlier), against(alike)
    ratio = other.reference_s / other.ours_s
    note = f"{made.precision}; {ratio:.2f} against {mixtures} logistics per pixel"
    found = {"ratio_of_equal_mixtures": ratio}
    return Figure(timed.ours_s, timed.reference_s, ">= 2", note, found)


# ---------------------------------------------------------------- the decoder


@quieten()
def decoder(
    repeats: int = 15, overrides: Sequence[str] = (), experiment: str = "mnist+small"
) -> Figure:
    """Compares computing and clearing the gradients of the experiment's PixelCNN for a batch, in
    the precision and memory format its config has on this machine, with the same weights in
    PyTorch's own layers, eager, in float32 and contiguous. There is a target for 16 bits alone: in
    32, the products of the convolutions are the same and take most of the time."""
    with TemporaryDirectory() as folder:
        config = compose(experiment, [*images_in(folder, 3000), *overrides])
        data, module = build(config)
        made = trainer.make_trainer(config, [], [], Path(folder))
    device = made.strategy.root_device
    ours = module.decoder.to(device)
    reference = plainly(ours)
    image = (data.fixed_set.images[: data.batch_size] / 255).to(device)
    z = torch.randn(len(image), config["model"]["code_size"], device=device)

    def configured(z: Tensor, image: Tensor) -> Tensor:
        return objective.distortion(ours(z), image).mean()

    compiling = config["compile"] is True  # not "auto", which compiles long runs only
    cost = torch.compile(configured) if compiling else configured

    def step() -> None:
        with made.precision_plugin.forward_context():
            loss = cost(z, image)
        loss.backward()
        ours.zero_grad()

    def eager_step() -> None:
        decoder_cost(reference, z, image).backward()
        reference.zero_grad()

    timed = alternate(step, eager_step, repeats, now=now_on(device))
    memory = "channels last" if config["channels_last"] else "contiguous"
    compiled = ", compiled" if compiling else ""
    note = f"{made.precision}, {memory}{compiled}, batches of {len(image)}"
    target = "" if made.precision == "32-true" else ">= 1.5"
    return Figure(timed.ours_s, timed.reference_s, target, note)


def now_on(device: torch.device) -> Callable[[], float]:
    """The clock for work on a device: CPU seconds, for which other programs count for less, if it
    is the CPU."""
    return time.process_time if device.type == "cpu" else clock
