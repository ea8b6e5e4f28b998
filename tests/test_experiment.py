"""Whole runs through the command: what they write, how they resume, how they end."""

import csv
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from PIL import Image

from acn_lightning import fit as fit_arrays
from acn_lightning.config.compose import compose
from acn_lightning.experiment import train
from acn_lightning.experiment.build import build, read_data
from acn_lightning.experiment.loggers import continue_metrics
from acn_lightning.experiment.resume import fit_config
from acn_lightning.experiment.trainer import OF_A_STEP, check_limits, check_shares, make_trainer
from acn_lightning.utils.errors import UsageError
from tests.conftest import BESIDE, CHEAP, QUICK, only_run, write_idx
from tests.processes import Run

FIT = ("fit", "digits", *QUICK, *CHEAP, "pictures.every_n_epochs=2", "data.subset=300")
"""Five steps an epoch."""


def rows(folder):
    """metrics.csv by epoch, without what takes time."""
    by_epoch = {}
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and "second" not in name:
                    by_epoch.setdefault(int(row["epoch"]), {})[name] = value
    return by_epoch


def test_fit_writes_one_complete_folder(acn):
    status, out, err = acn(*FIT, "trainer.max_epochs=2", "evaluation.linear=all")
    assert status == 0, err
    folder = only_run()
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "about.json", "config.yaml", "metrics.csv", "results.json", "warnings.json",
        "checkpoints/last.ckpt", "checkpoints/last-1.ckpt", "checkpoints/best.ckpt",
        "images/reconstructions.png", "images/neighbours.png", "images/augmented.png", ".lock",
    }  # fmt: skip
    for file in files - {".lock"}:
        assert str(folder / file) in out
    prints = json.loads((folder / "about.json").read_text())["fingerprints"]
    assert prints["test"].startswith("359 images, ")
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert prints["training"] == checkpoint["ImageData"]["fingerprint"]
    results = json.loads((folder / "results.json").read_text())
    assert set(results) == {
        "data", "split", "images", "seed", "binarisation", "nats_per_image", "bits_per_dim",
        "accuracy", "representations", "code_size", "training", "posterior_samples", "seconds",
        "checkpoint", "parent",
    }  # fmt: skip
    assert set(results["nats_per_image"]) == {
        "reconstruction", "kl_k1", "kl_k5", "kl_k10", "kl_tour", "kl_unconditional", "ordered",
        "unordered", "set",
    }  # fmt: skip
    assert set(results["bits_per_dim"]) == {"ordered", "unordered"}
    assert set(results["accuracy"]) == {"linear", "knn", "linear_pca", "linear_pixels"}
    assert (results["data"], results["split"], results["images"]) == ("digits", "test", 359)
    assert Path(results["checkpoint"]).is_file()
    costs = results["nats_per_image"]
    assert costs["ordered"] == pytest.approx(costs["reconstruction"] + costs["kl_tour"])
    assert costs["unordered"] == pytest.approx(costs["reconstruction"] + costs["kl_unconditional"])
    for name in ("ordered", "unordered"):  # of 64 pixels
        bits = costs[name] / 64 / np.log(2)
        assert results["bits_per_dim"][name] == pytest.approx(bits)
        assert f"{costs[name]:.2f}" in out
        assert f"{bits:.4f}" in out
    for line in ("reconstruction", "KL, K = 5", "KNN classifier", "index rebuilds", "3 in"):
        assert line in out
    assert all(0 < accuracy <= 1 for accuracy in results["accuracy"].values())
    assert "270 of 270" in out
    metrics = rows(folder)
    for name in ("train/rate", "train/total", "val/total", "val/knn_accuracy", "bank/refreshed"):
        assert name in metrics[0]
        assert name in metrics[1]
    # a query and its five neighbours a row; ten rows
    assert Image.open(folder / "images/neighbours.png").size == (6 * 58 + 12, 10 * 58 + 2)


def test_the_written_config_runs_again_to_the_same_end(acn):
    status, _, err = acn(*FIT, "trainer.max_epochs=1", "seed=3")
    assert status == 0, err
    first = only_run()
    status, _, err = acn("fit", first / "config.yaml", "trainer.default_root_dir=again")
    assert status == 0, err
    second = only_run(Path("again"))
    one, other = (json.loads((run / "results.json").read_text()) for run in (first, second))
    assert one["nats_per_image"] == other["nats_per_image"]
    assert rows(first) == rows(second)


