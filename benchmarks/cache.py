"""Measures images on disk beside images in memory: speed, waiting and memory.

    python -m benchmarks.cache SIZE FOLDER fill   writes the images
    python -m benchmarks.cache SIZE FOLDER        prints the measurements as JSON

Images are random, grey, of 64 x 64 pixels. A process of its own writes them to the cache, and
another uses them, so that its memory is that of a run that finds them there.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from acn_lightning.config.compose import compose
from acn_lightning.data import ImageData, Source, Split, Splits
from acn_lightning.data.sources.base import Outline
from acn_lightning.data.storage import PIECE
from acn_lightning.experiment.build import build_for
from benchmarks.data import batches, count
from benchmarks.measure import Figure, alternate

SIDE = 64

IN_MEMORY = 10**5
"""The most images of which a copy is made in memory; its epoch is extrapolated from them."""

STEPS = 50
"""Number of training steps whose waiting is measured."""


def cache(size: int) -> Figure:
    """Compares an epoch of batches of 64 from disk with one from memory."""
    root = Path(__file__).parents[1]
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        command = [sys.executable, "-m", "benchmarks.cache", str(size), folder]
        subprocess.run([*command, "fill"], cwd=root, check=True)
        answer = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(answer.stdout)
    note = (
        "{size_gb:.2f} GB of images, {anonymous_gb:.2f} GB resident ({training_gb:.2f} with "
        "networks and codes), {waiting:.2f} % waiting"
    )
    return Figure(
        found.pop("ours_s"),
        found.pop("reference_s"),
        "<= 1.5",
        note.format(**found),
        found,
        {"anonymous_gb": "<= 1", "waiting": "<= 2"},
    )


def measure(size: int, folder: str) -> dict[str, Any]:
    """Measures the setup, the first epoch, two more of disk and of memory, by turns, and the part
    of training steps that waits for data."""
    start = time.perf_counter()
    data = on_disk(size, folder)
    peak, setup = anonymous_bytes(), time.perf_counter() - start
    start = time.perf_counter()
    for number, _ in enumerate(batches(data)):
        if number % 256 == 0:
            peak = max(peak, anonymous_bytes())
    first = time.perf_counter() - start
    share, training = waiting(data)
    small = in_memory(data, min(size, IN_MEMORY))
    times = len(data.rows) / len(small.rows)
    timed = alternate(lambda: count(batches(data)), lambda: count(batches(small)), 2, warm_up=False)
    return {
        "ours_s": timed.ours_s,
        "reference_s": timed.reference_s * times,
        "size_gb": data.fixed_set.images.nbytes / 1e9,
        "anonymous_gb": peak / 1e9,
        "training_gb": training / 1e9,
        "waiting": 100 * share,
        "setup_s": setup,
        "first_epoch_s": first,
    }


def on_disk(size: int, folder: str) -> ImageData:
    """The images in the cache, which is filled if they are not there."""
    data = ImageData(
        source=Noise(size), cache="disk", cache_folder=folder, binarisation="none", validation=0
    )
    data.setup()
    return data


class Noise(Source):
    """Random images.

    Args:
        size: number of training images.
    """

    kind = "noise"

    def __init__(self, size: int) -> None:
        self.size = size

    def outline(self) -> Outline:
        return Outline(self.size * SIDE**2, f"{self.size}")

    def read(self) -> Splits:
        generator = torch.Generator().manual_seed(0)
        parts = []
        for size in (self.size, 64):
            images = self.storage.empty((size, 1, SIDE, SIDE))
            for some in images.split(PIECE):
                some.random_(0, 256, generator=generator)
            parts.append(Split(images, torch.arange(size) % 10))
        return Splits(parts[0], parts[1], tuple("0123456789"))


def in_memory(data: ImageData, size: int) -> ImageData:
    """The first of the images, in memory."""
    content = data.content
    assert content is not None

    class Copied(Source):
        def read(self) -> Splits:
            train = Split(content.train.images[:size].clone(), content.train.labels[:size])
            return content._replace(train=train)

    small = ImageData(source=Copied(), binarisation="none", validation=0)
    small.setup()
    return small


def waiting(data: ImageData) -> tuple[float, int]:
    """(the part of training steps of the experiment `folder`, with its smallest networks, that
    waits for a batch; the most anonymous bytes meanwhile)."""
    sizes = ("model.encoder.channels=16", "model.decoder.channels=8")
    module = build_for(data, compose("folder", ["data.root=none", *sizes]))
    optimizer = module.optimizer.make(module.parameters())
    loader: Iterator[Any] = iter(batches(data))
    waited = worked = 0.0
    peak = 0
    for number in range(STEPS):
        start = time.perf_counter()
        batch = next(loader)
        had = time.perf_counter()
        code = torch.randn(len(batch.index), module.bank.codes.shape[1])
        rate, distortion, _ = module.costs(batch.image, code)
        (rate + distortion).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if number:  # the first starts the loader
            waited += had - start
            worked += time.perf_counter() - had
        peak = max(peak, anonymous_bytes())
    return waited / (waited + worked), peak


def anonymous_bytes() -> int:
    """This process's memory without what it maps from files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("This system does not tell a process's anonymous memory.")


if __name__ == "__main__":
    if "fill" in sys.argv[3:]:
        on_disk(int(sys.argv[1]), sys.argv[2])
    else:
        print(json.dumps(measure(int(sys.argv[1]), sys.argv[2])))
