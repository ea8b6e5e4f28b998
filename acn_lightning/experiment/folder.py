"""A run's folder: its name, who writes to it, and how a run may end."""

import json
import os
import re
import secrets
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, Timeout
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning.checkpoint import LAST
from acn_lightning.config.compose import Plain, to_yaml
from acn_lightning.config.schema import TRAINER_DEFAULTS
from acn_lightning.experiment.trainer import raised_by_lightning
from acn_lightning.utils.distributed import is_rank_zero
from acn_lightning.utils.errors import InterruptionError, UsageError, one_line
from acn_lightning.utils.files import check_encoding, local_path, remove_leftovers, replacing
from acn_lightning.utils.locks import acquire, make_lock

AUTO = "auto"
"""The value of `resume` that resumes the run of the same name, if there is one."""


OUTPUTS = "outputs"
"""The folder of what commands write about trained models."""


def run_folder(config: Plain) -> Path:
    """The run's folder, `runs/<experiment>/<run>`; it is not created yet. `run` comes from the
    config. If it is null it is the job's name with `resume=auto`, else the time and a short id.

    With several processes only rank 0's folder counts: the others write nothing.

    Raises:
        UsageError: a name is not valid for a folder, or the folder of all runs is not a path; a new
            run would write into an existing run's folder; or `resume=auto` has no name by which to
            find the run again.
    """
    experiment, name = config["experiment"], config["run"]
    automatic = config["resume"] == AUTO
    if name is None and automatic:
        name = job_name()
        if name is None:
            raise UsageError(
                "resume=auto: the run has no name by which to find it again. Set run=NAME. Only "
                "SLURM, or torchrun with both --rdzv-id and --rdzv-endpoint, names it."
            )
    check_name("experiment", experiment)
    if experiment == OUTPUTS:
        raise UsageError(
            f"experiment: {OUTPUTS} is the folder of what commands write. Choose another name."
        )
    check_name("run", name)
    folder = folder_of_runs(config) / experiment / (name or stamp())
    check_encoding(folder, "run")
    if folder.exists() and not automatic and is_rank_zero():
        raise UsageError(
            f"run: {folder} already exists. Resume it with resume=auto, or choose another name."
        )
    return folder


def output_folder(command: str, source: Path | None, config: Plain) -> Path:
    """A new folder for what a command writes about a model; it is not created yet.

    It is `outputs/<command>-<time>-<short id>`, or `outputs/NAME` with `run=NAME`: in the run's own
    folder for a checkpoint in its `checkpoints/`, if that can be written to and
    `trainer.default_root_dir` is not set; else in the folder of all runs. A checkpoint decides
    neither of these two keys.

    Args:
        command: its name.
        source: where the model was read from.
        config: a complete config.

    Raises:
        UsageError: a name is not valid for a folder, the folder of all runs is not a path, or there
            is a folder of that name.
    """
    check_name("run", config["run"])
    root, run = folder_of_runs(config), run_of(source)
    usual = config["trainer"]["default_root_dir"] in (None, TRAINER_DEFAULTS["default_root_dir"])
    within = run if run and usual and os.access(run, os.W_OK) else root
    folder = within / OUTPUTS / (config["run"] or f"{command}-{stamp()}")
    check_encoding(folder, "run")
    if folder.exists() and is_rank_zero():
        raise UsageError(f"run: {folder} already exists. Choose another name.")
    return folder


def run_of(source: Path | None) -> Path | None:
    """The folder of the run in whose `checkpoints/` a checkpoint lies; None if it lies elsewhere,
    or the folder is no run's."""
    if source is None or source.absolute().parent.name != "checkpoints":
        return None
    run = source.parents[1] if len(source.parents) > 1 else source.absolute().parents[1]
    return run if (run / "config.yaml").is_file() else None


def folder_of_runs(config: Plain) -> Path:
    """The folder of all runs.

    Raises:
        UsageError: it is not a path.
    """
    return local_path(config["trainer"]["default_root_dir"] or "runs", "trainer.default_root_dir")


def check_name(key: str, value: str | None) -> None:
    """Checks that a key's value can be a folder's name.

    Raises:
        UsageError: it cannot.
    """
    if value is not None and (value in ("", ".", "..") or Path(value).name != value):
        raise UsageError(f"{key}: '{value}' is not a valid folder name.")


