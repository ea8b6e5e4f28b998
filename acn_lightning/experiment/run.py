"""An experiment from its config: build the parts, fit, test."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning import callbacks as cb
from acn_lightning.checkpoint import (
    LAST,
    carried_config,
    config_of,
    epochs_of,
    newest_checkpoint,
    read_checkpoint,
    refuse_changes,
)
from acn_lightning.config.compose import Plain, complete, compose, options
from acn_lightning.data import ImageData
from acn_lightning.evaluation.costs import bits_per_dim
from acn_lightning.experiment.budget import as_before, filled, fitting, is_open
from acn_lightning.experiment.build import build, from_checkpoint, load
from acn_lightning.experiment.folder import (
    AUTO,
    check_limits,
    continue_metrics,
    device_of,
    ending_together,
    identity,
    make_loggers,
    make_trainer,
    quiet_trainer,
    run_folder,
    write_results,
    writing,
)
from acn_lightning.inference.figures import grid
from acn_lightning.inference.sampling import draw
from acn_lightning.module import ACN
from acn_lightning.networks.weights import table, take
from acn_lightning.utils.errors import TrainingError, UsageError


class Outcome(NamedTuple):
    """What a command has to tell.

    Attributes:
        results: the content of `results.json`.
        files: what was written.
        rebuilds: of the neighbour index, and the seconds that they took together.
        refreshed: codes refreshed in the last epoch, of how many; None where nothing was trained.
        hints: what could be done next, a sentence each.
    """

    results: dict[str, Any]
    files: list[Path]
    rebuilds: tuple[int, float] | None = None
    refreshed: tuple[int, int] | None = None
    hints: tuple[str, ...] = ()


# ---------------------------------------------------------------- the commands


def fit(experiment: str | None, overrides: list[str]) -> Outcome:
    """`acn fit`: trains, and reports on the test set with the best checkpoint.

    Raises:
        UsageError: something in the config, the data or the checkpoint to resume from is wrong;
            nothing has been written then.
        TrainingError: the loss is no number any more.
        InterruptionError: Ctrl-C or SIGTERM.
    """
    return run(*fit_config(experiment, overrides))


def finetune(path: str, experiment: str, overrides: list[str]) -> Outcome:
    """`acn finetune`: trains an experiment from the weights of a checkpoint, with its networks.

    Raises:
        UsageError: as for `fit`; or nothing of the checkpoint has a place here.
        TrainingError, InterruptionError: as for `fit`.
    """
    return run(finetune_config(path, experiment, overrides), None)


def run(config: Plain, resumed: "Resumed | None") -> Outcome:
    """Trains by a config, and reports on the test set."""
    start = time.perf_counter()
    folder = run_folder(config)
    if config["resume"] == AUTO:
        resumed = own_checkpoint(config, folder)
    finetuning = cb.Finetune(**config["finetune"])
    budget = config["budget"]["minutes"] if is_open(config) else None
    if is_open(config):
        config = as_before(config, config_of(resumed.content)) if resumed else fitted(config)
    data, module = build(config)
    module.hparams["run"] = identity(config, folder)
    parent = None
    if resumed:
        # Lightning loads it again; what does not fit is to be known before anything is written.
        load(module, resumed.content, bank=True)
        data.load_state_dict(resumed.content.get("ImageData", {}))
    if source := config["finetune"]["checkpoint"]:
        parent = begin_with(module, source, resumed)
    refresh = cb.RefreshNeighbours(**config["refresh"])
    last = cb.LastCheckpoint(folder / "checkpoints", **config["checkpoints"])
    best = cb.BestCheckpoint(
        folder / "checkpoints", "val/total" if data.validation_set else "train/total"
    )
    measure = cb.MeasureTest(**config["evaluation"])
    keep = config["trainer"].get("enable_checkpointing") is not False
    stop = cb.StopOnSignal(last if keep else None)
    timer = Timer()  # of all attempts: a checkpoint knows how long it took
    callbacks = [
        cb.SeedEpochs(config["seed"]),
        cb.CheckAgreement(),
        timer,
        cb.StopOnNonFiniteLoss(),
        finetuning,
        refresh,
        cb.ProbeCodes(**config["probe"]),
        measure,
        cb.DrawPictures(folder / "images", **config["pictures"]),
        cb.Dashboard(folder, **config["dashboard"]),
        stop,
        *([best, last] if keep else []),
    ]
    trainer = make_trainer(config, callbacks, make_loggers(config, folder, parent), folder)
    check_limits(trainer, data)
    if resumed:
        check_processes(resumed.content, trainer.world_size)
    with writing(folder, config), ending_together(trainer), stop.listening():
        if resumed:
            continue_metrics(trainer.loggers, folder, epochs_of(resumed.content))
        train(trainer, module, data, resumed.path if resumed else None, folder)
        training = {
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": timer.time_elapsed("train"),
        }
        # Noted now: the test loads a checkpoint, counts of its day included.
        rebuilds = refresh.rebuilds, refresh.seconds
        written = [folder / "checkpoints" / name for name in ("best.ckpt", LAST)]
        kept = next((str(path) for path in written if path.is_file()), None)
        kept = trainer.strategy.broadcast(kept)  # of the first process: the others' folder is none
        hints = [] if budget is None else [about_time(trainer, best, budget)]
        results = evaluate(trainer, module, data, measure, kept, start)
        results |= {"parent": parent, "training": training}
    refreshed = (refresh.last.refreshed, len(data.rows)) if refresh.last else None
    hints += about_codes(results["representations"])
    files = write_results(results, folder)
    return Outcome(results, files, rebuilds, refreshed, tuple(hints))


def about_time(trainer: Trainer, best: cb.BestCheckpoint, minutes: float) -> str:
    """Whether more time would pay, by when the held-out cost was lowest."""
    last = trainer.callback_metrics.get(best.monitor or "")
    score = best.best_model_score
    if last is None or score is None or last <= score:
        return (
            f"The cost was lowest after the last epoch, so more time pays: budget.minutes="
            f"{5 * minutes:g} trains longer, and larger networks where they fit."
        )
    return (
        "The cost was lowest before the last epoch, so more time alone may not help: try more "
        "images, or a larger data.augment_strength."
    )


def about_codes(representations: Mapping[str, Any]) -> list[str]:
    """Where codes lose to what needs no model."""
    codes, pixels, pca = (representations[name] for name in ("codes", "pixels", "pca"))
    if not codes or not pixels or codes["linear"] > max(pixels["linear"], pca["linear"]):
        return []
    return [
        "A linear classifier finds the classes better in pixels or principal components than in "
        "these codes: train longer, or try another data.augment or model.rate_weight."
    ]


def fitted(config: Plain) -> Plain:
    """The config with sizes and epochs that fit this machine; says which."""
    trainer = quiet_trainer(config)
    choice = fitting(config, trainer, **config["budget"])
    sizes = f"networks of {choice.channels} channels, " if choice.channels else ""
    rank_zero_only(print)(
        f"{config['experiment']}: {sizes}{choice.epochs} epochs of about {choice.seconds:.0f} s on "
        f"this {trainer.strategy.root_device.type.upper()} in {trainer.precision}, for "
        f"budget.minutes={config['budget']['minutes']:g}",
        flush=True,
    )
    return filled(config, choice)


def test(path: str, overrides: list[str]) -> Outcome:
    """`acn test`: evaluates a checkpoint, with the config that it carries, on the test set.

    Raises:
        UsageError: the checkpoint cannot be read, the overrides contradict its networks, or its
            networks cannot take the data.
    """
    start = time.perf_counter()
    config, data, module = from_checkpoint(path, overrides, bank=False)
    folder = run_folder(config)
    measure = cb.MeasureTest(**config["evaluation"])
    stop = cb.StopOnSignal(None)
    callbacks = [
        cb.SeedEpochs(config["seed"]),
        cb.RefreshNeighbours(),
        measure,
        cb.DrawPictures(folder / "images", **config["pictures"]),
        stop,
    ]
    trainer = make_trainer(config, callbacks, [], folder)
    check_limits(trainer, data)
    with writing(folder, config), stop.listening():
        results = evaluate(trainer, module, data, measure, None, start) | {"checkpoint": str(path)}
    return Outcome(results, write_results(results, folder))


def sample(path: str, overrides: list[str]) -> Path:
    """`acn sample`: draws a grid of images with a checkpoint; returns the PNG.

    Raises:
        UsageError: as for `test`, or an option of `draw` is out of range.
    """
    overrides = in_section("sampling", draw, overrides)
    config, data, module = from_checkpoint(path, overrides, bank=True)
    folder = run_folder(config)
    device = device_of(config)
    module.to(device).eval()
    module.bank.to(device)
    seed_everything(config["seed"], verbose=False)
    images = draw(module, data, **config["sampling"])
    kind = config["sampling"]["kind"]
    picture = folder / "images" / f"{kind}.png"
    with writing(folder, config):
        picture.parent.mkdir()
        grid(images, apart=None if kind == "unconditional" else 1).save(picture)
    return picture


# ---------------------------------------------------------------- configs and checkpoints


class Resumed(NamedTuple):
    """What a run goes on from."""

    path: Path
    content: dict[str, Any]


FREE = ("trainer.", "budget.", "compile", "channels_last", "pictures.", "probe.", "dashboard.",
        "evaluation.", "sampling.",
        "wandb.", "logger", "run", "resume", "checkpoints.", "data.root", "data.download",
        "finetune.checkpoint", "model.encoder.weights")  # fmt: skip
"""What a run may change when it goes on."""


def fit_config(experiment: str | None, overrides: list[str]) -> tuple[Plain, Resumed | None]:
    """The config to train with, and what to go on from where a checkpoint is named.

    With one named and no experiment the config is the checkpoint's; what is given besides has to
    agree with it in all that a resumed run cannot change.

    Raises:
        UsageError: it does not agree, or is wrong in itself.
    """
    resume = [word.partition("=")[2] for word in overrides if word.startswith("resume=")]
    if experiment or not any(resume) or resume[-1] == AUTO:
        config = compose(experiment or "digits", overrides)
        resume = [config["resume"]]
    if not resume[-1] or resume[-1] == AUTO:
        return config, None
    resumed = Resumed(*newest_checkpoint(resume[-1]))
    if experiment:
        kept = complete(config_of(resumed.content))
        config = as_before(config, kept)
    else:
        kept = carried_config(resumed.content, overrides)
        config = complete(kept, overrides)
    refuse_changes(kept, config, lambda key: not key.startswith(FREE))
    return config, resumed


def own_checkpoint(config: Plain, folder: Path) -> Resumed | None:
    """With `resume=auto`, the newest checkpoint of the run's own folder; None where there is none.

    Raises:
        UsageError: there are, and none can be read; or the run was another one.
    """
    if not any((folder / "checkpoints").glob("*.ckpt")):
        return None
    resumed = Resumed(*newest_checkpoint(folder))
    kept = complete(config_of(resumed.content))
    refuse_changes(kept, as_before(config, kept), lambda key: not key.startswith(FREE))
    return resumed


def check_processes(checkpoint: Mapping[str, Any], processes: int) -> None:
    """Raises:
    UsageError: it was saved within an epoch that other processes shared among them.
    """
    then = len(checkpoint.get("epoch_costs", [])) or processes
    if then != processes:
        raise UsageError(
            f"trainer.devices: the checkpoint was saved within an epoch by {then} processes, each "
            f"of which had its share of the images; here are {processes}. Use {then}, or a "
            "checkpoint of an epoch's end, such as the last-1.ckpt beside it."
        )


NETWORKS = ("code_size", "encoder", "shape", "prior", "decoder")
"""What of the model fine-tuning has from the checkpoint; the likelihood goes with the data."""


def finetune_config(path: str, experiment: str, overrides: list[str]) -> Plain:
    """The experiment's config, with the networks of the checkpoint, overrides on top.

    Raises:
        UsageError: the checkpoint cannot be read, or the config is wrong.
    """
    overrides = in_section("finetune", cb.Finetune, overrides)
    given = [word for word in overrides if word.startswith("finetune.checkpoint=")]
    if given:
        raise UsageError(f"{given[0]}: the checkpoint is the command's first word.")
    kept = carried_config(read_checkpoint(path), overrides)
    networks = {name: kept["model"][name] for name in NETWORKS}
    begin = {"checkpoint": str(Path(path).resolve())}
    return compose(experiment, overrides, {"model": networks, "finetune": begin})


def in_section(section: str, constructor: Callable[..., Any], overrides: list[str]) -> list[str]:
    """Overrides of a command's own options, which may leave out the section that they are in."""
    ours = tuple(f"{name}=" for name in options(constructor))
    return [f"{section}.{word}" if word.startswith(ours) else word for word in overrides]


