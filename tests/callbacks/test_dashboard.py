"""What loggers get: read back from what a run has written."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch.distributions import Bernoulli, Independent
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from acn_lightning.callbacks.dashboard import Dashboard
from acn_lightning.callbacks.measure import MeasureTest
from acn_lightning.callbacks.pictures import queries_table as queries_table
from acn_lightning.config.compose import FOLDER, flatten, read_yaml
from acn_lightning.data import ImageData
from acn_lightning.evaluation.diagnostics import code_stats, drift, gain, neighbour_stats, probe
from acn_lightning.experiment import results
from acn_lightning.module import ACN
from acn_lightning.runs.comparison import SAME_DATA, SAME_HELD_OUT
from acn_lightning.utils.errors import InterruptionError
from tests.conftest import QUICK, bank_of, naive_vote, only_run

FIT = (
    "fit", "digits", *QUICK, "data.subset=300", "trainer.max_epochs=2", "pictures.every_n_epochs=1",
    "evaluation.linear=none", "probe.every_n_epochs=1", "pictures.samples=8", "pictures.points=100",
)  # fmt: skip


def read_wandb(folder):
    """The records of the offline run in a folder, by type."""
    (run,) = folder.glob("wandb/offline-run-*")
    read = subprocess.run(
        ["wandb", "leet", "inspect", "--json", str(run.resolve())],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert read.returncode == 0, read.stderr
    records = {}
    for line in read.stdout.splitlines():
        record = json.loads(line)
        records.setdefault(record["type"], []).append(record[record["type"]])
    return records


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory):
    """(the run's folder, W&B's records of it)."""
    from acn_lightning.cli import main

    root = tmp_path_factory.mktemp("dashboard")
    words = [f"trainer.default_root_dir={root}", "logger=wandb", "wandb.tags=[a,b]"]
    before = os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "offline"
    try:
        assert main([*FIT, *words]) == 0
    finally:
        os.environ.pop("WANDB_MODE")
        os.environ |= {"WANDB_MODE": before} if before else {}
    folder = only_run(root)
    return folder, read_wandb(folder)


def test_wandb_has_every_figure_over_the_global_step(dashboard):
    folder, records = dashboard
    names = {}
    for record in records["history"]:
        item = record["item"]
        for name, value in item.items():
            step = item["trainer/global_step"]
            names.setdefault(name.split("._type")[0], []).append((step, value))
    with (folder / "metrics.csv").open() as file:
        columns = file.readline().strip().split(",")
    assert set(columns) - {"step", "epoch"} <= names.keys()
    for name in (
        "train/rate", "train/distortion", "train/total", "val/rate", "val/total",
        "val/knn_accuracy", "bank/refreshed", "bank/rebuild_seconds", "bank/recall",
        "bank/neighbour_distance",
        "bank/neighbour_agreement", "bank/neighbours_changed", "codes/norm", "codes/variance_min",
        "codes/active_dimensions", "codes/knn_accuracy", "codes/linear_accuracy", "codes/variance",
        "images/reconstructions", "images/neighbours", "images/samples", "images/projection",
        "queries", "explorer", "test/kl_k5", "test/ordered", "train/images_per_second",
        "train/epoch_seconds", "train/learning_rate", "train/gradient_norm",
    ):  # fmt: skip
        assert name in names, name
    steps = [step for step, _ in names["val/total"]]
    assert steps == sorted(steps)
    assert steps[-1] > steps[0]


def test_wandb_knows_what_is_better(dashboard):
    _, records = dashboard
    known = {one["name"]: one for one in records["metric"] if "name" in one}
    assert known["val/total"]["summary"] == {"min": True}
    assert known["codes/linear_accuracy"]["summary"] == {"max": True}
    assert known["val/total"]["step_metric"] == "trainer/global_step"
    hidden = {name for name, one in known.items() if one.get("options", {}).get("hidden")}
    assert "bank/megabytes" in hidden
    assert not hidden & (known_costs := {"train/total", "val/total", "val/knn_accuracy"})
    assert known_costs <= known.keys()


def test_a_figure_of_the_test_has_one_name(dashboard):
    """Two columns of the same value would be one figure twice."""
    folder, _ = dashboard
    with (folder / "metrics.csv").open() as file:
        *_, last = csv.DictReader(file)
    figures = {name: value for name, value in last.items() if value and name.startswith("test/")}
    assert len(figures) > 8
    del figures["test/kl_k5"]  # the rate, with five neighbours
    assert len(set(figures.values())) == len(figures)
    assert not {"test/knn", "test/reconstruction", "test/linear"} & last.keys()


def test_wandb_has_checkpoints_table_commit_and_data(dashboard):
    folder, records = dashboard
    aliases = {alias: one for one in records["artifact"] for alias in one.get("aliases", [])}
    for alias, name in [("best", "best.ckpt"), ("last", "last.ckpt")]:
        contents = aliases[alias]["manifest"]["contents"]
        assert [one["path"] for one in contents] == [name]
        assert int(contents[0]["size"]) == (folder / "checkpoints" / name).stat().st_size
    text = json.dumps(records)
    assert "data_fingerprint" in text
    assert "300 images, " in text
    assert '"commit"' in text
    tables = sorted(folder.glob("wandb/*/files/media/table/queries*.json"))
    table = json.loads(tables[-1].read_text())
    assert table["columns"][:2] == ["query", "class"]
    assert len(table["data"]) == 10
    for _, label, _, theirs, agreement, distance in table["data"]:
        same = [one == label for one in theirs.split(", ")]
        assert agreement == pytest.approx(np.mean(same))
        assert distance > 0
    assert "<title>digits: test images of" in (folder / "explorer.html").read_text("utf-8")


def test_queries_without_classes_agree_about_nothing():
    images, none = torch.rand(2, 1, 4, 4), torch.full((2,), -1)
    near = torch.full((2, 3), -1)
    rows = queries_table(images, none, torch.rand(2, 3, 1, 4, 4), near, torch.rand(2, 3), ())[
        "data"
    ]
    assert [(row[1], row[3], row[4]) for row in rows] == [("", "", None)] * 2


def test_the_same_pictures_lie_in_the_folder(dashboard):
    folder, _ = dashboard
    names = {path.stem for path in (folder / "images").glob("*.png")}
    assert names == {"augmented", "reconstructions", "neighbours", "samples", "projection"}


def test_tensorboard_has_figures_histograms_and_pictures(acn):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    status, _, err = acn(*FIT, "logger=tensorboard")
    assert status == 0, err
    events = EventAccumulator(str(only_run() / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"val/total", "codes/linear_accuracy", "bank/neighbours_changed"} <= set(tags["scalars"])
    assert tags["histograms"] == ["codes/variance"]
    check_hparams(events, only_run())
    check_charts(events, set(tags["scalars"]))
    assert set(tags["images"]) == {
        f"images/{name}"
        for name in ("augmented", "reconstructions", "neighbours", "samples", "projection")
    }


def test_tensorboard_shows_steps_that_are_trained_again_once(acn):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [*FIT, "logger=tensorboard", "run=again", "resume=auto", "dashboard.checkpoints=false"]
    assert acn(*words, "trainer.max_epochs=1")[0] == 0
    checkpoints = only_run() / "checkpoints"
    shutil.copytree(checkpoints, "kept")
    for _ in range(2):
        shutil.rmtree(checkpoints)
        shutil.copytree("kept", checkpoints)
        status, _, err = acn(*words)
        assert status == 0, err
    events = EventAccumulator(str(only_run() / "tensorboard"), {"images": 0})
    events.Reload()
    assert [one.step for one in events.Scalars("val/total")] == [4, 9]
    drawn = [one.step for one in events.Images("images/reconstructions")]
    assert sorted(set(drawn)) == [5, 10]


def check_hparams(events, folder):
    """The table of runs has the config and figures that were logged."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    records = {}
    for tag in ("_hparams_/experiment", "_hparams_/session_start_info",
                "_hparams_/session_end_info"):  # fmt: skip
        data = plugin_data_pb2.HParamsPluginData()
        data.ParseFromString(events.SummaryMetadata(tag).plugin_data.content)
        records[tag.partition("/")[2]] = data
    told = {
        key: getattr(value, value.WhichOneof("kind"))
        for key, value in records["session_start_info"].session_start_info.hparams.items()
    }
    config = dict(flatten(read_yaml(folder / "config.yaml")))
    assert told.keys() == config.keys()
    for key in ("model.code_size", "optimizer.learning_rate", "data.source"):
        assert told[key] == config[key]
    asked = {one.name.tag for one in records["experiment"].experiment.metric_infos}
    logged = set(events.Tags()["scalars"])
    assert {"val/total", "test/ordered", "test/knn_accuracy"} <= asked & logged
    assert asked - logged <= {"test/linear_accuracy"}  # evaluation.linear=none
    assert records["session_end_info"].session_end_info.status == 1  # a success


