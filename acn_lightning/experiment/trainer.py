"""Lightning's Trainer: created, checked, and ended together with its processes."""

import logging
import math
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import Logger

from acn_lightning.callbacks import RunBar, StopOnTime
from acn_lightning.callbacks.typed import callbacks_of
from acn_lightning.checkpoint import DurableCheckpointIO
from acn_lightning.config.compose import Plain
from acn_lightning.data import ImageData
from acn_lightning.utils.distributed import started
from acn_lightning.utils.errors import InterruptionError, UsageError, check_range, one_line


def make_trainer(
    config: Plain, callbacks: list[Callback], loggers: list[Logger], folder: Path
) -> Trainer:
    """Creates the Trainer. On a terminal it shows a progress bar.
    `trainer.precision=auto`, where no training step was timed, becomes what the machine multiplies.

    Raises:
        UsageError: the Trainer rejects an argument, or the strategy or precision is unsuitable.
    """
    arguments = config["trainer"] | {"default_root_dir": str(folder)}
    if arguments.setdefault("enable_progress_bar", sys.stdout.isatty()):
        callbacks = [*callbacks, RunBar()]
    check_ranges(arguments)
    if arguments.get("devices") == 1:  # the default, with which each would train for itself
        _, arguments["devices"] = started()
    if any(isinstance(one, Timer) for one in callbacks):
        arguments.pop("max_time", None)  # the timer has it; Lightning would ignore it, and say so
    strategy = str(arguments.get("strategy", "auto"))
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise UsageError(
            f"trainer.strategy: '{strategy}' would copy a process that is already running. Use ddp."
        )
    if arguments.get("precision") == "auto":
        arguments["precision"] = quickest_precision(str(arguments.get("accelerator", "auto")))
    try:
        trainer = Trainer(
            callbacks=callbacks, logger=loggers, plugins=[DurableCheckpointIO()], **arguments
        )
    except Exception as error:  # some arguments fail in the packages that they ask for
        raise UsageError(f"trainer: {one_line(error)}.") from error
    check_started(trainer.num_devices * trainer.num_nodes, trainer.world_size)
    if trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):
        raise UsageError(
            f"trainer.precision: with {trainer.precision} the codes would not be float32, which "
            "the search needs. Use 32-true, bf16-mixed or 16-mixed."
        )
    skip_empty_hooks(trainer)
    # With max_steps, Lightning takes a run that resumes at an epoch's boundary for one within an
    # epoch: it ends one that has no steps.
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    return trainer


def check_started(asked: int, expected: int) -> None:
    """Checks that a launcher has started as many processes as the Trainer asks for.

    Args:
        asked: processes that `trainer.devices` and `trainer.num_nodes` make.
        expected: the world size that Lightning has learned from its surroundings.

    Raises:
        UsageError: it has started others, or Lightning takes a SLURM script for what `srun` starts.
    """
    there, here = started()
    if there not in (1, asked):
        raise UsageError(
            f"trainer.devices: {there} processes have been started, {here} on this host, but "
            f"trainer.devices and trainer.num_nodes make {asked}. Set trainer.devices={here} and "
            f"trainer.num_nodes={max(1, there // here)}."
        )
    if expected != asked:
        raise UsageError(
            f"trainer.devices: trainer.devices and trainer.num_nodes make {asked}, but Lightning "
            f"finds itself one process of {expected}. In a SLURM script, start it with srun, or "
            "unset SLURM_NTASKS."
        )


OF_A_STEP = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end",
)  # fmt: skip
"""Hooks of a callback that Lightning calls at each training step."""


def skip_empty_hooks(trainer: Trainer) -> None:
    """Keeps Lightning from calling hooks that do nothing, at each training step and each in a
    context of its profiler: with twenty callbacks 120 calls. It skips what is not callable."""
    for callback in callbacks_of(trainer):
        for hook in OF_A_STEP:
            if getattr(callback, hook) == getattr(Callback, hook).__get__(callback):
                setattr(callback, hook, None)


RANGES = {
    "accumulate_grad_batches": (1, 10**6),
    "check_val_every_n_epoch": (1, 10**9),
    "gradient_clip_val": (0, 1e9),
    "log_every_n_steps": (0, 10**9),
    "max_epochs": (-1, 10**9),
    "max_steps": (-1, 10**15),
    "num_nodes": (1, 10**5),
    "num_sanity_val_steps": (-1, 10**9),
}
"""Arguments of the Trainer that Lightning does not check, or only when it uses them."""


