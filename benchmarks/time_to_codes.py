"""Measures how long training takes until MNIST's codes tell its classes apart.

    python -m benchmarks.time_to_codes MNIST_ROOT OUT.json [--only NAME ...] [--minutes 30]
        [--device cpu|cuda] [--every 20]

Trains each of four models in turn: `acn`, the experiment mnist+small; `pixelvae`, the same networks
and images with one prior for all codes; `conv` and `dense`, two public ACNs (see
`benchmarks.reimplementations`). All see the 60,000 training images. On the CPU a model has one
thread.

Every so many seconds of training, the clock stops. 20,000 training images and the 10,000 test
images are encoded; KNN (K = 5) and linear accuracy on the test images go to OUT.json. Training ends
when both reach 95 %, when the minutes are up, or when the experiment's epochs are over. The next
stop is no sooner than after as many seconds of training as the last measurement took.

OUT.json keeps the results of other names. `python -m benchmarks.time_to_codes_figure` draws them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from acn_lightning.callbacks.typed import acn_of
from acn_lightning.commands.fit import fit
from acn_lightning.config.compose import Plain, compose
from acn_lightning.data import Batch, ImageData
from acn_lightning.data.subsets import stratified
from acn_lightning.evaluation.classifiers import (
    Labelled,
    linear_accuracy,
    similarity,
)
from acn_lightning.experiment import train, trainer
from acn_lightning.experiment.build import read_data
from acn_lightning.inference.embedding import encode
from acn_lightning.networks.layers import eval_mode
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.files import replacing
from benchmarks.measure import Figure, clock, machine
from benchmarks.reimplementations import ConvACN, DenseACN, Reimplementation
from benchmarks.training import EnoughError, quieten

Encode = Callable[[Tensor], Tensor]
"""Maps images (N, 1, H, W) of bytes to codes (N, D) on the CPU."""

LAYERS = {"acn": "", "pixelvae": "+pixelvae"}
OTHERS: dict[str, type[Reimplementation]] = {"conv": ConvACN, "dense": DenseACN}
NAMES = (*LAYERS, *OTHERS)

WANTED = 0.95
"""Accuracy that KNN and the linear classifier must reach."""

KNOWN = 20_000
"""Training images that are encoded."""

TURN = "--by-turns"
"""An option of the command; and the line that it then prints when a turn is over."""

COMMAND = [sys.executable, "-m", "benchmarks.time_to_codes"]

ROOT = Path("data/mnist")
"""Where the experiment looks for MNIST, and the row `codes-mnist` with it."""


# ---------------------------------------------------------------- the clock


class Stopwatch:
    """Times training, and stops every so often to measure the codes.

    With one thread on the CPU, a second is one of CPU time: on a quiet machine the same as one on
    the wall, and on a busy one not longer. On a GPU it is one on the wall.

    Args:
        data: images to encode.
        now: the clock.
        limit: seconds of training after which to end.
        every: seconds of training between stops, at least.
        report: called after each stop with all points so far.

    Attributes:
        points: seconds of training, seconds on the wall, images seen and accuracies at each stop.
    """

    def __init__(
        self,
        data: ImageData,
        now: Callable[[], float],
        limit: float,
        every: float,
        report: Callable[[list[Plain]], None],
    ) -> None:
        self.data, self.now = data, now
        self.limit, self.every, self.report = limit, every, report
        self.points: list[Plain] = []
        self.seconds, self.wall, self.images = 0.0, 0.0, 0
        self.measuring = 0.0

    def start(self) -> None:
        """Starts the clock, or starts it again."""
        self.since, self.wall_since = self.now(), time.perf_counter()

    def step(self, images: int, encode: Encode) -> bool:
        """Counts a step's images, and stops if it is time. Returns whether training is over."""
        self.images += images
        waited = self.now() - self.since
        over = self.seconds + waited >= self.limit
        if not over and waited < max(self.every, self.measuring):
            return False
        return self.stop(encode) or over

    def stop(self, encode: Encode) -> bool:
        """Measures with the clock stopped. Returns whether the codes are good enough."""
        start = clock()  # waits for the GPU
        self.seconds += self.now() - self.since
        self.wall += start - self.wall_since
        begin = self.now()
        knn, linear = accuracies(encode, self.data)
        self.measuring = self.now() - begin
        times = {"seconds": self.seconds, "wall_seconds": self.wall, "images": self.images}
        self.points.append(times | {"knn": knn, "linear": linear})
        self.report(self.points)
        self.start()
        return reached(self.points[-1])