def check_charts(events, logged):
    """Costs come first, and each chart has something to draw."""
    from tensorboard.plugins.custom_scalar import layout_pb2

    tensor = events.Tensors("custom_scalars__config__")[0].tensor_proto
    layout = layout_pb2.Layout()
    layout.ParseFromString(tensor.string_val[0])
    assert [one.title for one in layout.category][:2] == ["Costs", "Accuracies"]
    for category in layout.category:
        for chart in category.chart:
            found = [tag for tag in logged for one in chart.multiline.tag if re.match(one, tag)]
            assert found, chart.title


def test_what_is_not_wanted_is_left_out(acn):
    words = ["pictures.samples=0", "pictures.points=0", "probe.every_n_epochs=0"]
    words += ["logger=wandb", "dashboard.checkpoints=false", "dashboard.explorer=0"]
    status, _, err = acn(*FIT, *words)
    assert status == 0, err
    folder = only_run()
    names = {path.stem for path in (folder / "images").glob("*.png")}
    assert names == {"augmented", "reconstructions", "neighbours"}
    assert "codes/knn_accuracy" not in (folder / "metrics.csv").read_text()
    assert not (folder / "explorer.html").exists()
    records = read_wandb(folder)
    assert not {"best", "last"} & {
        alias for one in records.get("artifact", []) for alias in one.get("aliases", [])
    }