def check_ranges(arguments: Plain) -> None:
    """Checks numbers among the Trainer's arguments.

    Raises:
        UsageError: one is out of range.
    """
    for name, (least, most) in RANGES.items():
        if isinstance(value := arguments.get(name), int | float):
            check_range(f"trainer.{name}", value, least, most)
    if arguments.get("val_check_interval", 1) == 0:
        raise UsageError("trainer.val_check_interval: 0 is no interval. Use 1.0 for each epoch.")


def make_timer(config: Plain) -> Timer:
    """The timer of a run, which ends it after `trainer.max_time`, all attempts together.

    Raises:
        UsageError: that is no time.
    """
    limit = config["trainer"].get("max_time")
    try:
        return StopOnTime(limit)
    except Exception as error:  # whatever it makes of text or a mapping
        raise UsageError(
            f"trainer.max_time: {limit} is no time. Use days:hours:minutes:seconds, such as "
            "00:08:00:00, or {hours: 8}."
        ) from error


def device_of(config: Plain) -> torch.device:
    """The device that a config's Trainer would use.

    Raises:
        UsageError: as for `make_trainer`.
    """
    return quiet_trainer(config).strategy.root_device


def quiet_trainer(config: Plain) -> Trainer:
    """A config's Trainer, to query its device and the like. Lightning's messages about available
    devices are suppressed.

    Raises:
        UsageError: as for `make_trainer`.
    """
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        return make_trainer(config, [], [], Path())
    finally:
        log.setLevel(level)


def quickest_precision(accelerator: str) -> str:
    """16 bits if the hardware multiplies them natively, else 32. Emulated, 16 bits take several
    times as long as 32 (measured on a CPU with AVX2: 8 times)."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if native else "16-mixed"
    if accelerator == "cpu" or not torch.backends.mps.is_available():
        # Instruction sets with such units have bf16 in their names: avx512_bf16, amx_bf16, ...
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        if any(there for name, there in known.items() if "bf16" in name):
            return "bf16-mixed"
    return "32-true"


def check_limits(trainer: Trainer, data: ImageData) -> None:
    """Checks that there is something to train on and something to test, for each process.

    Raises:
        UsageError: a limit leaves no batch, or there are more processes than images.
    """
    sizes = {"train": len(data.train_set), "validation": len(data.validation_set),
             "test": len(data.test_set)}  # fmt: skip
    check_shares(sizes, trainer.world_size)
    for part, loader in [("train", data.train_dataloader()), ("test", data.test_dataloader())]:
        limit = getattr(trainer, f"limit_{part}_batches")
        batches = math.ceil(len(loader) / trainer.world_size)  # the loader is not divided yet
        if (int(limit * batches) if isinstance(limit, float) else limit) < 1:
            raise UsageError(f"trainer.limit_{part}_batches: {limit} of {batches} leaves no batch.")


def check_shares(sizes: Mapping[str, int], processes: int) -> None:
    """Checks that each process gets an image of each part that has any.

    Raises:
        UsageError: there are more processes than images.
    """
    for part, size in sizes.items():
        if 0 < size < processes:
            raise UsageError(
                f"trainer.devices: {processes} processes cannot share {size} {part} images. Use "
                "fewer processes or more images."
            )


def raised_by_lightning(error: Exception) -> bool:
    """Whether Lightning's own code raised the error, rather than code that it called."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("lightning.")


def raised_by_restoring(error: Exception) -> bool:
    """Whether the error was raised while Lightning restored a checkpoint."""
    return any(
        str(frame.f_globals.get("__name__")).endswith("checkpoint_connector")
        and frame.f_code.co_name.lstrip("_").startswith(("restore", "resume"))
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


@contextmanager
def ending_together(trainer: Trainer) -> Iterator[None]:
    """If this process, rank 0, fails, ends the processes that Lightning started, which might wait
    for it. (If one of those fails, Lightning ends the others: it checks every five seconds.)"""
    try:
        yield
    except (Exception, InterruptionError):
        children = getattr(trainer.strategy.launcher, "procs", [])
        end = time.monotonic() + 10  # time to report their own error, which may be the cause
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0, end - time.monotonic()))
            child.kill()
        raise
