"""Measures codes after the same number of epochs: every row of `docs/results/table.json`.

    python -m benchmarks.codes WORK MNIST_ROOT FASHION_MNIST_ROOT [--only NAME ...]
        [--side-by-side 2] [--epochs 11] [--large-epochs 16]

Trains an ACN and its baselines, several side by side, and tests them, on a GPU if there is one.
Also measures pixels and principal components of the same images. Runs are kept in WORK and resume
when the command is started again. The table is rewritten after each run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from acn_lightning.config.compose import compose
from acn_lightning.evaluation.classifiers import (
    Labelled,
    measure,
    neighbour_labels,
    principal_components,
)
from acn_lightning.experiment.build import read_data

TABLE = Path("docs/results/table.json")
USES = ("linear", "knn", "labels_10", "labels_100", "labels_1000", "precision_at_10", "nmi",
        "cluster_accuracy")  # fmt: skip
COSTS = ("reconstruction", "kl_tour", "kl_unconditional", "ordered", "unordered", "set")


class Row(NamedTuple):
    """A row of the table and the runs behind it.

    Attributes:
        data: mnist or fashion_mnist.
        model: acn, pixelvae, vae or pixelcnn.
        seeds: seeds of the runs.
        augment: whether the encoder sees transformed copies.
        shape: whether codes have a shape.
        large: whether networks have the experiment's full size, in place of `+small`.
    """

    data: str
    model: str
    seeds: tuple[int, ...] = (0,)
    augment: bool = True
    shape: bool = True
    large: bool = False

    @property
    def name(self) -> str:
        """Name of the row, and of its runs."""
        left_out = [word for word in ("augment", "shape") if not getattr(self, word)]
        size = "-large" if self.large else ""
        return "-no-".join([f"{self.data}-{self.model}{size}", *left_out])

    def words(self, epochs: int) -> list[str]:
        """Returns the words of the command line, without paths and seed. The precision is what the
        experiment's `auto` chooses on this machine."""
        size = "" if self.large else "+small"
        layer = "" if self.model == "acn" else f"+{self.model}"
        words = [f"{self.data}{size}{layer}", f"trainer.max_epochs={epochs}"]
        words += [] if self.augment else ["data.augment=none"]
        words += [] if self.shape else ["model.shape.kind=free"]
        return words


DATA = ("mnist", "fashion_mnist")
SEEDS = (0, 1, 2)
ROWS = [
    *(Row(data, "acn", large=True) for data in DATA),
    Row("mnist", "pixelvae", large=True),
    *(Row(data, model, SEEDS) for model in ("acn", "pixelvae") for data in DATA),
    *(Row(data, "acn", shape=False) for data in DATA),
    *(Row(data, model, augment=False) for model in ("acn", "pixelvae") for data in DATA),
    *(Row(data, model) for model in ("vae", "pixelcnn") for data in DATA),
]
"""In training order; all rows of one seed run before the next seed."""


class Epochs(NamedTuple):
    """How long to train networks of either size."""

    small: int = 11
    large: int = 16

    def of(self, row: Row) -> int:
        """Returns the epochs of a row."""
        return self.large if row.large else self.small


def train(row: Row, seed: int, work: Path, root: Path, epochs: Epochs) -> None:
    """Trains one run, unless its results exist."""
    if results_of(row, seed, work) is not None:
        return
    words = [
        *row.words(epochs.of(row)), f"data.root={root}", "data.download=false", f"seed={seed}",
        f"experiment={row.name}", f"run=seed-{seed}", f"trainer.default_root_dir={work}",
        "resume=auto", "checkpoints.every_n_steps=500", "evaluation.linear=codes",
        "pictures.every_n_epochs=0", "probe.every_n_epochs=2",
    ]  # fmt: skip
    log = work / f"{row.name}-{seed}.log"
    with log.open("a") as file:
        subprocess.run(
            [sys.executable, "-m", "acn_lightning", "fit", *words],
            stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True,
        )  # fmt: skip


