"""What a run reports: about.json, results.json, and hints on what to do next."""

import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning import callbacks as cb
from acn_lightning.data import ImageData
from acn_lightning.evaluation.costs import bits_per_dim
from acn_lightning.experiment.folder import told_before
from acn_lightning.experiment.quickest import Chosen
from acn_lightning.module import ACN
from acn_lightning.utils.files import replacing


class Outcome(NamedTuple):
    """What a command reports.

    Attributes:
        results: the content of `results.json`; empty if nothing was tested.
        files: the files written.
        rebuilds: number of rebuilds of the neighbour index, and the seconds they took in total.
        refreshed: codes refreshed in the last epoch, and codes in total; None without training.
        hints: suggestions for what to do next, one sentence each.
    """

    results: dict[str, Any]
    files: list[Path]
    rebuilds: tuple[int, float] | None = None
    refreshed: tuple[int, int] | None = None
    hints: tuple[str, ...] = ()


def evaluate(
    trainer: Trainer,
    module: ACN,
    data: ImageData,
    measure: cb.MeasureTest,
    start: float,
    known: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Evaluates the test set with the module's weights, writes `results.json` and returns what it
    says.

    Args:
        trainer: for the test.
        module: the ACN.
        data: its images.
        measure: the Trainer's callback that measures.
        start: of the run, by `time.perf_counter`.
        known: what else `results.json` says.
        folder: where to write it, whatever fails after all is measured.

    Raises:
        TrainingError: a cost is NaN or infinite.
    """
    # No `ckpt_path`: with the weights, Lightning would restore the state of all callbacks, to what
    # it was at the best epoch.
    results: dict[str, Any] = {}
    try:
        trainer.test(module, datamodule=data, verbose=False)
    finally:  # a picture may fail, such as on a full disk, or Ctrl-C come meanwhile
        if measure.results:
            results = measured(module, data, measure, start) | known
            write_results(results, folder)
    return results


def measured(module: ACN, data: ImageData, measure: cb.MeasureTest, start: float) -> dict[str, Any]:
    """What a test has measured. Costs are in nats per image. Accuracies are fractions, or None if
    the data has no labels."""
    costs, accuracy = measure.results["costs"], measure.results["accuracies"]
    dims = math.prod(data.image_shape)
    return {
        "data": data.source,
        "split": "test",
        "images": measure.results["images"],
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
        "representations": measure.results["representations"],
        "posterior_samples": measure.posterior_samples,
        "seconds": time.perf_counter() - start,
    }


@rank_zero_only
def write_about(
    folder: Path, module: ACN, data: ImageData, quickest: Chosen | None, wandb: str | None
) -> None:
    """Writes `about.json`: what a run is trained on, how large its networks are, and how its steps
    run, for those who read about it while it trains.

    Args:
        folder: the run's.
        module: its networks.
        data: its images.
        quickest: what was measured; None for what the run's first attempt had measured, if any.
        wandb: id of its W&B run; None for that of an earlier attempt, if any.
    """
    assert data.content is not None
    before = told_before(folder)
    parameters = {
        name: count
        for name, part in module.named_children()
        if (count := sum(one.numel() for one in part.parameters()))
    }
    content = {
        "data": data.report,
        "images": {
            "training": len(data.train_set),
            "validation": len(data.validation_set),
            "test": len(data.test_set),
        },
        "fingerprints": {"training": data.fingerprint, "test": data.content.test.fingerprint},
        "image_shape": data.image_shape,
        "classes": len(data.classes),
        "parameters": parameters | {"total": sum(parameters.values())},
        "quickest": quickest.as_json() if quickest else before.get("quickest"),
        "wandb": wandb or before.get("wandb"),
        "wandb_run": module.hparams["run"] if wandb else before.get("wandb_run"),
    }
    with replacing(folder / "about.json") as beside:
        beside.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


@rank_zero_only
def write_results(results: dict[str, Any], folder: Path) -> None:
    """Writes `results.json`."""
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    with replacing(folder / "results.json") as beside:
        beside.write_text(text, "utf-8")


def dropping_results(folder: Path) -> LambdaCallback:
    """A callback that removes the `results.json` of a run in this folder which trains on: its
    figures are of fewer epochs."""

    def drop(trainer: Trainer, module: LightningModule) -> None:
        # Lightning does not come here if nothing is left; early stopping may find so only now.
        ended = trainer.fit_loop.done or getattr(trainer, "fast_dev_run", False)
        if trainer.is_global_zero and not ended:
            (folder / "results.json").unlink(missing_ok=True)

    return LambdaCallback(on_train_start=drop)


def files_of(folder: Path) -> list[Path]:
    """The files in a run's folder, in reading order."""
    names = [
        "config.yaml",
        "about.json",
        "metrics.csv",
        "warnings.json",
        "checkpoints/*.ckpt",
        "results.json",
        "images/*.png",
    ]
    return [path for name in names for path in sorted(folder.glob(name))]