def reached(point: Plain) -> bool:
    """Whether the codes are good enough."""
    return min(point["knn"], point["linear"]) >= WANTED


def accuracies(encode: Encode, data: ImageData) -> tuple[float, float]:
    """Accuracies on the test images, as fractions: (KNN, linear)."""
    chosen = stratified(data.labels, KNOWN)
    known, test = (
        Labelled(encode(images).numpy(), labels.numpy())
        for images, labels in (
            (data.fixed_set.images[chosen], data.labels[chosen]),
            (data.test_set.images, data.test_set.labels),
        )
    )
    knn = similarity(known, test, len(data.classes))["knn"]
    return knn, linear_accuracy(known, test)


# ---------------------------------------------------------------- training


def words_of(root: Path) -> list[str]:
    """Overrides of mnist+small: all training images are trained on."""
    return [f"data.root={root}", "data.validation=0"]


class Stops(Callback):
    """Gives a stopwatch the steps of a run.

    Raises:
        EnoughError: training is over; what would come next is the test.
    """

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        if self.watch.step(len(batch.image), partial(encode, acn_of(pl_module))):
            raise EnoughError

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch.stop(partial(encode, acn_of(pl_module)))
        raise EnoughError


def train_experiment(
    layer: str, root: Path, watch: Stopwatch, device: str, overrides: Sequence[str] = ()
) -> None:
    """Trains as `acn fit mnist+small` does, with a layer on top, but without pictures."""

    def make_trainer(config: Plain, callbacks: list[Callback], *rest: Any) -> Trainer:
        return trainer.make_trainer(config, [Stops(watch), *callbacks], *rest)

    with (
        TemporaryDirectory() as folder,
        patch.object(train, "make_trainer", make_trainer),
        redirect_stdout(sys.stderr),
        suppress(EnoughError),
    ):
        where = [f"trainer.default_root_dir={folder}", f"trainer.accelerator={device}"]
        quiet = ["trainer.enable_progress_bar=false", "pictures.every_n_epochs=0"]
        one = ["trainer.devices=1"]
        fit(f"mnist+small{layer}", [*words_of(root), *where, *one, *quiet, *overrides])