def same(one, other):
    """Bit-identical states; paths and times aside."""
    if torch.is_tensor(one):
        return torch.equal(one, other)
    if isinstance(one, dict):
        ignored = {"dirpath", "best_model_path", "kth_best_model_path", "best_k_models", "seconds",
                   "last_model_path", "time_elapsed"}  # fmt: skip
        return one.keys() == other.keys() and all(
            same(one[key], other[key]) for key in one if key not in ignored
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def assert_same_end(one_root, other_root):
    """The last checkpoints of the only runs below two folders are the same in all that counts."""
    one, other = (
        torch.load(only_run(Path(root)) / "checkpoints/last.ckpt", weights_only=True)
        for root in (one_root, other_root)
    )
    for checkpoint in (one, other):  # how many steps are planned is not the same before a stop
        kept = checkpoint["callbacks"]["WarnOfFaults"]
        kept["given"] = [fault for fault in kept["given"] if fault["name"] != "few_steps"]
    for part in (
        "state_dict",
        "optimizer_states",
        "code_bank",
        "epoch",
        "global_step",
        "callbacks",
    ):
        assert same(one[part], other[part]), part
    assert one["code_bank"]["neighbours"] is not None


NOT_CARRIED = ("checkpoints.", "pictures.", "probe.", "evaluation.", "trainer.enable")
"""Beginnings of words that a checkpoint does not decide."""

WITHIN = ("checkpoints.every_n_steps=4", "trainer.accumulate_grad_batches=2")

PIXELCNN = (
    "model.decoder.kind=pixelcnn", "model.decoder.layers=2", "model.decoder.kernel=3",
    "model.decoder.map_channels=8", "model.likelihood.kind=bernoulli", "pictures.images=2",
    "schedule.kind=cosine", "model.warmup_epochs=2", "refresh.encode=true",
    "checkpoints.every_n_steps=4", "pictures.samples=2", "pictures.points=20",
    "probe.every_n_epochs=1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("prior", "more"), [("mixture", ()), ("standard_normal", WITHIN), ("mixture", PIXELCNN)]
)
def test_resumed_equals_undisturbed_bit_by_bit(acn, prior, more):
    fit = [word for word in FIT if prior == "mixture" or "prior" not in word]
    fit = [word for word in fit if more != PIXELCNN or word not in CHEAP]
    fit += [f"model.prior.kind={prior}", "data.binarisation=dynamic", *more]
    assert acn(*fit, "trainer.max_epochs=3", "trainer.default_root_dir=whole")[0] == 0
    # Killed after the first of three epochs, so that a schedule knows its whole length
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", stopped_at(epoch=1))
        assert acn(*fit, "trainer.max_epochs=3", "trainer.default_root_dir=first")[0] == 130
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning had it ignored
    whole, first = only_run(Path("whole")), only_run(Path("first"))
    last = first / "checkpoints/last.ckpt"
    within = torch.load(last, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert within["is_last_batch"] == (not more)  # the last of four steps, or the epoch's
    second = ["trainer.max_epochs=3", "trainer.default_root_dir=second", f"resume={last}"]
    second += [word for word in fit if word.startswith(NOT_CARRIED)]
    assert acn("fit", *second)[0] == 0
    resumed = only_run(Path("second"))
    assert_same_end("whole", "second")
    expected, found = rows(whole), rows(resumed)
    assert [found[epoch] for epoch in (1, 2)] == [expected[epoch] for epoch in (1, 2)]
    results = [json.loads((run / "results.json").read_text()) for run in (whole, resumed)]
    assert results[0]["nats_per_image"] == results[1]["nats_per_image"]
    assert results[0]["accuracy"] == results[1]["accuracy"]
    # the whole command given again is understood as well
    assert fit_config("digits", [*fit[2:], *second])[0] == fit_config(None, second)[0]


def test_a_resumed_run_inherits_the_best_checkpoint(acn):
    assert acn(*FIT, "trainer.max_epochs=2")[0] == 0
    first = only_run()
    # Weights so far off that an epoch does not make them better than before
    checkpoint = torch.load(first / "checkpoints/last.ckpt", weights_only=True)
    for name, weight in checkpoint["state_dict"].items():
        if name.startswith("decoder."):
            weight.mul_(100)
    torch.save(checkpoint, "worse.ckpt")
    shutil.copy(first / "checkpoints/best.ckpt", "best.ckpt")
    status, out, err = acn(
        "fit", "resume=worse.ckpt", "trainer.max_epochs=3", "trainer.default_root_dir=onward"
    )
    assert status == 0, err
    second = only_run(Path("onward"))
    best = [torch.load(run / "checkpoints/best.ckpt", weights_only=True) for run in (first, second)]
    assert best[0]["epoch"] == best[1]["epoch"] < 2
    assert str(second / "checkpoints/best.ckpt") in out


def test_what_an_epoch_logged_before_it_was_left_is_kept(tmp_path):
    lines = ["epoch,step,train/total,val/total", "0,9,4.0,3.0", "1,12,,2.5", "1,14,,2.0"]
    left = ["1,13,3.5,", "1,19,3.0,1.5"]  # by max_steps, and by an epoch that was trained on
    (tmp_path / "metrics.csv").write_text("\n".join([*lines, *left]) + "\n")
    continue_metrics([], tmp_path, epoch=1, steps=14)
    assert (tmp_path / "metrics.csv").read_text().split() == lines[:3]
    continue_metrics([], tmp_path, epoch=1, steps=10)
    assert (tmp_path / "metrics.csv").read_text().split() == lines[:2]


KEEPER = """
import pathlib
from lightning import Callback


class Keeper(Callback):
    restored = 0

    def state_dict(self):
        return {"best": -12.3, "worst": float("inf"), "restored": self.restored}

    def load_state_dict(self, state):
        self.restored = state["restored"] + 1

    def on_test_end(self, trainer, pl_module):
        pathlib.Path("restored.txt").write_text(str(self.restored))
"""


def test_a_test_takes_the_best_weights_and_leaves_the_run_as_it_is(acn, monkeypatch):
    """A resumed run's best checkpoint stays its own, and callbacks keep what they know."""
    Path("keeper.py").write_text(KEEPER)
    monkeypatch.delitem(sys.modules, "keeper", raising=False)
    mine = "callbacks.keeper.kind=keeper:Keeper"
    assert acn(*FIT, "trainer.max_epochs=1", mine)[0] == 0
    first = only_run()
    assert Path("restored.txt").read_text() == "0"
    onward = ["trainer.max_epochs=3", "trainer.default_root_dir=onward", mine]
    status, _, err = acn("fit", f"resume={first}/checkpoints/last.ckpt", *onward)
    assert status == 0, err
    assert Path("restored.txt").read_text() == "1"  # by the training
    second = only_run(Path("onward"))
    best = [torch.load(run / "checkpoints/best.ckpt", weights_only=True) for run in (first, second)]
    assert [one["epoch"] for one in best] == [0, 2]
    results = json.loads((second / "results.json").read_text())
    status, _, err = acn("test", second, "trainer.default_root_dir=tested", *BESIDE)
    assert status == 0, err
    again = json.loads((only_run(Path("tested")) / "results.json").read_text())
    costs = [one["nats_per_image"]["reconstruction"] for one in (again, results)]
    assert costs[0] == costs[1]


def test_acn_test_reports_what_fit_reported(acn):
    assert acn(*FIT, "trainer.max_epochs=1", "neighbours.k=3")[0] == 0
    fitted = json.loads((only_run() / "results.json").read_text())
    status, out, err = acn("test", fitted["checkpoint"], "trainer.default_root_dir=tested", *BESIDE)
    assert status == 0, err
    folder = only_run(Path("tested"))
    results = json.loads((folder / "results.json").read_text())
    for part in ("data", "split", "images", "seed", "binarisation", "nats_per_image", "accuracy"):
        assert results[part] == fitted[part], part
    assert results["checkpoint"] == fitted["checkpoint"]
    assert (folder / "images/neighbours.png").is_file()
    # other data settings are welcome, another K too: the tables have K of their own
    other = ["neighbours.k=7", "data.batch_size=50", "evaluation.linear=codes"]
    status, out, err = acn("test", fitted["checkpoint"], *other)
    assert status == 0, err
    assert "linear classifier" in out
    assert "pixels" not in out


@pytest.mark.parametrize(
    "options",
    [
        ["trainer.limit_val_batches=0"],
        ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3"],
        ["data.validation=0", "trainer.max_steps=3"],
        [
            "trainer.precision=bf16-mixed",
            "neighbours.factory=IVF4,Flat",
            "neighbours.k=3",
            "trainer.log_every_n_steps=0",
        ],
        [
            "trainer.accumulate_grad_batches=4",
            "data.binarisation=static",
            "trainer.limit_test_batches=2",
        ],
    ],
)
def test_trainer_options_work(acn, options):
    status, out, err = acn(*FIT, "trainer.max_epochs=1", *options)
    assert status == 0, err
    assert "nats/image" in out
    assert "unordered = reconstruction" in out


@pytest.mark.parametrize("option", ["fast_dev_run=true", "enable_checkpointing=false"])
def test_without_checkpoints_the_weights_in_memory_are_reported(acn, option):
    status, _, err = acn(*FIT, "trainer.max_epochs=1", f"trainer.{option}")
    assert status == 0, err
    assert not list(Path("runs").rglob("*.ckpt"))
    assert json.loads((only_run() / "results.json").read_text())["checkpoint"] is None


def test_own_images_from_a_folder(acn, tmp_path):
    for i in range(60):
        path = tmp_path / "photos" / ("dark" if i % 2 else "light") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i % 3, 16), (i, 9, 200 * (i % 2))).save(path)
    own = ["data.root=photos", "data.image_size=12", "neighbours.k=2", "trainer.max_epochs=1"]
    status, _, err = acn("fit", "folder", *QUICK, *own)
    assert status == 0, err
    (results,) = Path("runs/folder").glob("*/results.json")
    assert json.loads(results.read_text())["images"] == 6