@pytest.mark.parametrize(
    "word", ["pictures.samples=-1", "probe.images=3", "probe.every_n_epochs=-1"]
)
def test_options_out_of_range_are_refused(acn, word):
    status, _, err = acn(*FIT, word)
    assert status == 2
    assert word.partition("=")[0] in err


def test_a_sweeps_agent_can_start_the_runs(acn, monkeypatch):
    """The command line that W&B's own code makes of the file, with values of its parameters."""
    sweep = read_yaml(FOLDER / "sweeps/digits.yaml")
    values = {"model.code_size": 8, "model.shape.scale": 2.5, "optimizer.learning_rate": 0.0007}
    assert values.keys() == sweep["parameters"].keys()
    assert values.keys().isdisjoint((*SAME_DATA, *SAME_HELD_OUT))  # its metric would be another
    args = {name: {"value": value} for name, value in values.items()}
    known = create_sweep_command_args({"args": args})
    known |= {"env": ["/usr/bin/env"], "program": [sweep["program"]]}  # as its agent does
    command = []
    for word in create_sweep_command(sweep["command"]):
        inner = word.removeprefix("${").removesuffix("}")
        command += known.get(inner, [word])
    assert command[:3] == ["/usr/bin/env", "acn", "fit"]
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_RUN_ID", "theirs")
    words = [word for word in QUICK if not word.startswith(("model.code_size",))]
    status, _, err = acn(*command[2:], *words, "data.subset=200", "trainer.max_epochs=1")
    assert status == 0, err
    folder = only_run()
    (run,) = folder.glob("wandb/offline-run-*")
    assert run.name.endswith("-theirs")
    config = read_yaml(folder / "config.yaml")
    assert (config["model"]["code_size"], config["model"]["shape"]["scale"]) == (8, 2.5)
    assert sweep["metric"]["name"] in (folder / "metrics.csv").read_text().splitlines()[0]


class WandbLogger(DummyLogger):
    """In the place of Lightning's."""

    experiment = None


def ending(shown, **told):
    """Has a dashboard show the end of a test to a W&B run with these attributes."""
    logger = WandbLogger()
    logger.experiment = SimpleNamespace(id="one", **told)
    shown.on_test_end(Mock(spec=Trainer, loggers=[logger]), Mock(spec=LightningModule))


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_what_fails_on_a_dashboard_after_the_test_is_a_warning(monkeypatch):
    folder = Path("run")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/best.ckpt").write_bytes(b"weights")
    shown = Dashboard(folder)
    monkeypatch.setattr(shown, "_log_explorer", full)
    with pytest.warns(UserWarning, match="W&B does not get these") as told:
        ending(shown, offline=True, log_artifact=full)
    said = [str(one.message) for one in told if "W&B does not" in str(one.message)]
    assert [line.partition(":")[0] for line in said] == ["dashboard.checkpoints",
                                                         "dashboard.explorer"]  # fmt: skip
    assert all("No space left on device" in line for line in said)


