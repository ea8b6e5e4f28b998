"""What tests share. Shape annotations are checked in every call while tests run."""

import os

# Two test processes on two cores, each with two threads that spin while they wait, are fifty
# times slower than one thread each. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gzip
import struct
from collections import Counter
from pathlib import Path

import jaxtyping

# Before the hook, under which Python would compile all that is imported anew: half of the time.
import lightning  # noqa: F401
import wandb  # noqa: F401

with jaxtyping.install_import_hook("acn_lightning", "beartype.beartype"):
    import acn_lightning.callbacks
    import acn_lightning.experiment  # noqa: F401  # imports all the rest

import numpy as np
import pytest
import torch

from acn_lightning.cli import main
from acn_lightning.code_bank import CodeBank


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Each test works in an empty folder, with W&B offline and its seeds set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    torch.manual_seed(0)


@pytest.fixture
def acn(capsys):
    """Runs the command in this process: `status, out, err = acn("fit", ...)`."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


QUICK = (
    "model.encoder.channels=8",
    "model.decoder.channels=8",
    "model.prior.width=16",
    "model.encoder.spread=1",
    "model.code_size=4",
    "model.schedule=constant",
    "model.warmup_epochs=0",
    "trainer.enable_model_summary=false",
)
"""Overrides for a model that trains in a moment."""


def only_run(root=Path("runs")):
    """The folder of the only run."""
    (folder,) = root.glob("*/*")
    return folder


def bank_of(size=20, code_size=3, k_rows=None, seed=0):
    """A bank of `size` images of three classes."""
    rows = torch.arange(size) if k_rows is None else torch.as_tensor(k_rows)
    return CodeBank(torch.arange(size) % 3, rows, code_size, seed)


def naive_vote(labels):
    """The most frequent of a list of labels, the first among equals."""
    counts = Counter(labels)
    return max(labels, key=lambda label: (counts[label], -labels.index(label)))


def write_idx(path, array, compress=True):
    """An IDX file of unsigned bytes."""
    array = np.asarray(array, np.uint8)
    content = struct.pack(">HBB", 0, 8, array.ndim)
    content += struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


@pytest.fixture
def idx_folder(tmp_path):
    """A small data set in MNIST's layout: 60 training and 20 test images of 6 x 5."""
    folder = tmp_path / "idx"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for prefix, size, compress in [("train", 60, True), ("t10k", 20, False)]:
        suffix = ".gz" if compress else ""
        images = generator.integers(0, 256, (size, 6, 5))
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images, compress)
        labels = np.arange(size) % 4
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels, compress)
    return folder