def results_of(row: Row, seed: int, work: Path) -> dict[str, Any] | None:
    """Returns the results of a run; None until it has ended."""
    path = work / row.name / f"seed-{seed}" / "results.json"
    return json.loads(path.read_text()) if path.is_file() else None


def precision_of(run: Path) -> str:
    """Returns the precision that a run trained in, which the config in its folder keeps."""
    config = OmegaConf.load(run / "config.yaml")
    return str(OmegaConf.select(config, "trainer.precision"))


def line(row: Row, work: Path, epochs: Epochs) -> dict[str, Any] | None:
    """Returns the row over the seeds that have ended; None if none has."""
    every = {seed: results_of(row, seed, work) for seed in row.seeds}
    found = [one for one in every.values() if one]
    if not found:
        return None
    seeds = [seed for seed, one in every.items() if one]
    precisions = {precision_of(work / row.name / f"seed-{seed}") for seed in seeds}
    codes = [one["representations"]["codes"] for one in found]
    figures: dict[str, Any] = {
        use: spread([one[use] for one in codes]) if all(codes) else None for use in USES
    }
    figures |= {name: spread([one["nats_per_image"][name] for one in found]) for name in COSTS}
    return {
        "data": row.data,
        "model": row.model,
        "budget": "best" if row.large else "small",
        "augment": row.augment,
        "shape": row.shape,
        "seeds": seeds,
        "precision": " and ".join(sorted(precisions)),
        "minutes": statistics.mean(one["training"]["seconds"] for one in found) / 60,
        "epochs": found[0]["training"]["epochs"],
        "code_size": found[0]["code_size"],
        "command": " ".join(["acn fit", *row.words(epochs.of(row)), "seed=SEED"]),
        **figures,
    }


def spread(values: list[Any]) -> dict[str, float] | None:
    """Returns the mean and the range of the values. If a value is itself a mean over draws of
    labels, a single run reports the spread of its draws."""
    if any(value is None for value in values):
        return None
    if isinstance(values[0], dict):
        means = [value["mean"] for value in values]
        apart = max(means) - min(means) if len(means) > 1 else values[0]["spread"]
        return {"mean": statistics.mean(means), "spread": apart}
    return {"mean": statistics.mean(values), "spread": max(values) - min(values)}


def without_a_model(data: str, root: Path, *words: str) -> list[dict[str, Any]]:
    """Returns the rows of pixels, and of as many principal components as a code has numbers. As of
    codes, neighbours are sought among the images that a model would be trained on."""
    config = compose(f"{data}+small", [f"data.root={root}", "data.download=false", *words])
    parts = read_data(config)
    pixels = [
        Labelled(images.images.flatten(1).numpy(), images.labels.numpy())
        for images in (parts.fixed_set, parts.test_set)
    ]
    size = config["model"]["code_size"]
    lines = []
    for model, (train, test) in {
        "pca": principal_components(pixels[0], pixels[1], size),
        "pixels": (pixels[0], pixels[1]),
    }.items():
        near = neighbour_labels(train.at(parts.rows.numpy()), test)
        found = measure(train, test, len(parts.classes), near)
        lines.append(
            {
                "data": data,
                "model": model,
                "budget": "small",
                "augment": False,
                "shape": False,
                "seeds": [],
                "precision": None,
                "minutes": 0.0,
                "epochs": 0,
                "code_size": train.features.shape[1],
                "command": f"python -m benchmarks.codes WORK MNIST FASHION --only {data}-{model}",
                **{use: spread([found[use]]) for use in USES},
                **dict.fromkeys(COSTS),
            }
        )
    return lines


