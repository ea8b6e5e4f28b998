"""A run: its folder, what writes to it, and how it may end."""

import csv
import json
import logging
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from filelock import BaseFileLock, FileLock, Timeout
from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning.callbacks import PrintEpochs
from acn_lightning.checkpoint import LAST, DurableCheckpointIO
from acn_lightning.config.compose import Plain, to_yaml
from acn_lightning.data import ImageData
from acn_lightning.utils.errors import InterruptionError, UsageError, check_choice
from acn_lightning.utils.optional import require

AUTO = "auto"
"""The value of `resume` that goes on with the run of the same name, where there is one."""


def run_folder(config: Plain) -> Path:
    """`runs/<experiment>/<run>`; `run` is the config's, else the job's with `resume=auto`, else the
    time and a short id. It is not made yet.

    In a run of several processes that of the first counts: the others write nothing.

    Raises:
        UsageError: a name is none for a folder; a new run would be written into an old one's; with
            `resume=auto` there is no name by which the run could be found again.
    """
    experiment, name = config["experiment"], config["run"]
    automatic = config["resume"] == AUTO
    if name is None and automatic:
        name = job_name()
        if name is None:
            raise UsageError(
                "resume=auto: by what name is the run to be found again? Set run=NAME, or start it "
                "by SLURM or torchrun --rdzv-id, whose job it then has its name from."
            )
    for key, value in [("experiment", experiment), ("run", name)]:
        if value is not None and (value in ("", ".", "..") or Path(value).name != value):
            raise UsageError(f"{key}: '{value}' is no name for a folder.")
    unique = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
    folder = Path(config["trainer"]["default_root_dir"] or "runs") / experiment / (name or unique)
    if folder.exists() and not automatic and first():
        raise UsageError(
            f"run: there is {folder} already. Go on with it by resume=auto, or choose another name."
        )
    return folder


def first() -> bool:
    """Whether this process is the first of its run, also before its processes know each other."""
    return not getattr(rank_zero_only, "rank", 0)


def job_name() -> str | None:
    """What the scheduler calls this job, each time that it is started."""
    for known in ("SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID"):
        if job := os.environ.get(known):
            task = os.environ.get("SLURM_ARRAY_TASK_ID")
            return f"slurm-{job}" + (f"_{task}" if known.startswith("SLURM_ARRAY") else "")
    job = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if job == "none" else f"torchrun-{job}"


def make_trainer(
    config: Plain, callbacks: list[Callback], loggers: list[Logger], folder: Path
) -> Trainer:
    """Progress is a bar on a terminal, else a line an epoch. `trainer.precision=auto` becomes what
    this machine is quickest at.

    Raises:
        UsageError: the Trainer refuses an argument, or would test nothing.
    """
    arguments = config["trainer"] | {"default_root_dir": str(folder)}
    if "enable_progress_bar" not in arguments and not sys.stdout.isatty():
        arguments["enable_progress_bar"] = False
        callbacks = [*callbacks, PrintEpochs()]
    strategy = str(arguments.get("strategy", "auto"))
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise UsageError(
            f"trainer.strategy: '{strategy}' would copy a process that has begun already. Use ddp."
        )
    if arguments.get("precision") == "auto":
        arguments["precision"] = quickest_precision(str(arguments.get("accelerator", "auto")))
    try:
        trainer = Trainer(
            callbacks=callbacks, logger=loggers, plugins=[DurableCheckpointIO()], **arguments
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"trainer: {in_one_line(error)}") from error
    if trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):
        raise UsageError(
            f"trainer.precision: with {trainer.precision} the codes would not be float32, as the "
            "search needs them. Use 32-true, bf16-mixed or 16-mixed."
        )
    return trainer


def device_of(config: Plain) -> torch.device:
    """The device that a config's trainer would use.

    Raises:
        UsageError: as for `make_trainer`.
    """
    return quiet_trainer(config).strategy.root_device


def quiet_trainer(config: Plain) -> Trainer:
    """A config's trainer to be asked for its device and the like, without a word on which there
    are.

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
    """16 bits where the hardware multiplies them; in emulation they take several times as long as
    32 (measured on a CPU with AVX2: 8 times)."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if native else "16-mixed"
    if accelerator == "cpu" or not torch.backends.mps.is_available():
        # Named by the instruction sets that have such units: avx512_bf16, amx_bf16, ...
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        if any(there for name, there in known.items() if "bf16" in name):
            return "bf16-mixed"
    return "32-true"


def check_limits(trainer: Trainer, data: ImageData) -> None:
    """Raises:
    UsageError: nothing would be trained on, or nothing tested.
    """
    for part, loader in [("train", data.train_dataloader()), ("test", data.test_dataloader())]:
        limit = getattr(trainer, f"limit_{part}_batches")
        if (int(limit * len(loader)) if isinstance(limit, float) else limit) < 1:
            raise UsageError(f"trainer.limit_{part}_batches: {limit} of {len(loader)} is no batch.")


