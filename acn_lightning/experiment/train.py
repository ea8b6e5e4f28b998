"""Training: runs an experiment's config, and reports the results."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning import callbacks as cb
from acn_lightning.callbacks.typed import callbacks_of
from acn_lightning.checkpoint import LAST, read_archive
from acn_lightning.config.compose import Plain
from acn_lightning.data import ImageData, Source
from acn_lightning.experiment.budget import (
    budget_hint,
    check_alone,
    is_open,
    with_sizes,
    with_sizes_of,
)
from acn_lightning.experiment.build import build_for, make_callbacks, read_data
from acn_lightning.experiment.carried import config_of
from acn_lightning.experiment.finetune import load_pretrained
from acn_lightning.experiment.folder import AUTO, run_folder, run_id, writing
from acn_lightning.experiment.loggers import continue_metrics, make_loggers, wandb_run
from acn_lightning.experiment.quickest import with_quickest
from acn_lightning.experiment.restore import check_networks, load_state
from acn_lightning.experiment.results import (
    Outcome,
    dropping_results,
    evaluate,
    files_of,
    write_about,
)
from acn_lightning.experiment.resume import (
    Resumed,
    best_beside,
    check_state,
    own_checkpoint,
    state_of,
)
from acn_lightning.experiment.trainer import (
    check_limits,
    ending_together,
    make_timer,
    make_trainer,
    quiet_trainer,
    raised_by_restoring,
)
from acn_lightning.experiment.training_state import check_processes, check_progress, epochs_of
from acn_lightning.module import ACN
from acn_lightning.utils.errors import TrainingError, UsageError, one_line


class Parts(NamedTuple):
    """The callbacks that `run` still needs after creating them.

    Attributes:
        timer: the time of all attempts, as checkpoints store it.
    """

    timer: Timer
    refresh: cb.RefreshNeighbours
    measure: cb.MeasureTest
    stop: cb.StopOnSignal
    best: cb.BestCheckpoint
    last: cb.LastCheckpoint


def run(config: Plain, resumed: Resumed | None = None, source: Source | None = None) -> Outcome:
    """Trains with a config, and reports on the test set.

    Args:
        config: a complete config.
        resumed: the checkpoint to resume from. With None a new run starts, except that
            `resume=auto` resumes the run of the same name.
        source: reads the images; None makes the one that the config describes.

    Raises:
        UsageError: the config, the data or the checkpoint is wrong; nothing has been written.
        TrainingError: the loss is no longer finite.
        InterruptionError: Ctrl-C or SIGTERM.
    """
    start = time.perf_counter()
    folder = run_folder(config)
    found = state_of(folder)
    if config["resume"] == AUTO:
        resumed = own_checkpoint(config, folder)
    open_budget = is_open(config)
    if resumed:
        config = with_sizes_of(config, config_of(resumed.content)) if open_budget else config
        check_networks(config, resumed.content)
    check_early(config)
    data = read_data(config, source)
    config = with_sizes(config, data)
    config, chosen = with_quickest(config, data, resumed.content if resumed else None)
    module = build_for(data, config)
    module.hparams["run"] = run_id(config, folder)
    parent = load_weights(module, data, config, resumed)
    parts, callbacks = make_parts(config, data, folder, resumed)
    # The last sees whether early stopping ends a run that goes on.
    callbacks += [cb.ShareWay(chosen.way if chosen else None), dropping_results(folder)]
    steps = resumed.content.get("global_step", 0) if resumed else None
    loggers = make_loggers(config, folder, parent, steps)
    trainer = make_trainer(config, callbacks, loggers, folder)
    check_limits(trainer, data)
    if resumed:
        check_processes(resumed.content, trainer.world_size)
        check_progress(resumed.content, trainer, module)
    work = writing(folder, config, lambda: trainer.global_step > (steps or 0))
    with work, ending_together(trainer), parts.stop.listening():
        check_state(folder, found)
        told = (*(resumed.told if resumed else ()), *(chosen.lines() if chosen else ()))
        tell([data.report, *told])
        write_about(folder, module, data, chosen, wandb_run(loggers))
        if resumed:
            continue_metrics(trainer.loggers, folder, epochs_of(resumed.content), steps or 0)
        fit(trainer, module, data, resumed.path if resumed else None, folder)
        if not (trainer.global_step or module.pretrained):
            return Outcome({}, files_of(folder), hints=(UNTRAINED,))
        hints = time_hints(trainer, parts.best, config) if open_budget else ()
        outcome = tested(trainer, module, data, parts, folder, start, parent)
    return outcome._replace(files=files_of(folder), hints=hints)


def check_early(config: Plain) -> None:
    """Checks what needs no data, before they are read: that may take long.

    Raises:
        UsageError: an option of `finetune` is wrong, or several processes have a budget.
    """
    cb.Finetune(**config["finetune"])
    if is_open(config):
        check_alone(quiet_trainer(config))


UNTRAINED = (
    "Nothing was trained, so nothing was tested. Config, data and networks are in order; "
    "trainer.max_epochs says how long to train."
)
"""What is said of a run without a step whose weights come from nowhere."""


def tested(
    trainer: Trainer,
    module: ACN,
    data: ImageData,
    parts: Parts,
    folder: Path,
    start: float,
    parent: Plain | None,
) -> Outcome:
    """Tests the best checkpoint of a training that has ended; its files are still to be listed.

    Args:
        trainer: which has trained.
        module: the ACN.
        data: its images.
        parts: its callbacks.
        folder: the run's.
        start: of the run, by `time.perf_counter`.
        parent: the run and checkpoint that the weights come from.

    Raises:
        TrainingError: a cost is NaN or infinite.
    """
    training = training_results(trainer, parts.timer)
    if best := best_checkpoint(trainer, parts.best, folder):
        load_state(module, read_archive(Path(best)), bank=True)  # its own, so not a stranger's
    known = {"checkpoint": best, "training": training, "parent": parent}
    results = evaluate(trainer, module, data, parts.measure, start, known, folder)
    rebuilds = parts.refresh.rebuilds, parts.refresh.seconds
    last = parts.refresh.last
    refreshed = (last.refreshed, len(data.rows)) if last else None
    return Outcome(results, [], rebuilds, refreshed)


@rank_zero_only
def tell(lines: Iterable[str | None]) -> None:
    """Prints the lines that there are."""
    for line in filter(None, lines):
        print(line, flush=True)


def load_weights(
    module: ACN, data: ImageData, config: Plain, resumed: Resumed | None
) -> Plain | None:
    """Loads weights from the checkpoint that the run resumes or starts from, if any.

    Returns:
        The checkpoint that fine-tuning starts from, and its run; None without one.

    Raises:
        UsageError: the weights do not fit, or the checkpoint was trained on other data.
    """
    if resumed:
        # Lightning loads it again later. This reports a misfit before anything is written.
        load_state(module, resumed.content, bank=True)
        data.load_state_dict(resumed.content.get("ImageData", {}))
    source = config["finetune"]["checkpoint"]
    return load_pretrained(module, data, source, resumed) if source else None


def make_parts(
    config: Plain, data: ImageData, folder: Path, resumed: Resumed | None
) -> tuple[Parts, list[Callback]]:
    """(the callbacks that `run` needs, all callbacks in calling order)."""
    monitor = "val/total" if data.validation_set else "train/total"
    checkpoints = folder / "checkpoints"
    last = cb.LastCheckpoint(checkpoints, **config["checkpoints"])
    average = cb.AverageWeights(**config["average"])
    early = cb.StopEarly(monitor, **config["early_stopping"])
    keep = config["trainer"].get("enable_checkpointing") is not False
    parts = Parts(
        timer=make_timer(config),
        refresh=cb.RefreshNeighbours(**config["refresh"]),
        measure=cb.MeasureTest(**config["evaluation"]),
        stop=cb.StopOnSignal(last if keep else None),
        best=cb.BestCheckpoint(checkpoints, monitor, best_beside(resumed) if resumed else None),
        last=last,
    )
    callbacks = [
        cb.SeedEpochs(config["seed"]),
        cb.CheckAgreement(),
        parts.timer,
        cb.StopOnNonFiniteLoss(),  # before the callbacks that save
        cb.MeasureSteps(),  # before the search, which takes time
        cb.Finetune(**config["finetune"]),
        parts.refresh,
        *([average] if average.decay else []),  # before all that look at the model
        cb.ProbeCodes(**config["probe"]),
        cb.WarnOfFaults(folder, **config["warnings"]),
        parts.measure,
        cb.DrawPictures(folder / "images", **config["pictures"]),
        cb.Dashboard(folder, **config["dashboard"]),
        *make_callbacks(config),
        cb.ShowProgress(),  # after all that take time
        *([early] if early.wanted else []),
        parts.stop,
    ]
    return parts, callbacks + ([parts.best, parts.last] if keep else [])


def fit(trainer: Trainer, module: ACN, data: ImageData, resume: Path | None, folder: Path) -> None:
    """`Trainer.fit`, from a checkpoint if there is one.

    Raises:
        TrainingError: the loss is no longer finite; the message names the last good checkpoint.
        UsageError: the checkpoint's state of the Trainer, an optimiser or a callback does not fit,
            or ddp waits for gradients that no step makes.
    """
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except TrainingError as error:
        last = folder / "checkpoints" / LAST
        left = f" The last good checkpoint is {last}." if last.is_file() else ""
        raise TrainingError(f"{error}{left}") from error
    except Exception as error:
        if raised_by_restoring(error) and not isinstance(error, UsageError):
            raise UsageError(f"{resume} does not fit this run: {one_line(error)}.") from error
        if "parameters that were not used in producing" in str(error):  # as Lightning has it
            raise UsageError(f"trainer.strategy: {unused(module)}") from error
        raise


def unused(module: ACN) -> str:
    """The error about parameters to which a step gave no gradients."""
    known = module.named_parameters()
    names = [name for name, one in known if one.requires_grad and one.grad is None]
    more = f" and {len(names) - 4} others" if len(names) > 4 else ""
    return (
        f"no training step uses {', '.join(names[:4])}{more}, for whose gradients ddp waits. "
        "Remove them, or set trainer.strategy=ddp_find_unused_parameters_true."
    )


def time_hints(trainer: Trainer, best: cb.BestCheckpoint, config: Plain) -> tuple[str, ...]:
    """Whether a larger budget would help; nothing if the cost is not known, as of a run that was
    resumed at its end."""
    last, lowest = trainer.callback_metrics.get(best.monitor or ""), best.best_model_score
    if last is None or lowest is None:
        return ()
    return (budget_hint(last, lowest, config["budget"]["minutes"]),)


def training_results(trainer: Trainer, timer: Timer) -> dict[str, Any]:
    """How long training took."""
    return {
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": timer.time_elapsed("train"),
    }


def best_checkpoint(trainer: Trainer, keeper: cb.BestCheckpoint, folder: Path) -> str | None:
    """The checkpoint to test with: the best, else the last; None if none was kept. Rank 0 decides,
    as the other ranks write nothing."""
    # Those in the folder are then of an earlier attempt, and of other weights.
    if keeper not in callbacks_of(trainer) or getattr(trainer, "fast_dev_run", False):
        return None
    written = [folder / "checkpoints" / name for name in ("best.ckpt", LAST)]
    found = next((str(path) for path in written if path.is_file()), None)
    kept: str | None = trainer.strategy.broadcast(found)
    return kept