# ---------------------------------------------------------------- endings


def wait_for(condition, process, seconds=60):
    end = time.time() + seconds
    while not (found := condition()):
        assert process.poll() is None, getattr(process, "said", "")
        assert time.time() < end
        time.sleep(0.05)
    return found


@pytest.mark.parametrize(
    ("how", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(acn, tmp_path, how, status):
    process = Run(*FIT, "trainer.max_epochs=400", folder=tmp_path)

    def second_epoch():
        return [path for path in Path("runs").glob("*/*/metrics.csv") if 1 in rows(path.parent)]

    wait_for(second_epoch, process)
    process.send_signal(how)
    ended, said = process.ended()
    assert ended == status, said
    last = only_run() / "checkpoints/last.ckpt"
    run = last.parents[1]
    words = shlex.join(["fit", f"{run}/config.yaml", f"run={run.name}", "resume=auto"])
    if how != signal.SIGKILL:
        assert said.strip().splitlines()[-1] == f"acn: interrupted. Resume with: acn {words}"
    epochs = torch.load(last, weights_only=True)["epoch"] + 1
    assert epochs >= 1
    if how == signal.SIGINT:  # see the test above for what comes of it
        return
    more = [f"trainer.max_epochs={epochs + 1}", "trainer.enable_model_summary=false"]
    status, _, err = acn("fit", f"resume={last}", *more, "trainer.default_root_dir=onward")
    assert status == 0, err
    status, _, err = acn(*FIT, more[0], "trainer.default_root_dir=whole")
    assert status == 0, err
    assert_same_end("onward", "whole")


def stopped_at(epoch, step=4, fit=Trainer.fit):
    """`Trainer.fit` with Ctrl-C at a step of an epoch."""

    class Stop(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch == epoch and batch_idx == step:
                raise KeyboardInterrupt

    def stopped(self, *arguments, **options):
        self.callbacks.append(Stop())
        return fit(self, *arguments, **options)

    return stopped


def test_a_run_stopped_in_its_first_epoch_leaves_its_beginning(acn):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", stopped_at(epoch=0))
        status, _, err = acn(*FIT, "trainer.max_epochs=2")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning had it ignored
    assert status == 130
    assert f"Resume with: acn fit {only_run()}/config.yaml " in err
    last = only_run() / "checkpoints/last.ckpt"
    on = "trainer.default_root_dir=onward"
    assert acn("fit", f"resume={last}", on)[0] == 0
    assert acn(*FIT, "trainer.max_epochs=2", "trainer.default_root_dir=whole")[0] == 0
    assert_same_end("onward", "whole")


def test_nan_ends_with_one_line_and_the_last_good_checkpoint(acn):
    nan = ["optimizer.learning_rate=1e20", "trainer.max_epochs=3"]
    status, _, err = acn(*FIT, *nan)
    assert status == 2
    line = err.strip().splitlines()[-1]
    assert line.startswith("acn: The loss or the weights turned NaN or infinite at step ")
    last = only_run() / "checkpoints/last.ckpt"
    assert line.endswith(f"The last good checkpoint is {last}.")
    weights = torch.load(last, weights_only=True)["state_dict"]
    assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_weights_spoilt_by_an_epochs_last_step_are_not_kept(acn):
    one_step = ["data.batch_size=2000", "optimizer.learning_rate=1e20", "trainer.max_epochs=1"]
    status, _, err = acn(*FIT, *one_step)
    assert status == 2
    assert "at step " in err.strip().splitlines()[-1]
    for path in Path("runs").rglob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.isfinite(weight).all() for weight in weights.values()), path
    status, _, err = acn(*FIT, *one_step, "trainer.enable_checkpointing=false")
    assert status == 2
    assert "last good checkpoint" not in err


@pytest.mark.parametrize("steps", [7, 10])  # in the second epoch, and at its end
def test_a_run_cut_short_by_max_steps_goes_on(acn, steps):
    status, _, err = acn(*FIT, f"trainer.max_steps={steps}")
    assert status == 0, err
    folder = only_run()
    on = ["trainer.max_epochs=3", "trainer.max_steps=-1"]
    last = f"resume={folder}/checkpoints/last.ckpt"
    assert acn("fit", last, *on, "trainer.default_root_dir=onward")[0] == 0
    assert acn(*FIT, *on, "trainer.default_root_dir=whole")[0] == 0
    assert_same_end("onward", "whole")


@pytest.mark.parametrize("ends", [["trainer.max_epochs=3"], ["trainer.max_epochs=-1"]])
def test_a_run_with_max_steps_goes_on_from_an_epochs_boundary(acn, ends):
    """Where Lightning takes such a run for one within an epoch."""
    ends = [*ends, "trainer.max_steps=15"]
    assert acn(*FIT, ends[0], "trainer.max_steps=5")[0] == 0
    last = f"resume={only_run()}/checkpoints/last.ckpt"
    assert acn("fit", last, *ends, "trainer.default_root_dir=onward")[0] == 0
    assert acn(*FIT, *ends, "trainer.default_root_dir=whole")[0] == 0
    assert_same_end("onward", "whole")


def test_the_rate_decays_by_epochs_however_many_steps_they_have(acn):
    """As after a resume with another number of processes: ten steps are half of the run."""
    rate = ["schedule.kind=cosine", "optimizer.learning_rate=0.001"]
    assert acn(*FIT, *rate, "trainer.max_epochs=2")[0] == 0
    last = f"resume={only_run()}/checkpoints/last.ckpt"
    on = ["trainer.max_epochs=4", "trainer.accumulate_grad_batches=5"]
    assert acn("fit", last, *on, "trainer.default_root_dir=onward")[0] == 0
    logged = rows(only_run(Path("onward")))
    rates = [float(logged[epoch]["train/learning_rate"]) for epoch in (2, 3)]
    expected = [0.0005 * (1 + math.cos(math.pi * step / 4)) for step in (2, 3)]
    assert rates == pytest.approx(expected, rel=1e-5)


def test_without_validation_a_cut_epoch_is_not_taken_for_the_best(acn):
    assert acn(*FIT, "trainer.max_steps=7", "data.validation=0")[0] == 0
    checkpoints = only_run() / "checkpoints"
    steps = {
        path.stem: torch.load(path, weights_only=True)["global_step"]
        for path in checkpoints.glob("*.ckpt")
    }
    assert steps == {"best": 5, "last": 7, "last-1": 5}


def test_a_class_that_only_the_test_images_have(acn):
    np.savez(
        "odd.npz",
        images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8),
        labels=np.arange(40) % 2,
        test_images=np.zeros((5, 8, 8), np.uint8),
        test_labels=np.arange(5),
    )
    source = ["data.source=npz", "data.root=odd.npz", "data.subset=null", "trainer.max_epochs=1"]
    status, out, err = acn(*FIT, *source)
    assert status == 0, err
    assert "KNN classifier" in out


# ---------------------------------------------------------------- wrong inputs


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of a digits run."""
    from acn_lightning.cli import main

    folder = tmp_path_factory.mktemp("trained")
    assert main([*FIT, "trainer.max_epochs=1", f"trainer.default_root_dir={folder}"]) == 0
    return only_run(folder) / "checkpoints/last.ckpt"


def refused(result, message):
    """Exit status 2, one line, and nothing written."""
    status, out, err = result
    assert status == 2, err
    assert out == ""
    (line,) = (line for line in err.splitlines() if line.startswith("acn: "))
    assert line == err.strip().splitlines()[-1]
    assert message in line
    assert not list(Path().glob("runs/**/*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "mnits"], "Did you mean 'mnist'"),
        (["fit", "digits", "data.batchsize=3"], "Did you mean 'data.batch_size'"),
        (["fit", "data.batch_size=many"], "data.batch_size"),
        (["fit", "mnist", "data.root=nowhere", "data.download=false"], "no folder nowhere"),
        (["fit", "digits", "neighbours.k=1294"], "neighbours.k: 1294"),
        (["fit", "digits", "neighbours.factory=Fleet"], "neighbours.factory"),
        (["fit", "digits", "neighbours.factory=IVF2000,Flat"], "cannot build 'IVF2000,Flat'"),
        (["fit", "digits", "neighbours.device=gpu", "trainer.accelerator=cpu"], "GPU"),
        (["fit", "digits", "compile=maybe"], "compile: 'maybe' is none of true, false, auto."),
        (["fit", "digits", "trainer.accelerator=abacus"], "trainer: "),
        (["fit", "digits", "trainer.devices=0"], "trainer: "),
        (["fit", "digits", "trainer.strategy=ddq"], "trainer: "),
        (["fit", "digits", "trainer.precision=7"], "trainer: "),
        (["fit", "digits", "trainer.limit_test_batches=0"], "trainer.limit_test_batches"),
        (["fit", "digits", "trainer.limit_test_batches=0.01"], "trainer.limit_test_batches"),
        (["fit", "digits", "trainer.limit_train_batches=0"], "trainer.limit_train_batches"),
        (["fit", "digits", "trainer.limit_val_batches=0.01"], "trainer: "),
        (["fit", "digits", "trainer.val_check_interval=1000"], "trainer: "),
        (["fit", "digits", "trainer.precision=bf16-true"], "trainer.precision"),
        (["fit", "digits", "trainer.strategy=ddp_spawn"], "trainer.strategy"),
        (["fit", "digits", "--seed=1"], "write seed=1, without dashes"),
        (["fit", "resume=${oc.env:NOPE}"], "NOPE"),
        (["fit", "resume=[1,2]"], "no checkpoint [1,2]"),
        (["fit", "digits", "logger=wandbb"], "Did you mean 'wandb'"),
        (
            ["fit", "logger=wandb", "wandb.mode=of"],
            "wandb.mode: 'of' is not one of online, offline, disabled",
        ),
        (["fit", "digits", "trainer.default_root_dir=/proc/none"], "cannot write /proc/none"),
        (["fit", "digits", "trainer.default_root_dir=/dev/null"], "cannot write /dev/null"),
        (["fit", "digits", "logger=wandb", "wandb.mode=online"], "logger=wandb: No API key"),
        (["fit", "digits", "model.code_size=0"], "model.code_size: 0"),
        (["fit", "digits", "model.code_size=1000000000000"], "is not from 1 to 65,536"),
        (["fit", "digits", "model.prior.mixtures=1000000000"], "is not from 1 to 1,024"),
        (["fit", "digits", "optimizer.learning_rate=.nan"], "optimizer.learning_rate: nan"),
        (["fit", "digits", "optimizer.learning_rate=1e38"], "optimizer.learning_rate: 1e+38"),
        (["fit", "digits", "experiment=../up"], "experiment: '../up'"),
        (["fit", "digits", "trainer.check_val_every_n_epoch=0"], "0 is not from 1 to"),
        (["fit", "digits", "data.validation=1.0"], "data.validation: 1.0"),
        (["fit", "digits", "model.likelihood.kind=bernoulli"], "is for pixels of two values"),
        (["fit", "digits", "data.validation=1430"], "8 training images are too few"),
        (
            ["fit", "digits", "model.decoder.kind=pixelcnn", "model.decoder.kernel=4"],
            "odd number from",
        ),
        (["fit", "digits", "schedule.kind=cosin"], "Did you mean 'cosine'"),
        (["fit", "digits", "schedule.kind=cosine", "trainer.max_epochs=-1"], "needs an end"),
        (["fit", "digits", "model.free_nats=-1"], "model.free_nats: -1.0 is not from 0 to"),
        (["fit", "digits", "evaluation.posterior_samples=0"], "evaluation.posterior_samples: 0"),
        (["fit", "digits", "evaluation.tour_seconds=.inf"], "evaluation.tour_seconds: inf"),
        (["fit", "digits", "evaluation.linear=code"], "Did you mean 'codes'"),
        (["fit", "digits+"], "'': unknown layer"),
        (["fit", "digits+pixelvea"], "Did you mean 'pixelvae'"),
        (["fit", "digits+pixelvae+nowhere.yaml"], "nowhere.yaml: there is no such file"),
        (["fit", "folder", "data.root=/dev/null"], "is a file, not a folder"),
        (["fit", "folder", "data.root=.", "data.image_size=9999999"], "from 1 to 4096"),
        (["fit", "digits", "trainer.accelerator=tpu"], "trainer: "),
        (["fit", "digits", "trainer.strategy=deepspeed"], "trainer: "),
        (["fit", "digits", "trainer.accumulate_grad_batches=0"], "is not from 1 to 1,000,000."),
        (["fit", "digits", "trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val: -1"),
        (["fit", "digits", "trainer.val_check_interval=0"], "trainer.val_check_interval: 0"),
        (["fit", "digits", "checkpoints.keep=1e9"], "checkpoints.keep"),
        (["fit", "digits", "checkpoints.keep=1000000000"], "checkpoints.keep: 1000000000 is not"),
        (["fit", "digits", "pictures.samples=1000000000"], "pictures.samples: 1000000000 is not"),
        (["fit", "digits", "dashboard.explorer=1000000000"], "dashboard.explorer: 1000000000"),
        (["fit", "digits", "model.encoder.channels=1000000000"], "from 8 to 16,384"),
        (["fit", "digits", "model.shape.decorrelation=.nan"], "model.shape.decorrelation: nan"),
        (["fit", "digits", "trainer.max_time=x"], "trainer.max_time: x is no time"),
        (["fit", "digits", "trainer.max_time={x: 1}"], "trainer.max_time: "),
        (["fit", "digits", "trainer.max_time=[1]"], "trainer.max_time: "),
        (["show", "digits", "finetune.freeze[0]=encoder"], "finetune.freeze: {'0': 'encoder'} is"),
        (["show", "digits", f"seed=0x{'f' * 5000}"], "seed: "),
        (["show", "digits", "data.background=#ff0000"], "data.background: there is no such key"),
        (["fit", "resume='quoted.ckpt'"], "no checkpoint quoted.ckpt"),
        (["fit", "resume=https://host/x.ckpt"], "resume: "),
        (["fit", "resume=~nosuchuser/x.ckpt"], "resume: "),
        (["test", "."], ". is neither a run's folder"),
        (["fit", "digits", "seed=-1"], "seed"),
        (["fit", "resume=nowhere.ckpt"], "no checkpoint nowhere.ckpt"),
        (["test", "nowhere.ckpt"], "no checkpoint nowhere.ckpt"),
        (["test"], "acn test CHECKPOINT"),
        (["show", "mnits"], "Did you mean 'mnist'"),
    ],
)
def test_wrong_words(acn, words, message):
    refused(acn(*words), message)


def test_a_run_ends_when_its_time_is_over(acn):
    words = ["trainer.max_epochs=1000", "trainer.max_time=00:00:00:01"]
    status, out, err = acn(*FIT, *words)
    assert status == 0, err
    results = json.loads((only_run() / "results.json").read_text())
    assert 1 <= results["training"]["seconds"] < 60
    assert "Ignoring" not in err + out


@pytest.mark.parametrize(("processes", "fine"), [(1, True), (2, True), (4, False)])
def test_a_share_of_the_batches_is_one_of_those_of_a_process(processes, fine, monkeypatch):
    config = compose("digits", [*QUICK, "data.batch_size=16"])
    data = read_data(config)
    run = Trainer(accelerator="cpu", logger=False, limit_test_batches=0.1)  # of 23 batches
    monkeypatch.setattr(Trainer, "world_size", processes)
    if fine:
        check_limits(run, data)
    else:
        with pytest.raises(UsageError, match=r"trainer.limit_test_batches: 0.1 of 6 leaves no"):
            check_limits(run, data)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_more_processes_than_images_are_refused_before_training(part):
    sizes = {"train": 9, "validation": 0, "test": 9} | {part: 3}
    check_shares(sizes, 3)
    with pytest.raises(UsageError, match=f"4 processes cannot share 3 {part} images"):
        check_shares(sizes, 4)


@pytest.fixture(autouse=True)
def _no_api_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.parametrize("command", ["test", "fit"])
def test_wrong_checkpoints(acn, checkpoint, command, tmp_path):
    def attempt(path):
        return acn("test", path) if command == "test" else acn("fit", f"resume={path}")

    content = checkpoint.read_bytes()
    for size in (0, 10, 1000, len(content) // 2, len(content) - 100):
        (tmp_path / "cut.ckpt").write_bytes(content[:size])
        refused(attempt(tmp_path / "cut.ckpt"), "cut.ckpt is")
    middle = len(content) // 2
    # More bytes than the padding between two parts may have
    wrong = bytes(byte ^ 255 for byte in content[middle : middle + 300])
    flipped = content[:middle] + wrong + content[middle + 300 :]
    (tmp_path / "flipped.ckpt").write_bytes(flipped)
    refused(attempt(tmp_path / "flipped.ckpt"), "flipped.ckpt is damaged")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    refused(attempt(tmp_path / "foreign.ckpt"), "foreign.ckpt is a checkpoint, but not one")
    torch.save([1, 2], tmp_path / "list.ckpt")
    refused(attempt(tmp_path / "list.ckpt"), "not one that acn fit wrote")
    for text in ("hello", "acn", "e", "root:x:0:0"):
        (tmp_path / "text.ckpt").write_text(text)
        refused(attempt(tmp_path / "text.ckpt"), "text.ckpt is")
    torch.save({"hyper_parameters": None}, tmp_path / "none.ckpt")
    refused(attempt(tmp_path / "none.ckpt"), "not one that acn fit wrote")


class Payload:
    def __reduce__(self):
        return (os.system, ("touch executed",))


@pytest.mark.parametrize("command", ["test", "fit"])
def test_a_pickled_object_in_a_checkpoint_does_not_run(acn, checkpoint, command, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"payload": Payload()}, tmp_path / "bad.ckpt")
    words = ["test", "bad.ckpt"] if command == "test" else ["fit", "resume=bad.ckpt"]
    refused(acn(*words), "holds a pickled object")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["test", "{}", "model.code_size=8"], "model.code_size: the checkpoint was trained with 4"),
        (["test", "{}", "model.prior.kind=standard_normal"], "model.prior.kind"),
        (["fit", "resume={}", "model.code_size=8"], "model.code_size"),
        (["fit", "resume={}", "seed=5"], "seed"),
        (["fit", "resume={}", "data.batch_size=5"], "data.batch_size"),
        (["fit", "resume={}", "neighbours.k=9"], "neighbours.k"),
        (["fit", "mnist", "resume={}"], "trained with"),
    ],
)
def test_overrides_that_contradict_the_checkpoint(acn, checkpoint, words, message):
    refused(acn(*(word.format(checkpoint) for word in words)), message)


def test_images_that_the_networks_cannot_take(acn, checkpoint, idx_folder):
    other = ["data.source=idx", f"data.root={idx_folder}", "data.subset=null", "neighbours.k=2"]
    refused(acn("test", checkpoint, *other), "take images of 1 x 8 x 8, the data's are 1 x 6 x 5")


def test_resuming_with_other_data_is_refused(acn, idx_folder, tmp_path):
    fit = ["fit", "digits", *QUICK, "data.source=idx", f"data.root={idx_folder}", "neighbours.k=2"]
    status, _, err = acn(*fit, "trainer.max_epochs=1", "trainer.default_root_dir=first")
    assert status == 0, err
    last = only_run(Path("first")) / "checkpoints/last.ckpt"
    write_idx(idx_folder / "train-labels-idx1-ubyte.gz", np.arange(60) % 3)
    on = ["trainer.max_epochs=2", "trainer.default_root_dir=runs"]
    refused(acn("fit", f"resume={last}", f"data.root={idx_folder}", *on), "belongs to other data")


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("reconstructions", (4 * 58 + 12, 3 * 58 + 2)),
        ("daydream", (4 * 58 + 12, 3 * 58 + 2)),
        ("unconditional", (4 * 58 + 2, 3 * 58 + 2)),
        ("interpolation", (4 * 58 + 12, 3 * 58 + 2)),
    ],
)
def test_samples_are_a_grid(acn, checkpoint, kind, size):
    words = [f"kind={kind}", "rows=3", "columns=4"]
    status, out, err = acn("sample", checkpoint, *words, "seed=4", "trainer.default_root_dir=first")
    assert status == 0, err
    png = only_run(Path("first")) / f"{kind}.png"
    assert out.strip().splitlines()[-1] == str(png)
    assert Image.open(png).size == size


def test_the_same_seed_draws_the_same_samples(acn, checkpoint):
    drawn = []
    for root, seed in (("one", 4), ("same", 4), ("other", 5)):
        words = ["rows=2", "columns=3", f"seed={seed}", f"trainer.default_root_dir={root}"]
        assert acn("sample", checkpoint, "kind=daydream", *words)[0] == 0
        drawn.append((only_run(Path(root)) / "daydream.png").read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample"], "acn sample CHECKPOINT"),
        (["sample", "{}", "seed=-1"], "seed: -1 is not from 0 to 4,294,967,295."),
        (["sample", "{}", "seed=4294967296"], "seed: 4294967296 is not from 0 to"),
        (["sample", "{}", "kind=daydraem"], "Did you mean 'daydream'"),
        (["sample", "{}", "rows=0"], "rows: 0 is not from 1 to 256"),
        (["sample", "{}", "kind=interpolation", "columns=2"], "columns: 2 is not from 3 to 256"),
        (["sample", "{}", "rows=400"], "rows: 400 is not from 1 to 256"),
        (["sample", "{}", "kind=interpolation", "rows=200"], "need 400 test images; there are 359"),
        (["sample", "{}", "columns=many"], "sampling.columns: "),
        (["sample", "nowhere.ckpt"], "no checkpoint nowhere.ckpt"),
        (["sample", "{}", "model.code_size=9"], "model.code_size"),
    ],
)
def test_wrong_words_for_samples(acn, checkpoint, words, message):
    refused(acn(*(word.format(checkpoint) for word in words)), message)


# ---------------------------------------------------------------- the command itself


def test_show_prints_what_fit_takes(acn, tmp_path):
    status, out, _ = acn("show", "mnist", "seed=4")
    assert status == 0
    assert yaml.safe_load(out)["seed"] == 4
    (tmp_path / "shown.yaml").write_text(out)
    assert acn("show", "shown.yaml")[1] == out


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from acn_lightning.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'faiss', 'numpy', 'omegaconf'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    for word in ("digits", "mnist", "fit", "test", "show", "key=value"):
        assert word in result.stdout


def test_help_takes_under_half_a_second():
    """Of a core, which other programs on the machine do not lengthen."""

    def seconds():
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "acn_lightning", "--help"], capture_output=True, check=True
        )
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])  # of processes that have ended

    assert min(seconds() for _ in range(3)) < 0.5


def test_a_run_without_a_step_checks_everything_and_tests_nothing(acn):
    status, out, err = acn("fit", "digits", *QUICK, "trainer.max_epochs=0")
    assert status == 0, err
    assert out.splitlines()[-1].startswith("Nothing was trained, so nothing was tested.")
    assert (only_run() / "config.yaml").is_file()
    assert not (only_run() / "results.json").exists()


def test_weights_from_elsewhere_are_tested_without_a_step(acn, checkpoint, trained):
    where = (f"data.root={trained / 'photos'}", "trainer.default_root_dir=again")
    words = (*BESIDE, *where, "trainer.max_epochs=0", "pictures.every_n_epochs=0")
    status, out, err = acn("finetune", checkpoint, "folder", *words, "data.image_size=12")
    assert status == 0, err
    assert "unordered" in out


def test_in_python_a_run_without_a_step_has_no_model_to_return():
    with pytest.raises(UsageError, match=r"trainer\.max_epochs: without a step"):
        fit_arrays(torch.rand(40, 8, 8), overrides=[*QUICK, "trainer.max_epochs=0"])


def test_hooks_that_do_nothing_are_not_called_at_each_step():
    class Own(Callback):
        def on_before_backward(self, *_):
            """Does something."""

    own = Own()
    run = make_trainer(compose("digits", ["trainer.accelerator=cpu"]), [own], [], Path())
    assert callable(own.on_before_backward)
    assert own.on_train_batch_start is None
    assert own.on_after_backward is None
    assert callable(own.on_train_epoch_end)
    for callback in run.callbacks:
        for name in OF_A_STEP:
            hook = getattr(callback, name)
            assert (hook is None) == (getattr(type(callback), name) is getattr(Callback, name))


def test_parameters_that_no_step_uses_are_named(monkeypatch):
    data, module = build(compose("digits", [*QUICK]))
    module.prior.spare, module.prior.frozen = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    module.prior.frozen.requires_grad_(False)

    def fit(*_, **__):
        for name, parameter in module.named_parameters():
            parameter.grad = None if "spare" in name else torch.zeros_like(parameter)
        error = RuntimeError("Expected to have finished reduction in the prior iteration before")
        DDPStrategy().on_exception(error)  # puts it into Lightning's words
        raise error

    trainer = Trainer(logger=False, accelerator="cpu")
    monkeypatch.setattr(trainer, "fit", fit)
    spare = r"no training step uses prior\.spare\.weight, prior\.spare\.bias, .*_parameters_true"
    with pytest.raises(UsageError, match=spare):
        train.fit(trainer, module, data, None, Path())