def raised_by_lightning(error: Exception) -> bool:
    """Whether its code raised it, and not code that it called."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("lightning.")


def in_one_line(error: Exception) -> str:
    """Its message."""
    return " ".join(str(error).split())


def identity(config: Plain, folder: Path) -> str:
    """What a run is called in W&B, and in the checkpoints of runs that begin with its weights."""
    return re.sub(r"[^\w.-]", "-", f"{config['experiment']}-{folder.name}")


def make_loggers(config: Plain, folder: Path, parent: Plain | None = None) -> list[Logger]:
    """`metrics.csv` in the run's folder always, W&B or TensorBoard where `logger` names it.

    Args:
        config: complete.
        folder: the run's.
        parent: the run and checkpoint that its weights come from; W&B has it with the config.

    Raises:
        UsageError: `logger` or `wandb.mode` is none that there is, or TensorBoard not installed.
    """
    check_choice("logger", config["logger"], ("csv", "wandb", "tensorboard"))
    # Written at each call: a killed run keeps its figures.
    loggers: list[Logger] = [CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)]
    if config["logger"] == "tensorboard":
        require("logger=tensorboard", "tensorboard", "tensorboard")
        loggers.append(TensorBoardLogger(folder, name="", version="", sub_dir="tensorboard"))
    if config["logger"] == "wandb":
        told = config["wandb"]
        swept = "WANDB_SWEEP_ID" in os.environ  # its agent has a run of its own for us
        usual = "online" if swept else "offline"
        mode = told["mode"] or os.environ.get("WANDB_MODE", usual)
        check_choice("wandb.mode", mode, ("online", "offline", "disabled"))
        # By its id a run that goes on in its folder is the same run there.
        own = os.environ.get("WANDB_RUN_ID") if swept else identity(config, folder)
        named = {"name": told["name"] or folder.name, "mode": mode, "id": own}
        known = config | ({"parent": parent} if parent else {})
        loggers.append(WandbLogger(save_dir=folder.resolve(), config=known, **told | named))
    return loggers


@rank_zero_only
def continue_metrics(loggers: Iterable[Logger], folder: Path, epoch: int) -> None:
    """Has `metrics.csv` go on from the beginning of that epoch: what it has of later ones is
    trained anew. Nothing to do where the folder has none yet."""
    path = folder / ExperimentWriter.NAME_METRICS_FILE
    beside = path.with_name(f".{path.name}.partial")
    source = path if path.is_file() else beside  # where the last attempt was killed in between
    if not source.is_file():
        return
    with source.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if row["epoch"] and int(row["epoch"]) < epoch]
        names = list(reader.fieldnames or [])
    if source == path:
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=names)
            writer.writeheader()
            writer.writerows(rows)
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            logger.experiment.metrics_keys = names  # its writer begins by removing the file
    beside.replace(path)


@contextmanager
def ending_together(trainer: Trainer) -> Iterator[None]:
    """Ends the processes that Lightning started when this one, the first, fails: they might wait
    for it. (One of them that fails ends the others: Lightning looks every five seconds.)"""
    try:
        yield
    except Exception:
        children = getattr(trainer.strategy.launcher, "procs", [])
        end = time.monotonic() + 10  # to say what ails them, as it may be their error
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0, end - time.monotonic()))
            child.kill()
        raise


@contextmanager
def writing(folder: Path, config: Plain) -> Iterator[None]:
    """Makes the run's folder for the work inside, and says how that ended.

    Raises:
        UsageError: as the work did, or W&B, or the folder cannot be made, or another process writes
            to it; one that was made here and holds no checkpoint is gone again.
        InterruptionError: in place of Lightning's SystemExit at Ctrl-C and SIGTERM.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    made = [] if folder.exists() else [folder, *made]
    last = folder / "checkpoints" / LAST
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        write_config(config, folder, lock)
        try:
            yield
        except (MisconfigurationException, ValueError, ZeroDivisionError) as error:
            # Some arguments Lightning looks at only now. An error of our own is no wrong input.
            if raised_by_lightning(error):
                raise UsageError(f"trainer: {in_one_line(error)}") from error
            raise
        except Exception as error:
            if (wandb := sys.modules.get("wandb")) and isinstance(error, wandb.Error):
                raise UsageError(f"logger=wandb: {in_one_line(error)}") from error
            raise
    except UsageError:
        if made and not last.is_file() and first():
            shutil.rmtree(folder, ignore_errors=True)
            for parent in made[1:]:
                with suppress(OSError):  # another run lives there by now
                    parent.rmdir()
        raise
    except SystemExit as stop:
        status = 143 if isinstance(stop, SIGTERMException) else 130
        raise InterruptionError(last if last.is_file() else None, status) from stop
    finally:
        lock.release()
        # Imported by its logger, which few use: nearly a second
        if (wandb := sys.modules.get("wandb")) and wandb.run is not None:
            wandb.finish(exit_code=int(sys.exc_info()[0] is not None))


@rank_zero_only
def write_config(config: Plain, folder: Path, lock: BaseFileLock) -> None:
    """Makes the folder, and its `config.yaml`, which `acn fit` takes.

    Raises:
        UsageError: the folder cannot be written to, or another process does.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(NotImplementedError):  # a file system that knows no locks
            lock.acquire()
        (folder / "config.yaml").write_text(to_yaml(config))
    except Timeout as error:
        raise UsageError(
            f"run: another process writes to {folder}. Wait for its end, or choose another name."
        ) from error
    except OSError as error:
        raise UsageError(f"trainer.default_root_dir: cannot write {folder} ({error}).") from error


def write_results(results: dict[str, Any], folder: Path) -> list[Path]:
    """Writes `results.json`; returns all that lies in the run's folder, in reading order."""
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    rank_zero_only((folder / "results.json").write_text)(text)
    names = ["config.yaml", "metrics.csv", "checkpoints/*.ckpt", "results.json", "images/*.png"]
    return [path for name in names for path in sorted(folder.glob(name))]
