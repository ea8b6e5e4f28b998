"""A run: its folder, what writes to it, and how it may end."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import wandb
from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning.callbacks import PrintEpochs
from acn_lightning.config import Plain, to_yaml
from acn_lightning.errors import InterruptionError, TrainingError, UsageError, check_choice


def run_folder(config: Plain) -> Path:
    """`runs/<experiment>/<time>-<short id>`; it is not made yet.

    A process that another one of the same run has started gets that one's folder.
    """
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
    if "LOCAL_RANK" in os.environ:
        name = os.environ.get("ACN_RUN", name)
    os.environ["ACN_RUN"] = name
    return Path(config["trainer"]["default_root_dir"] or "runs") / config["experiment"] / name


def make_trainer(
    config: Plain, callbacks: list[Callback], loggers: list[Logger], folder: Path
) -> Trainer:
    """Progress is a bar on a terminal, else a line an epoch.

    Raises:
        UsageError: the Trainer refuses an argument, or would test nothing.
    """
    arguments = config["trainer"] | {"default_root_dir": str(folder)}
    if "enable_progress_bar" not in arguments and not sys.stdout.isatty():
        arguments["enable_progress_bar"] = False
        callbacks = [*callbacks, PrintEpochs()]
    if arguments.get("limit_test_batches") == 0:
        raise UsageError("trainer.limit_test_batches: with 0 there would be nothing to report.")
    try:
        return Trainer(callbacks=callbacks, logger=loggers, **arguments)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"trainer: {' '.join(str(error).split())}") from error


def make_loggers(config: Plain, folder: Path) -> list[Logger]:
    """`metrics.csv` in the run's folder always, W&B where `logger` names it.

    Raises:
        UsageError: `logger` or `wandb.mode` is none that there is.
    """
    check_choice("logger", config["logger"], ("csv", "wandb"))
    check_choice("wandb.mode", config["wandb"]["mode"], ("online", "offline", "disabled"))
    # Written at each call: a killed run keeps its figures.
    loggers: list[Logger] = [CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)]
    if config["logger"] == "wandb":
        told = config["wandb"]
        named = told | {"name": told["name"] or folder.name}
        loggers.append(WandbLogger(save_dir=folder, config=config, **named))
    return loggers


@contextmanager
def writing(folder: Path, config: Plain) -> Iterator[None]:
    """Makes the run's folder for the work inside, and says how that ended.

    Raises:
        UsageError: as the work did, or W&B, or the folder cannot be made; one that holds no
            checkpoint is gone again.
        TrainingError: as the work did, with the checkpoint that is left.
        InterruptionError: in place of Lightning's SystemExit at Ctrl-C and SIGTERM.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    last = folder / "checkpoints" / "last.ckpt"
    try:
        write_config(config, folder)
        try:
            yield
        except wandb.Error as error:
            raise UsageError(f"logger=wandb: {' '.join(str(error).split())}") from error
    except UsageError:
        if not last.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            for parent in made:
                with suppress(OSError):  # another run lives there by now
                    parent.rmdir()
        raise
    except TrainingError as error:
        raise TrainingError(f"{error} The last good checkpoint is {last}.") from error
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
    text = json.dumps(results, indent=2) + "\n"
    rank_zero_only((folder / "results.json").write_text)(text)
    names = ["config.yaml", "metrics.csv", "checkpoints/*.ckpt", "results.json", "images/*.png"]
    return [path for name in names for path in sorted(folder.glob(name))]