def train_other(model: Reimplementation, images: Tensor, watch: Stopwatch, device: str) -> None:
    """Trains in a plain loop, with all images on the device.

    Args:
        model: what to train.
        images: bytes, (N, 1, 28, 28).
        watch: ends the training.
        device: where to train.
    """
    model, images = model.to(device), images.to(device)
    optimizer = torch.optim.Adam(model.parameters(), model.learning_rate)
    watch.start()
    while True:
        for index in torch.randperm(len(images), device=device).split(model.batch_size):
            loss = model.loss(index, images[index].float() / 255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if watch.step(len(index), partial(encode_other, model, device)):
                return
        model.end_epoch()


def encode_other(model: Reimplementation, device: str, images: Tensor) -> Tensor:
    """The codes of images, on the CPU."""
    with eval_mode(model):
        batches = images.split(model.batch_size)
        return torch.cat([model.code(some.to(device).float() / 255).cpu() for some in batches])


def time_one(
    name: str,
    root: Path,
    device: str,
    limit: float,
    every: float,
    report: Callable[[list[Plain]], None],
) -> None:
    """Trains one of `NAMES` until its codes are good enough or `limit` seconds are over."""
    experiment = name in LAYERS
    grey = [] if experiment else ["data.binarisation=none"]
    data = read_data(compose("mnist+small", [*words_of(root), *grey]))
    now = time.process_time if device == "cpu" else time.perf_counter
    watch = Stopwatch(data, now, limit, every, report)
    if experiment:
        train_experiment(LAYERS[name], root, watch, device)
    else:
        images = data.fixed_set.images
        train_other(OTHERS[name](len(images)), images, watch, device)


# ---------------------------------------------------------------- the command


def result(points: Sequence[Plain], device: str, limit: float) -> Plain:
    """What OUT.json says of a training so far: `reached_s` is null until the codes are good."""
    last = points[-1]
    return {
        "device": device,
        "limit_s": limit,
        "reached_s": last["seconds"] if reached(last) else None,
        "images_per_second": last["images"] / last["seconds"],
        "machine": machine(),
        "points": list(points),
    }


def write(name: str, found: Plain, path: Path) -> None:
    """Writes a training's result to the file, beside those of other names."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    with replacing(path) as new:
        new.write_text(json.dumps(known | {name: found}, indent=1) + "\n")


def wait_for_turn() -> None:
    """Lets the process that started this one know that a turn is over, and waits for the next."""
    print(TURN, file=sys.__stdout__, flush=True)  # a run's own output goes elsewhere
    if not sys.stdin.readline():
        sys.exit("benchmarks.time_to_codes: the process that gave the turns has ended.")


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """One thread for training on the CPU; FAISS, which is imported later, reads the variable."""
    threads = torch.get_num_threads()
    with patch.dict(os.environ, {} if device == "cuda" else {"OMP_NUM_THREADS": "1"}):
        torch.set_num_threads(threads if device == "cuda" else 1)
        yield
    torch.set_num_threads(threads)


@quieten()
def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the models and writes their results. Returns the exit status: 0, or 2 with one line on
    wrong input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_codes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="MNIST_ROOT")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--minutes", type=float, default=30.0, help="of training, for each")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between measurements")
    parser.add_argument(TURN, dest="by_turns", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    limit = 60 * parsed.minutes
    for name in parsed.only:

        def report(points: list[Plain], name: str = name) -> None:
            print(line(name, points[-1]), file=sys.stderr, flush=True)
            write(name, result(points, parsed.device, limit), parsed.out)
            if parsed.by_turns:
                wait_for_turn()

        if parsed.by_turns:
            wait_for_turn()
        try:
            with one_thread(parsed.device):
                time_one(name, parsed.root, parsed.device, limit, parsed.every, report)
        except UsageError as error:
            print(f"benchmarks.time_to_codes: {error}", file=sys.stderr)
            return 2
    return 0


def line(name: str, point: Plain) -> str:
    """Formats a measurement."""
    return (
        f"{name:<9}{point['seconds']:7.0f} s{point['images']:11,} images"
        f"   KNN {point['knn']:.2%}   linear {point['linear']:.2%}"
    )


# ---------------------------------------------------------------- the row


def codes(
    root: Path = ROOT, minutes: float = 30.0, every: float = 20.0, names: Sequence[str] = NAMES
) -> Figure:
    """Compares the time that mnist+small takes on one core to good codes with that of the fastest
    other model. Each has a process of its own, and they train by turns: only one works at a time.

    Args:
        root: MNIST's files.
        minutes: of training, for each; it stands for the time of one that takes longer.
        every: seconds of a turn.
        names: models to train, `acn` among them.
    """
    with TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.json" for name in names}
        options = ["--minutes", str(minutes), "--every", str(every), TURN]
        by_turns([[str(root), str(path), "--only", name, *options] for name, path in files.items()])
        found = {name: json.loads(path.read_text())[name] for name, path in files.items()}
    seconds = {name: one["reached_s"] or 60 * minutes for name, one in found.items()}
    last = found["acn"]["points"][-1]
    ours = seconds.pop("acn")
    note = ", ".join(f"{name} {told(found[name])}" for name in seconds)
    return Figure(
        ours,
        min(seconds.values()),
        "<= 1",
        note,
        extra={"accuracy": min(last["knn"], last["linear"]), "models": found},
        limits={"accuracy": f">= {WANTED}"},
    )


def told(found: Plain) -> str:
    """How long a model took, in words."""
    last = found["points"][-1]
    if found["reached_s"] is None:
        return f"{min(last['knn'], last['linear']):.1%} after {last['seconds']:.0f} s"
    return f"{found['reached_s']:.0f} s"


def by_turns(jobs: Sequence[Sequence[str]]) -> None:
    """Runs this command with each of the arguments, until all have ended. Each starts a turn when
    the turn of the one before it is over.

    Raises:
        RuntimeError: one failed.
    """
    root, pipe = Path(__file__).parents[1], subprocess.PIPE
    running: list[subprocess.Popen[str]] = []
    try:
        for job in jobs:
            running.append(
                subprocess.Popen([*COMMAND, *job], stdin=pipe, stdout=pipe, text=True, cwd=root)
            )
            at_end_of_turn(running[-1])  # it has imported all that it needs
        while running:
            for child in list(running):
                print(file=child.stdin, flush=True)
                if not at_end_of_turn(child):
                    running.remove(child)
    finally:
        for child in running:
            child.kill()
            child.wait()


def at_end_of_turn(child: "subprocess.Popen[str]") -> bool:
    """Waits until a turn is over. Returns whether there will be another.

    Raises:
        RuntimeError: the process failed.
    """
    assert child.stdout is not None
    if any(line.strip() == TURN for line in child.stdout):
        return True
    if child.wait():
        raise RuntimeError(f"benchmarks.time_to_codes ended with status {child.returncode}.")
    return False


if __name__ == "__main__":
    sys.exit(main())