def stamp() -> str:
    """The time and a short id, as a folder's name."""
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"


def run_id(config: Plain, folder: Path) -> str:
    """The run's name in checkpoints of runs that start from its weights, and before its id in
    W&B."""
    return re.sub(r"[^\w.-]", "-", f"{config['experiment']}-{folder.name}")


def told_before(folder: Path) -> Plain:
    """What an earlier attempt at a run wrote about it; nothing if there was none."""
    with suppress(OSError, ValueError):  # there was none, or it is damaged
        told = json.loads((folder / "about.json").read_text("utf-8"))
        return told if isinstance(told, dict) else {}
    return {}


def job_name() -> str | None:
    """The scheduler's name for this job, the same at every restart; None without a scheduler."""
    for known in ("SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID"):
        if job := os.environ.get(known):
            task = os.environ.get("SLURM_ARRAY_TASK_ID")
            return f"slurm-{job}" + (f"_{task}" if known.startswith("SLURM_ARRAY") else "")
    job = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    with suppress(ValueError):
        uuid.UUID(job)  # without --rdzv-endpoint, torchrun draws one at each start on one host
        return None
    return None if job == "none" else f"torchrun-{job}"


@contextmanager
def writing(
    folder: Path, config: Plain, trained: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Creates the run's folder for the work inside, and converts errors on the way out. On a
    UsageError a folder created here is removed again, unless it holds a checkpoint or `trained`
    says that steps have been trained, which may not be saved.

    Raises:
        UsageError: the work raised one, Lightning or W&B rejected its input, the folder cannot be
            created, or another process is writing to it.
        InterruptionError: in place of Lightning's SystemExit on Ctrl-C and SIGTERM.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    made = [] if folder.exists() else [folder, *made]
    last = folder / "checkpoints" / LAST
    # A moment, in which `acn runs` may be looking at it.
    lock = make_lock(folder / ".lock", timeout=0.5)
    ours = config.get("logger") == "wandb" and active_run() is None
    taken = False
    try:
        taken = bool(write_config(config, folder, lock))
        try:
            yield
        except (MisconfigurationException, ValueError, ZeroDivisionError) as error:
            # Lightning checks some arguments only now. Errors in our own code are not wrong input.
            if raised_by_lightning(error):
                raise UsageError(f"trainer: {one_line(error)}") from error
            raise
        except Exception as error:
            if (wandb := sys.modules.get("wandb")) and isinstance(error, wandb.Error):
                raise UsageError(f"logger=wandb: {one_line(error)}") from error
            raise
    except UsageError:
        # Only by who has taken it: another run may have created it in the meantime.
        begun = last.is_file() or trained()
        if made and (taken or lock.is_locked) and not begun and is_rank_zero():
            shutil.rmtree(folder, ignore_errors=True)
            for parent in made[1:]:
                with suppress(OSError):  # another run is using it by now
                    parent.rmdir()
        raise
    except SystemExit as stop:
        status = 143 if isinstance(stop, SIGTERMException) else 130
        raise InterruptionError(last if last.is_file() else None, status) from stop
    finally:
        lock.release()
        if ours and (started := active_run()) is not None:
            started.finish(exit_code=int(sys.exc_info()[0] is not None))


def active_run() -> Any:
    """The run of W&B's in this process; None if there is none. Only its logger imports it, as that
    takes nearly a second."""
    wandb = sys.modules.get("wandb")
    return wandb.run if wandb else None


@rank_zero_only
def write_config(config: Plain, folder: Path, lock: BaseFileLock) -> bool:
    """Creates the folder and its `config.yaml`, which `acn fit` accepts. Returns that it has taken
    the lock, or that the file system has none.

    Raises:
        UsageError: the folder cannot be written to, or another process is writing to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        acquire(lock)
        if lock.is_locked:
            remove_leftovers(folder / "checkpoints", alone=True)
        with replacing(folder / "config.yaml") as beside:
            beside.write_text(to_yaml(config), "utf-8")
        return True
    except Timeout as error:
        raise UsageError(
            f"run: another process is writing to {folder}. Wait until it ends, or choose another "
            "name."
        ) from error
    except OSError as error:
        raise UsageError(f"trainer.default_root_dir: cannot write {folder} ({error}).") from error