@pytest.mark.parametrize(("offline", "copies"), [(True, 1), (False, 0)])
def test_checkpoints_are_copied_for_a_later_upload_only(monkeypatch, tmp_path, offline, copies):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/best.ckpt").write_bytes(b"weights")
    logged = []
    keep = lambda one, aliases: logged.append(one)  # noqa: E731
    ending(Dashboard(tmp_path, explorer=0), offline=offline, log_artifact=keep)
    assert [list(one.manifest.entries) for one in logged] == [["best.ckpt"]]
    staged = [path for path in tmp_path.glob("data/**/*") if path.is_file()]
    assert len(staged) == copies


def test_a_test_that_fails_after_its_measurements_leaves_them(monkeypatch):
    monkeypatch.setattr(results, "measured", lambda *_: {"images": 9})
    measure = Mock(spec=MeasureTest, results={})
    run = Mock(spec=Trainer)
    run.test.side_effect = InterruptionError(None, 143)
    for found in ({}, {"images": 9}):
        measure.results = found
        with pytest.raises(InterruptionError):
            results.evaluate(
                run, Mock(spec=ACN), Mock(spec=ImageData), measure, 0.0, {"parent": None}, Path()
            )
        assert Path("results.json").exists() is bool(found)
    assert json.loads(Path("results.json").read_text()) == {"images": 9, "parent": None}


# ---------------------------------------------------------------- the figures


def test_figures_of_codes_by_hand():
    codes = torch.tensor([[3.0, 4.0, 1.0], [0.0, 0.0, 1.0]])
    figures = code_stats(codes)
    assert figures["codes/norm"] == pytest.approx((26**0.5 + 1) / 2)
    assert figures["codes/variance_mean"] == pytest.approx((1.5**2 + 2**2) / 3)
    assert figures["codes/variance_min"] == 0
    assert figures["codes/active_dimensions"] == 2


def test_codes_of_one_number_have_a_shape_too():
    codes = torch.tensor([[1.0], [3.0]])
    figures = code_stats(codes)
    assert figures["codes/eigenvalue_min"] == figures["codes/eigenvalue_max"] == 1
    assert figures["codes/effective_dimensions"] == 1


def test_figures_of_neighbours_by_hand():
    bank = bank_of(size=30)
    bank.neighbours = torch.randint(0, 30, (30, 4), dtype=torch.int32)
    before = torch.randint(0, 30, (30, 4))
    rows = torch.tensor([3, 7, 20])
    figures = neighbour_stats(bank, rows, before[rows])
    pairs = [(row, other) for row in rows.tolist() for other in bank.neighbours[row].tolist()]
    far = [float((bank.codes[row] - bank.codes[other]).norm()) for row, other in pairs]
    same = [bool(bank.labels[row] == bank.labels[other]) for row, other in pairs]
    new = [other not in before[row].tolist() for row, other in pairs]
    assert figures["bank/neighbour_distance"] == pytest.approx(np.mean(far))
    assert figures["bank/neighbour_agreement"] == pytest.approx(np.mean(same))
    assert figures["bank/neighbours_changed"] == pytest.approx(np.mean(new))
    bank.labels = torch.full((30,), -1)
    assert neighbour_stats(bank, rows, None).keys() == {"bank/neighbour_distance"}


def test_a_probe_is_the_vote_of_the_nearest():
    codes, labels = torch.randn(40, 3), torch.arange(40) % 3
    queries, truth = torch.randn(25, 3), torch.arange(25) % 3
    figures = probe((codes, labels), (queries, truth), 3, linear=False)
    right = 0
    for query, label in zip(queries, truth, strict=True):
        order = (codes - query).norm(dim=1).argsort()[:5]
        right += naive_vote(labels[order].tolist()) == label
    assert figures["codes/knn_accuracy"] == pytest.approx(right / 25)
    assert set(figures) == {"codes/knn_accuracy", "codes/precision_at_10"}


def test_drift_and_gain_of_codes_that_are_known():
    stored, fresh = torch.zeros(2, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert drift(stored, fresh, neighbour_distance=1.5) == pytest.approx(2)
    image = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    own = torch.tensor([0.2, 0.7]).view(2, 1)  # the probability that a pixel is white

    def decoder(z):
        return Independent(Bernoulli(z.view(-1, 1, 1, 1)), 3)

    with_others = -math.log(0.3) - math.log(0.2)
    with_own = -math.log(0.8) - math.log(0.7)
    assert gain(decoder, own, image) == pytest.approx((with_others - with_own) / 2)
