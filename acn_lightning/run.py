"""A run: its folder, what writes to it, and how it may end."""

import json
import os
import secrets
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import wandb
from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning.callbacks import PrintEpochs
from acn_lightning.config import Plain, to_yaml
from acn_lightning.data import ImageData
from acn_lightning.errors import InterruptionError, UsageError, check_choice


def run_folder(config: Plain) -> Path:
    """`runs/<experiment>/<time>-<short id>`; it is not made yet.

    A process that another one of the same run has started gets that one's folder.

    Raises:
        UsageError: the experiment's name is none for a folder.
    """
    experiment = config["experiment"]
    if experiment in ("", ".", "..") or Path(experiment).name != experiment:
        raise UsageError(f"experiment: '{experiment}' is no name for a folder.")
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
    if "LOCAL_RANK" in os.environ:
        name = os.environ.get("ACN_RUN", name)
    os.environ["ACN_RUN"] = name
    return Path(config["trainer"]["default_root_dir"] or "runs") / experiment / name


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
        trainer = Trainer(callbacks=callbacks, logger=loggers, **arguments)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"trainer: {in_one_line(error)}") from error
    if trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):
        raise UsageError(
            f"trainer.precision: with {trainer.precision} the codes would not be float32, as the "
            "search needs them. Use 32-true, bf16-mixed or 16-mixed."
        )
    return trainer


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


def make_loggers(config: Plain, folder: Path) -> list[Logger]:
    """`metrics.csv` in the run's folder always, W&B where `logger` names it.

    Raises:
        UsageError: `logger` or `wandb.mode` is none that there is.
    """
    check_choice("logger", config["logger"], ("csv", "wandb"))
    # Written at each call: a killed run keeps its figures.
    loggers: list[Logger] = [CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)]
    if config["logger"] == "wandb":
        told = config["wandb"]
        mode = told["mode"] or os.environ.get("WANDB_MODE", "offline")
        check_choice("wandb.mode", mode, ("online", "offline", "disabled"))
        named = told | {"name": told["name"] or folder.name, "mode": mode}
        loggers.append(WandbLogger(save_dir=folder, config=config, **named))
    return loggers


@contextmanager
def writing(folder: Path, config: Plain) -> Iterator[None]:
    """Makes the run's folder for the work inside, and says how that ended.

    Raises:
        UsageError: as the work did, or W&B, or the folder cannot be made; one that holds no
            checkpoint is gone again.
        InterruptionError: in place of Lightning's SystemExit at Ctrl-C and SIGTERM.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    last = folder / "checkpoints" / "last.ckpt"
    try:
        write_config(config, folder)
        try:
            yield
        except wandb.Error as error:
            raise UsageError(f"logger=wandb: {in_one_line(error)}") from error
        except (MisconfigurationException, ValueError, ZeroDivisionError) as error:
            # Some arguments Lightning looks at only now. An error of our own is no wrong input.
            if raised_by_lightning(error):
                raise UsageError(f"trainer: {in_one_line(error)}") from error
            raise
    except UsageError:
        if not last.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            for parent in made:
                with suppress(OSError):  # another run lives there by now
                    parent.rmdir()
        raise
    except SystemExit as stop:
        status = 143 if isinstance(stop, SIGTERMException) else 130
        raise InterruptionError(last if last.is_file() else None, status) from stop
    finally:
        if wandb.run is not None:
            wandb.finish(exit_code=int(sys.exc_info()[0] is not None))


@rank_zero_only
def write_config(config: Plain, folder: Path) -> None:
    """Makes the folder; `acn fit` takes what it writes.

    Raises:
        UsageError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(to_yaml(config))
    except OSError as error:
        raise UsageError(f"trainer.default_root_dir: cannot write {folder} ({error}).") from error


def write_results(results: dict[str, Any], folder: Path) -> list[Path]:
    """Writes `results.json`; returns all that lies in the run's folder, in reading order."""
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    rank_zero_only((folder / "results.json").write_text)(text)
    names = ["config.yaml", "metrics.csv", "checkpoints/*.ckpt", "results.json", "images/*.png"]
    return [path for name in names for path in sorted(folder.glob(name))]
