"""Ends a run at a signal: between two steps, and on all ranks after the same step."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from acn_lightning.callbacks.checkpoints import LastCheckpoint
from acn_lightning.utils.distributed import single_process
from acn_lightning.utils.errors import InterruptionError
from acn_lightning.utils.signals import handling

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP")
"""A scheduler's stop, its warning before the time limit (`sbatch --signal=B:USR1@300`), Ctrl-C, and
a terminal that closes."""


class StopOnSignal(Callback):
    """Ends training after the current step, and saves a checkpoint of it.

    A signal may reach only one rank, or each rank at a different moment. So the ranks poll each
    other at every step, on the host and while the next step runs: no rank waits, and all stop
    after the same step. A signal during the end of an epoch (neighbour search, validation) ends
    the run once the epoch's checkpoint is saved. A second Ctrl-C ends it at once. So does any
    signal before or after training, when there is nothing to save.

    Replaces Lightning's own handlers for SIGTERM and, on SLURM, SIGUSR1. These send a message to
    the other ranks from within the handler, possibly in the middle of another message. At each
    step they also check for an answer that the host has to wait for.

    Args:
        last: saves the checkpoint; None if nothing is saved.

    Raises:
        InterruptionError: on all ranks; its status is 128 + the signal's number.
    """

    def __init__(self, last: LastCheckpoint | None) -> None:
        self.last = last
        self.training = False
        self.asked = 0
        self.group: Any = None
        self.vote: tuple[Any, Tensor] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles signals here while the body of the `with` statement runs."""
        with handling(SIGNALS, self._hear):
            yield

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        setattr(trainer._signal_connector, "register_signal_handlers", lambda: None)  # noqa: B010
        setattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor", lambda: None)  # noqa: B010

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training, self.asked, self.vote = True, 0, None
        if not single_process():
            self.group = torch.distributed.new_group(backend="gloo")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training = False
        self._agreed()
        self._stop()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        between = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # After an epoch's last batch, the boundary and its checkpoint come first.
        if between and not trainer.is_last_batch and self._agreed():
            if self.last:
                self.last.save(trainer)
            self._stop()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._agreed():
            self._stop()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.training or (self.asked and number == signal.SIGINT):
            self._leave(number)
        self.asked = number
        print("\nacn: stopping after this step.", file=sys.stderr, flush=True)

    def _leave(self, number: int) -> None:
        raise InterruptionError(self.last.file if self.last else None, 128 + number)

    def _agreed(self) -> int:
        """The signal to stop for, the same on all ranks; 0 to continue."""
        if single_process():
            return self.asked
        before, mine = self.vote, torch.tensor(self.asked)
        work = torch.distributed.all_reduce(
            mine, torch.distributed.ReduceOp.MAX, group=self.group, async_op=True
        )
        self.vote = work, mine
        if before is None:
            return 0
        before[0].wait()
        return int(before[1])

    def _stop(self) -> None:
        """Ends the run if there was a signal. Waits for all votes: no rank may leave during one."""
        number = self.asked
        if self.vote:
            self.vote[0].wait()
            number = int(self.vote[1])
        if number:
            self._leave(number)
