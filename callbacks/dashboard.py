"""What a dashboard shows beyond scalars: goals of metrics, the data's fingerprint, checkpoints and
the explorer."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from acn_lightning.callbacks.typed import acn_of, data_of
from acn_lightning.checkpoint import KEY, LAST
from acn_lightning.data.subsets import stratified
from acn_lightning.inference.collection import of_data
from acn_lightning.inference.embedding import embed
from acn_lightning.utils.errors import check_range, one_line
from acn_lightning.utils.files import replacing
from acn_lightning.utils.progress import doing

BEST = {
    "train/total": "min",
    "val/total": "min",
    "val/knn_accuracy": "max",
    "codes/knn_accuracy": "max",
    "codes/linear_accuracy": "max",
    "codes/labels_10": "max",
    "codes/labels_100": "max",
    "codes/labels_1000": "max",
    "codes/precision_at_10": "max",
    "codes/nmi": "max",
    "codes/cluster_accuracy": "max",
}
"""Metrics whose best value, not the last, W&B's table of runs shows."""

INTERNAL = (
    "bank/megabytes", "bank/rebuild_seconds", "bank/received_megabytes", "bank/refreshed",
    "bank/unseen", "codes/eigenvalue_max", "codes/eigenvalue_min", "codes/norm",
    "codes/variance_mean", "codes/variance_min",
)  # fmt: skip
"""Metrics that W&B draws no panel of by itself."""

CHARTS = {
    "Costs": {
        "total": ["train/total", "val/total"],
        "distortion": ["train/distortion", "val/distortion"],
        "rate": ["train/rate", "val/rate"],
    },
    "Accuracies": {
        "of neighbours": ["val/knn_accuracy", "codes/knn_accuracy", "codes/precision_at_10"],
        "of linear classifiers": ["codes/linear_accuracy", "codes/labels_.*"],
        "of clusters": ["codes/cluster_accuracy", "codes/nmi"],
    },
    "Steps": {
        "learning rate": ["train/learning_rate.*"],
        "gradient norm": ["train/gradient_norm"],
        "images per second": ["train/images_per_second"],
        "seconds per epoch": ["train/epoch_seconds"],
    },
    "Neighbours": {
        "share": ["bank/neighbour_agreement", "bank/neighbours_changed", "bank/recall"],
        "distance": ["bank/neighbour_distance"],
    },
    "Codes": {
        "dimensions": ["codes/active_dimensions", "codes/effective_dimensions"],
        "statistics gap": ["codes/statistics_gap"],
        "eigenvalues": ["codes/eigenvalue_.*"],
    },
}
"""TensorBoard's custom scalars: charts by category, in order, each with the tags that it draws."""

COMPARED = (
    "val/total", "val/knn_accuracy", "codes/linear_accuracy", "test/total", "test/ordered",
    "test/unordered", "test/knn_accuracy", "test/linear_accuracy", "train/images_per_second",
)  # fmt: skip
"""Metrics beside the config in TensorBoard's table of runs, by their last values."""


