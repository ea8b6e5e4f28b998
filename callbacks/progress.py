"""How far a run is, and how long the rest will take."""

import math
import sys
import time
from collections import deque
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer, TQDMProgressBar
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from tqdm import tqdm

from acn_lightning.callbacks.typed import acn_of, callbacks_of
from acn_lightning.utils.text import counted

EPOCHS = 5
"""Epochs that an estimate is the mean of: as many as there are from probe to probe."""

FORWARD = 1 / 3
"""Time of a forward pass, as a share of that of a training step."""

INTERVAL = 0.1
"""Least seconds between two movements of a bar."""

WATCHED = 2.0
"""Seconds of steps that the first estimate is made from, after an untimed step."""


class ShowProgress(Callback):
    """Says how long training will take: a first estimate after two seconds of training, from the
    time of its steps; then at each epoch, from the time of the last five.

    Where there is no progress bar, as in a log file, an epoch is a line: its number, costs in nats
    per image, its time, and about how much is left. With a bar, `RunBar` shows the same.

    Logs `train/epoch_seconds`: from the end of the epoch before, so with the neighbour search,
    validation, pictures and checkpoints.

    Attributes:
        seconds: of the last epochs of this attempt at the run; those of an epoch that it resumed or
            left midway are those of a whole one.
    """

    def __init__(self) -> None:
        self.seconds: deque[float] = deque(maxlen=EPOCHS)
        self.start = self.stepped = self.watched = 0.0
        self.step = self.batches = 0
        self.announced = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = self.stepped = time.perf_counter()
        self.step = trainer.global_step
        self.seconds.clear()
        self.batches, self.announced = 0, False

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        now = self.stepped = time.perf_counter()
        if self.announced:
            return
        self.batches += 1
        if self.batches == 1:  # the first one compiles, and fills caches
            self.watched = now
        seconds = now - self.watched
        # At the latest before the first epoch's own line.
        if trainer.is_last_batch or (self.batches > 3 and seconds > WATCHED):
            self.announced = True
            step = seconds / (self.batches - 1) if self.batches > 1 else now - self.start
            say(announcement(trainer, step))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.perf_counter()
        seconds, steps = now - self.start, trainer.global_step - self.step
        if steps:  # of an epoch in part, only the steps are multiplied, not what follows them
            whole = steps_of_epoch(trainer) / steps
            self.seconds.append((self.stepped - self.start) * whole + now - self.stepped)
        self.start, self.step = now, trainer.global_step
        pl_module.log("train/epoch_seconds", seconds, on_step=False, rank_zero_only=True)
        if trainer.progress_bar_callback is None:
            say(epoch_line(trainer, seconds, self.left(trainer, trainer.current_epoch + 1)))

    def left(self, trainer: Trainer, done: int) -> str:
        """About how long the rest takes after this many epochs; empty if that is not known."""
        if not self.seconds:
            return ""
        words = time_left(trainer, done, sum(self.seconds) / len(self.seconds))
        return f"{words} left" if words else ""


class RunBar(TQDMProgressBar):
    """Lightning's progress bar; the one of an epoch says how far the run is, and what the last step
    cost in nats per image. It moves ten times a second at most: what it shows is read from the
    device, which the host then waits for."""

    moved = -math.inf
    """When it last moved."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        now = time.perf_counter()
        if now - self.moved >= INTERVAL or trainer.is_last_batch:
            self.moved = now
            super().on_train_batch_end(trainer, pl_module, *arguments)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        cost = {"cost": float(acn_of(pl_module).last_cost)} if trainer.training else {}
        return super().get_metrics(trainer, pl_module) | cost

    def on_train_epoch_start(self, trainer: Trainer, *arguments: Any) -> None:
        super().on_train_epoch_start(trainer, *arguments)
        shown = [one for one in callbacks_of(trainer) if isinstance(one, ShowProgress)]
        left = [one.left(trainer, trainer.current_epoch) for one in shown]
        words = ", ".join([f"Epoch {numbered(trainer)}", *filter(None, left)])
        self.train_progress_bar.set_description(words)


@rank_zero_only
def say(line: str) -> None:
    """Prints a line, above a bar if there is one."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def announcement(trainer: Trainer, step: float) -> str:
    """What a run is going to do, given the seconds of a batch's training."""
    batches = trainer.num_training_batches
    encoding = any(getattr(one, "encode", False) for one in callbacks_of(trainer))
    forward = sum(trainer.num_val_batches) + encoding * batches
    left = epochs_left(trainer, trainer.current_epoch)
    many = "epochs" if math.isinf(left) else counted(math.ceil(left), "epoch")
    begin = f"from epoch {trainer.current_epoch + 1} on " if trainer.current_epoch else ""
    words = [f"training {begin}for {many} of {counted(steps_of_epoch(trainer), 'step')}"]
    words.append(time_left(trainer, trainer.current_epoch, step * (batches + FORWARD * forward)))
    words.append(f"writing to {trainer.default_root_dir}")
    return ", ".join(filter(None, words))


def epoch_line(trainer: Trainer, seconds: float, left: str) -> str:
    """The line of an epoch that has ended."""
    metrics = trainer.callback_metrics
    costs = [
        f"{name} {metrics[name]:.2f}"
        for name in ("train/total", "val/rate", "val/distortion", "val/total")
        if name in metrics
    ]
    words = ", ".join(filter(None, [*costs, f"{seconds:.1f} s", left]))
    return f"epoch {numbered(trainer)}: {words}"


def numbered(trainer: Trainer) -> str:
    """The number of the current epoch, from 1, and of how many if that is known."""
    limit = trainer.max_epochs if trainer.max_epochs is not None else -1
    return f"{trainer.current_epoch + 1}" + (f"/{limit}" if limit >= 0 else "")


def steps_of_epoch(trainer: Trainer) -> int:
    """The optimiser's steps in an epoch."""
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def epochs_left(trainer: Trainer, done: int) -> float:
    """Epochs that a run still has to do, in parts of one if it ends by steps; infinite if neither
    number ends it."""
    left = math.inf
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        left = float(trainer.max_epochs - done)
    if trainer.max_steps >= 0:
        left = min(left, (trainer.max_steps - trainer.global_step) / steps_of_epoch(trainer))
    return max(0.0, left)


def time_left(trainer: Trainer, done: int, epoch: float) -> str:
    """About how long a run still takes after this many epochs; empty if it has no end.

    Args:
        trainer: of the run.
        done: epochs that are complete.
        epoch: seconds of an epoch.
    """
    left = epochs_left(trainer, done)
    timers = [one.time_remaining() for one in callbacks_of(trainer) if isinstance(one, Timer)]
    seconds = min([left * epoch if left else 0.0, *(one for one in timers if one is not None)])
    if math.isinf(seconds) or seconds <= 0:
        return ""
    early = any(isinstance(one, EarlyStopping) for one in callbacks_of(trainer))
    return f"{'at most' if early else 'about'} {duration(seconds)}"


def duration(seconds: float) -> str:
    """A time in words, as precise as an estimate is.

    Example:
        >>> [duration(one) for one in (0.2, 99.0, 100.0, 3600.0, 9e3, 2e5)]
        ['1 s', '99 s', '2 min', '60 min', '2 h 30 min', '2 d 7 h']
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
