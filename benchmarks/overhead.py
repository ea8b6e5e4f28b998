"""Times what the framework adds to the smallest step, against Lightning's own loop around it."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.optim import Optimizer

from acn_lightning.callbacks.typed import acn_of
from acn_lightning.commands.fit import fit
from acn_lightning.config.compose import Plain
from acn_lightning.data import Batch
from acn_lightning.experiment import train, trainer
from benchmarks.measure import Figure, seconds_each
from benchmarks.references import BareLoop
from benchmarks.training import EnoughError, quieten

SMALLEST = (
    "model.encoder.channels=8", "model.decoder.channels=8", "model.prior.width=8",
    "model.prior.mixtures=1", "model.code_size=2", "data.batch_size=4", "data.augment=none",
    "data.binarisation=threshold", "model.likelihood.kind=bernoulli",
    "trainer.enable_model_summary=false", "trainer.accelerator=cpu",
)  # fmt: skip
"""The smallest networks, batches and images."""

SETTLING = 20
"""Steps that do not count at the start of each block."""


@quieten()
def overhead(block: int = 120, blocks: int = 6) -> Figure:
    """Compares a step of `acn fit digits` with the smallest networks with one of Lightning's own
    Trainer around the same networks and loss. Both log to a CSV file and show a progress bar; the
    reference logs its loss, and gets its batches and codes for free. A bare PyTorch loop says how
    much of each is not the networks and the loss.

    In seconds of CPU of the main thread, which other programs do not change.

    Args:
        block: steps in a row.
        blocks: number of blocks of each side.
    """
    seconds: dict[str, list[float]] = {"ours": [], "lightning": [], "bare": []}
    for _ in range(blocks):
        ours = our_steps(block)
        seconds["ours"] += ours.seconds()
        seconds["lightning"] += lightning_steps(ours, block)
        seconds["bare"] += bare_steps(ours, block)
    each = {name: median(one) for name, one in seconds.items()}
    own = each["ours"] - each["bare"]
    theirs = each["lightning"] - each["bare"]
    return Figure(
        each["ours"], each["lightning"], "<= 1.2",
        f"own {1000 * own:.2f} ms a step, Lightning's {1000 * theirs:.2f}, bare step "
        f"{1000 * each['bare']:.2f}",
        extra={"own_s": own, "lightning_s": theirs, "bare_s": each["bare"]},
        limits={"own_s": "<= 0.001"},
    )  # fmt: skip


class Stamps(Callback):
    """Notes when steps start, keeps their batches, and ends the run after the last.

    Args:
        block: number of steps.

    Raises:
        EnoughError: after the last step.
    """

    def __init__(self, block: int) -> None:
        self.block = block
        self.starts: list[float] = []
        self.batches: list[Batch] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not hasattr(self, "bare"):
            module = acn_of(pl_module)
            self.bare, self.codes = BareLoop(module), module.bank.codes.clone()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.starts.append(time.thread_time())
        if len(self.starts) > self.block:
            raise EnoughError
        self.batches.append(batch)

    def seconds(self) -> list[float]:
        """Of the steps that count."""
        return seconds_each(self.starts)[SETTLING:]


def our_steps(block: int, overrides: Sequence[str] = ()) -> Stamps:
    """Takes steps of `acn fit digits`, as a user runs it in a terminal."""
    times = Stamps(block)

    def make_trainer(config: Plain, callbacks: list[Callback], *rest: Any) -> Trainer:
        return trainer.make_trainer(config, [times, *callbacks], *rest)

    with TemporaryDirectory() as folder, patch.object(train, "make_trainer", make_trainer):
        runs = f"trainer.default_root_dir={folder}/runs"
        quietly(lambda: fit("digits", [*SMALLEST, runs, BAR, *overrides]))
    return times


BAR = "trainer.enable_progress_bar=true"


def lightning_steps(ours: Stamps, block: int) -> list[float]:
    """Takes as many steps of the same networks, on the same batches, with Lightning alone."""
    times = Stamps(block)
    times.bare = ours.bare
    with TemporaryDirectory() as folder:
        alone = Trainer(
            max_epochs=-1, accelerator="cpu", logger=CSVLogger(folder), callbacks=[times],
            enable_checkpointing=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        module = BareModule(ours.bare, ours.codes)
        quietly(lambda: alone.fit(module, Given(ours.batches * 2)))
    return times.seconds()


class Given:
    """Batches that are there already. (Lightning takes a list for one of loaders.)"""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class BareModule(LightningModule):
    """What a person would write without this framework: a step, and its loss in the log."""

    def __init__(self, bare: BareLoop, codes: Tensor) -> None:
        super().__init__()
        self.bare, self.networks, self.codes = bare, bare.networks, codes

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        image = batch[1]
        loss = self.bare.loss(image, self.codes[: len(image)])
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Optimizer:
        return self.bare.optimizer


def bare_steps(ours: Stamps, block: int) -> list[float]:
    """Takes as many steps in a plain loop."""
    starts = [time.thread_time()]
    for batch in ours.batches:
        ours.bare.step(batch.image, ours.codes[: len(batch.image)])
        starts.append(time.thread_time())
    return seconds_each(starts)[SETTLING:]


def quietly(work: Callable[[], Any]) -> None:
    """Runs until `EnoughError`, without the progress bar's lines."""
    with redirect_stdout(io.StringIO()), suppress(EnoughError):
        work()