class Dashboard(Callback):
    """Logs what scalars do not show to W&B and TensorBoard, on rank 0. Everything is logged against
    the global step, as in Lightning. What fails after the test is a warning: the run has ended by
    then.

    When training starts, W&B learns whether each metric is better low or high, and which ones need
    no panel. Its config gets the `data_fingerprint` and, if this package is a git checkout, the
    `commit`. TensorBoard gets the config and the figures to compare runs by (tab "HParams"), and
    charts that put costs before internals (tab "Custom scalars"). At the end of each
    epoch, both get `codes/variance`, a histogram of the variance of each code dimension: dead
    dimensions show at 0. After the test, W&B gets the checkpoints as artifacts, with the aliases
    `best` and `last`, and the explorer of some test images.

    Args:
        folder: the run's folder.
        checkpoints: whether W&B gets the checkpoints.
        explorer: number of test images in the explorer; 0 for no explorer. It needs plotly, and is
            skipped without it.
    """

    def __init__(self, folder: Path, *, checkpoints: bool = True, explorer: int = 2000) -> None:
        check_range("dashboard.explorer", explorer, 0, 100_000)
        self.folder, self.checkpoints, self.explorer = folder, checkpoints, explorer

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for run in runs(trainer.loggers, "wandb"):
            for name, summary in BEST.items():
                run.define_metric(name, step_metric="trainer/global_step", summary=summary)
            for name in INTERNAL:
                run.define_metric(name, step_metric="trainer/global_step", hidden=True)
            known = {"data_fingerprint": data_of(trainer).fingerprint, "commit": commit()}
            run.config.update(known, allow_val_change=True)
        for writer in runs(trainer.loggers, "tensorboard"):
            layout = {
                category: {chart: ["Multiline", tags] for chart, tags in charts.items()}
                for category, charts in CHARTS.items()
            }
            writer.add_custom_scalars(layout)
            for summary in hparams(acn_of(pl_module).hparams.get(KEY, {}))[:2]:
                writer.file_writer.add_summary(summary)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        bank, step = acn_of(pl_module).bank, trainer.global_step

        def variance() -> Tensor:  # reads all codes, so only loggers that show it call it
            return bank.codes[bank.rows].var(0, correction=0).cpu()

        for run in runs(trainer.loggers, "wandb"):
            import wandb

            histogram = wandb.Histogram(variance().tolist())
            run.log({"codes/variance": histogram, "trainer/global_step": step})
        for run in runs(trainer.loggers, "tensorboard"):
            run.add_histogram("codes/variance", variance(), step)

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for run in runs(trainer.loggers, "wandb"):
            if self.checkpoints:
                with only_warning("dashboard.checkpoints"):
                    self._log_checkpoints(run)
            if self.explorer:
                with only_warning("dashboard.explorer"), doing("making the explorer"):
                    self._log_explorer(run, trainer, pl_module)
        for writer in runs(trainer.loggers, "tensorboard"):
            *_, end = hparams({})
            writer.file_writer.add_summary(end)

    def _log_checkpoints(self, run: Any) -> None:
        import wandb

        for alias, name in [("best", "best.ckpt"), ("last", LAST)]:
            path = self.folder / "checkpoints" / name
            if path.is_file():
                artifact = wandb.Artifact(f"{run.id}-{alias}", "model")
                # Uploaded before the run ends, it needs no copy that stays.
                kept: Literal["mutable", "immutable"] = "mutable" if run.offline else "immutable"
                artifact.add_file(str(path), policy=kept, skip_cache=True)
                run.log_artifact(artifact, aliases=[alias])

    def _log_explorer(self, run: Any, trainer: Trainer, pl_module: LightningModule) -> None:
        try:
            import plotly  # noqa: F401
        except ImportError:
            return
        import wandb

        from acn_lightning.inference.explorer import page

        module, data = acn_of(pl_module), data_of(trainer)
        config = module.hparams[KEY]
        name = config["experiment"]
        whole = of_data(data, name, "test", data.image_shape, data.binarisation, data.seed)
        some = whole.at(stratified(whole.labels, self.explorer, data.seed))
        embedding = embed(module, some, min(8, len(some.images) - 1))
        text = page(some, embedding, f"{name}: test images of {run.name}", len(whole.images), 48)
        path = self.folder / "explorer.html"
        with replacing(path) as beside:
            beside.write_text(text, "utf-8")
        step = {"trainer/global_step": trainer.global_step}
        run.log({"explorer": wandb.Html(path.open(encoding="utf-8")), **step})


@contextmanager
def only_warning(key: str) -> Iterator[None]:
    """Turns an error of what a key asks for into a warning: W&B's own, or a full disk."""
    try:
        yield
    except Exception as error:
        rank_zero_warn(f"{key}: W&B does not get these ({one_line(error)}). The run is complete.")


def runs(loggers: list[Logger], kind: str) -> list[Any]:
    """The objects that loggers of that kind write to: W&B runs, or TensorBoard writers."""
    names = {"wandb": "WandbLogger", "tensorboard": "TensorBoardLogger"}
    found: list[Any] = [one for one in loggers if type(one).__name__ == names[kind]]
    return [one.experiment for one in found]


def hparams(config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """TensorBoard's records of a run's config: of the keys and figures to compare, of the values
    when the run starts, and of its end. The figures are those logged under the same names."""
    from torch.utils.tensorboard.summary import hparams as records

    return records(flat(config), dict.fromkeys(COMPARED, 0.0))


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config by dotted keys, with values that TensorBoard takes.

    Example:
        >>> flat({"seed": 0, "data": {"root": None, "size": [64, 48], "download": True}})
        {'seed': 0, 'data.root': 'null', 'data.size': '[64, 48]', 'data.download': True}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            known = isinstance(value, bool | int | float | str)
            found[f"{prefix}{key}"] = value if known else json.dumps(value, default=str)
    return found


def commit() -> str | None:
    """The commit of the git checkout that this package runs from; None if it runs from none."""
    root = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    top, _, revision = found.stdout.strip().partition("\n")
    return revision if top and Path(top) == root else None  # not that of a project around it