def begin_with(module: ACN, source: str, resumed: Resumed | None) -> Plain:
    """Weights from a checkpoint, where the run does not go on anyway. Says what was taken.

    Returns:
        The checkpoint, and the run that it is of, None where it does not know.

    Raises:
        UsageError: it cannot be read, or nothing of it has a place here.
    """
    if resumed:
        return {"checkpoint": source, "run": resumed.content["hyper_parameters"].get("parent")}
    checkpoint = read_checkpoint(source)
    taken = take(module, checkpoint["state_dict"])
    parameters = {name for name, _ in module.named_parameters()}
    weights = [name for name in taken.names if name in parameters]  # statistics alone are none
    if not weights:
        raise UsageError(f"{source}: nothing of it has a place in these networks.")
    module.pretrained += weights
    parent = checkpoint["hyper_parameters"].get("run")
    module.hparams["parent"] = parent
    rank_zero_only(print)("\n".join([f"weights of {source}", *table(taken)]), flush=True)
    return {"checkpoint": source, "run": parent}


def train(
    trainer: Trainer, module: ACN, data: ImageData, resume: Path | None, folder: Path
) -> None:
    """`Trainer.fit`, from a checkpoint where there is one.

    Raises:
        TrainingError: the loss is no number any more; the checkpoint that is left is named.
    """
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except TrainingError as error:
        last = folder / "checkpoints" / LAST
        left = f" The last good checkpoint is {last}." if last.is_file() else ""
        raise TrainingError(f"{error}{left}") from error


def evaluate(
    trainer: Trainer,
    module: ACN,
    data: ImageData,
    measure: cb.MeasureTest,
    checkpoint: str | None,
    start: float,
) -> dict[str, Any]:
    """Runs the test set; the content of `results.json`. Costs in nats per image, accuracies as
    fractions, None where the data has no labels.

    Raises:
        TrainingError: a cost is no number.
    """
    trainer.test(module, datamodule=data, ckpt_path=checkpoint, verbose=False, weights_only=True)
    costs, accuracy = measure.figures["costs"], measure.figures["accuracies"]
    dims = math.prod(data.image_shape)
    return {
        "data": data.source,
        "split": "test",
        "images": measure.figures["images"],
        "seed": data.seed,
        "binarisation": data.binarisation,
        "code_size": module.bank.codes.shape[1],
        "nats_per_image": costs,
        "bits_per_dim": {
            name: bits_per_dim(costs[name], dims) for name in ("ordered", "unordered")
        },
        "accuracy": {
            name: accuracy[name] for name in ("linear", "knn", "linear_pca", "linear_pixels")
        },
        "representations": measure.figures["representations"],
        "posterior_samples": measure.posterior_samples,
        "seconds": time.perf_counter() - start,
        "checkpoint": checkpoint,
    }
