"""The loggers of a run."""

import csv
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning.config.compose import Plain
from acn_lightning.experiment.folder import run_id, told_before
from acn_lightning.utils.errors import UsageError, check_choice, foreign, one_line
from acn_lightning.utils.files import is_plain
from acn_lightning.utils.optional import require_packages


def make_loggers(
    config: Plain, folder: Path, parent: Plain | None = None, steps: int | None = None
) -> list[Logger]:
    """Always `metrics.csv` in the run's folder, plus W&B or TensorBoard if `logger` names it.

    Args:
        config: a complete config.
        folder: the run's folder.
        parent: the run and checkpoint that the weights come from; W&B stores it with the config.
        steps: of the checkpoint that the run resumes from, if any. TensorBoard hides what was
            logged after them, as that is trained again.

    Raises:
        UsageError: `logger` or `wandb.mode` is unknown, or TensorBoard is not installed.
    """
    check_choice("logger", config["logger"], ("csv", "wandb", "tensorboard"))
    # Flushed at each call, so that a killed run keeps its metrics.
    loggers: list[Logger] = [CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)]
    if config["logger"] == "tensorboard":
        require_packages("logger=tensorboard", "tensorboard", "tensorboard")
        # An epoch's pictures are logged at its number of steps, and its figures one step before.
        purge = None if steps is None else steps + 1
        loggers.append(
            TensorBoardLogger(folder, name="", version="", sub_dir="tensorboard", purge_step=purge)
        )
    if config["logger"] == "wandb":
        told = config["wandb"]
        swept = "WANDB_SWEEP_ID" in os.environ  # the sweep's agent has already created our run
        usual = "online" if swept else "offline"
        mode = told["mode"] or os.environ.get("WANDB_MODE", usual)
        check_choice("wandb.mode", mode, ("online", "offline", "disabled"))
        own = os.environ.get("WANDB_RUN_ID") if swept else wandb_id(config, folder)
        named = {
            "project": told["project"] or os.environ.get("WANDB_PROJECT") or "acn_lightning",
            "name": told["name"] or os.environ.get("WANDB_NAME") or folder.name,
            "tags": told["tags"] or None,  # then W&B reads WANDB_TAGS
            "mode": mode, "id": own,
        }  # fmt: skip
        known = config | ({"parent": parent} if parent else {})
        try:
            loggers.append(WandbLogger(save_dir=folder.resolve(), config=known, **told | named))
        except Exception as error:  # such as a machine on which the user has no home
            raise UsageError(f"logger=wandb: {one_line(error)}.") from error
    return loggers


def wandb_id(config: Plain, folder: Path) -> str:
    """The run's id in W&B, by which a run that resumes in its folder stays the same W&B run. Its
    random end keeps it from being another folder's of the same name. Only rank 0's counts: it alone
    opens the W&B run, and writes the id to `about.json`."""
    name, told = run_id(config, folder), told_before(folder)
    kept, whose = told.get("wandb"), told.get("wandb_run")
    # The folder is no copy of another's. An earlier version wrote whose it is in the id alone.
    own = whose == name if whose else f"{kept}-".startswith(f"{name}-")
    if isinstance(kept, str) and own:
        return kept
    if kept is None and (folder / "wandb").is_dir():  # an earlier version's, which wrote none
        return name
    return f"{name}-{secrets.token_hex(4)}"


def wandb_run(loggers: Iterable[Logger]) -> str | None:
    """The id of the W&B run that is logged to; None if none is."""
    return next((one.version for one in loggers if isinstance(one, WandbLogger)), None)


@rank_zero_only
def continue_metrics(loggers: Iterable[Logger], folder: Path, epoch: int, steps: int) -> None:
    """Makes `metrics.csv` continue after so many steps. Rows from there on are dropped, as that is
    trained again, and so is what an epoch that was cut short said of its training. Does nothing if
    the folder has no such file yet.

    Args:
        loggers: the run's.
        folder: the run's.
        epoch: number of complete epochs.
        steps: number of steps, those of an epoch that is resumed midway too.

    Raises:
        UsageError: it is no file, or no table of metrics.
    """
    path = folder / ExperimentWriter.NAME_METRICS_FILE
    beside = path.with_name(f".{path.name}.partial")
    source = path if path.exists() else beside  # left by an attempt that was killed in between
    if not is_plain(source):
        if source.exists() or source.is_symlink():
            raise UsageError(f"run: {source} is no file. Remove it.")
        return
    with (
        foreign(f"run: {source} is not a table of metrics; remove it", source),
        source.open(newline="", encoding="utf-8") as file,
    ):
        reader = csv.DictReader(file)
        rows = [row for row in reader if is_past(row, epoch, steps)]
        names = list(reader.fieldnames or [])
    if source == path:
        beside.unlink(missing_ok=True)  # perhaps a link
        with beside.open("x", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=names)
            writer.writeheader()
            writer.writerows(rows)
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            logger.experiment.metrics_keys = names  # creating its writer removes the file
    beside.replace(path)


def is_past(row: dict[str, str], epoch: int, steps: int) -> bool:
    """Whether a row of `metrics.csv` stays: it is of a complete epoch, or of a validation within
    the epoch that is resumed midway."""
    if not row["epoch"] or int(row["epoch"]) > epoch:
        return False
    if int(row["epoch"]) < epoch:
        return True
    trained = any(value for name, value in row.items() if name.startswith("train/"))
    return int(row["step"]) < steps and not trained