def write(lines: Iterable[dict[str, Any]], path: Path | None = None) -> None:
    """Writes rows of the table, replacing those with the same data, model, budget and options."""
    path = path or TABLE

    def key(one: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(one[name] for name in ("data", "model", "budget", "augment", "shape"))

    known = {key(one): one for one in json.loads(path.read_text())} if path.is_file() else {}
    known |= {key(one): one for one in lines}
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(list(known.values()), indent=1) + "\n")
    beside.replace(path)


NAMES = {"acn": "ACN", "pixelvae": "PixelVAE", "vae": "VAE", "pixelcnn": "PixelCNN",
         "pca": "principal components", "pixels": "pixels"}  # fmt: skip


def markdown(table: Iterable[dict[str, Any]]) -> list[str]:
    """Formats the table for people: accuracies in percent, costs in nats per image, and the range
    if there are several seeds."""
    percents = USES[:-1]
    costs = [name.replace("kl_", "KL ") for name in COSTS]
    names = ["linear", "KNN", "10 labels", "100 labels", "1,000 labels", "P@10", "NMI", *costs]
    head = "| | " + " | ".join([*names, "epochs", "minutes", "seeds"]) + " |"
    rows: list[str] = []
    for data in DATA:
        rows += ["", data, "", head, "|---" * (head.count("|") - 1) + "|"]
        for one in table:
            if one["data"] == data:
                cells = [cell(one[use], 100, len(one["seeds"])) for use in percents]
                cells += [cell(one[cost], 1, len(one["seeds"])) for cost in COSTS]
                trained = (one["epochs"], f"{one['minutes']:.0f}", len(one["seeds"]))
                cells += [str(value) if one["seeds"] else "" for value in trained]
                rows.append(f"| {label(one)} | " + " | ".join(cells) + " |")
    return rows


def label(one: dict[str, Any]) -> str:
    """Returns the name of a row."""
    name = NAMES[one["model"]] + (", large" if one["budget"] == "best" else "")
    if one["model"] in ("acn", "pixelvae") and not one["augment"]:
        name += ", no augmentation"
    return name + (", no shape" if one["model"] == "acn" and not one["shape"] else "")


def cell(figure: dict[str, float] | None, factor: float, seeds: int) -> str:
    """Formats a figure, with its range if there are several seeds."""
    if figure is None:
        return ""
    apart = f" ({factor * figure['spread']:.1f})" if seeds > 1 else ""
    return f"{factor * figure['mean']:.1f}{apart}"


def main(arguments: list[str] | None = None) -> None:
    """Trains the missing runs and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codes", description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("roots", type=Path, nargs=2, metavar="ROOT")
    parser.add_argument("--only", nargs="*", default=[], help="names of rows, or patterns: mnist-*")
    parser.add_argument("--epochs", type=int, default=Epochs().small)
    parser.add_argument("--large-epochs", type=int, default=Epochs().large)
    parser.add_argument("--side-by-side", type=int, default=2)
    parsed = parser.parse_args(arguments)
    roots = dict(zip(DATA, parsed.roots, strict=True))
    epochs = Epochs(parsed.epochs, parsed.large_epochs)
    parsed.work.mkdir(parents=True, exist_ok=True)

    def asked(name: str) -> bool:
        return not parsed.only or any(fnmatch(name, word) for word in parsed.only)

    rows = [row for row in ROWS if asked(row.name)]

    writing = Lock()

    def run(job: tuple[Row, int]) -> None:
        row, seed = job
        train(row, seed, parsed.work, roots[row.data], epochs)
        with writing:
            lines = [line(one, parsed.work, epochs) for one in rows]
            write(one for one in lines if one)

    jobs = [(row, seed) for seed in SEEDS for row in rows if seed in row.seeds]
    with ThreadPoolExecutor(parsed.side_by_side) as pool:
        for _ in pool.map(run, jobs):
            pass
    for data in DATA:
        if any(asked(f"{data}-{model}") for model in ("pca", "pixels")):
            write(without_a_model(data, roots[data]))
    print("\n".join(markdown(json.loads(TABLE.read_text()))))


if __name__ == "__main__":
    main()
