"""A checkpoint from someone else decides the model, and nothing but the model."""

import copy
import json
import os
import random
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from lightning import Trainer

import acn_lightning
from acn_lightning.checkpoint import KEY, read_archive, read_checkpoint
from acn_lightning.experiment.restore import restore
from acn_lightning.experiment.resume import fit_config
from acn_lightning.experiment.training_state import check_progress
from acn_lightning.networks.weights import read_weights
from acn_lightning.utils.errors import InterruptionError, UsageError
from tests.conftest import QUICK
from tests.mutations import TIMES, mutated

NAN = float("nan")

CASES = 50 * TIMES
"""Mutations tried."""


@pytest.fixture
def content(checkpoint):
    """The content of a checkpoint, to change."""
    return torch.load(checkpoint, weights_only=True)


@pytest.fixture
def last(trained):
    return torch.load(trained / "runs/folder/mine/checkpoints/last.ckpt", weights_only=True)


def saved(content, name="theirs.ckpt"):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, name)
    return Path(name)


def test_where_to_write_log_and_read_comes_from_the_user(acn, last, trained):
    config = last["hyper_parameters"][KEY]
    config |= {"experiment": "../elsewhere", "logger": "wandb", "compile": True}
    config["wandb"] |= {"entity": "stranger", "mode": "online"}
    config["trainer"] |= {
        "default_root_dir": "elsewhere", "strategy": "ddp", "num_nodes": 4, "devices": 3,
        "profiler": "simple", "fast_dev_run": True,
    }  # fmt: skip
    config["data"] |= {"download": False}
    theirs = saved(last)
    status, _, err = acn("fit", f"resume={theirs}")
    assert status == 2
    assert f"those in data.root={trained / 'photos'}." in err
    assert sorted(Path().iterdir()) == [theirs]  # nothing was written
    words = [f"resume={theirs}", f"data.root={trained / 'photos'}", "run=mine", *MEASURED]
    status, out, err = acn("fit", *words, "trainer.max_epochs=5")
    assert status == 0, err
    assert "runs/checkpoint/mine/results.json" in out
    assert sorted(map(str, Path().iterdir())) == ["runs", "theirs.ckpt"]
    (told,) = re.findall("Not taken from the checkpoint: (.*). Repeat those", out)
    for word in ["logger=wandb", "wandb.entity=stranger", "trainer.num_nodes=4", "compile=true"]:
        assert word in told.split()
    written = json.loads(Path("runs/checkpoint/mine/results.json").read_text())
    assert written["training"]["epochs"] == 5


MEASURED = [word for word in QUICK if word.startswith(("evaluation.", "pictures."))]


def test_a_model_of_a_machine_with_a_gpu_is_used_and_resumed_on_one_without(acn, last, trained):
    last["hyper_parameters"][KEY]["neighbours"] |= {"device": "gpu", "memory_mb": 64}
    theirs = saved(last)
    loaded = acn_lightning.load(theirs)
    assert (loaded.index.device, loaded.index.memory) == ("auto", 64 * 2**20)
    assert acn_lightning.load(theirs, ["neighbours.device=cpu"]).index.device == "cpu"
    with pytest.raises(UsageError, match=r"neighbours.device=gpu: .*neighbours.device=auto"):
        acn_lightning.load(theirs, ["neighbours.device=gpu"])
    image, root = trained / "photos/digit 0/00.png", f"data.root={trained / 'photos'}"
    for words in (("neighbours", theirs, image, root), ("pack", theirs, "out=packed")):
        status, _, err = acn(*words)
        assert status == 0, err
    assert "memory_mb" in (written := Path("packed/config.json").read_text())
    assert '"device"' not in written
    for device in ("auto", "cpu"):  # whoever wants another than the default names it
        words = [f"resume={theirs}", root, f"neighbours.device={device}"]
        config, resumed = fit_config(None, words)
        assert config["neighbours"]["device"] == device
        assert "neighbours.device" not in resumed.told[0]
    assert "neighbours.device=gpu" in fit_config(None, words[:2])[1].told[0]


def test_a_test_says_what_was_measured_otherwise(acn, checkpoint, trained):
    status, out, err = acn("test", checkpoint, f"data.root={trained / 'photos'}",
                           "evaluation.linear=none")  # fmt: skip
    assert status == 0, err
    told = "Not taken from the checkpoint: evaluation.unconditional_codes=16. Repeat those"
    assert told in out


def test_the_best_checkpoint_is_the_one_beside_the_file(acn, last, trained):
    Path("secret").write_text("of this machine")
    (state,) = (state for name, state in last["callbacks"].items() if "Best" in name)
    state |= {"best_model_path": str(Path("secret").resolve()), "last_model_path": "secret"}
    state["best_model_score"] = torch.tensor(-1e9)  # no epoch beats it
    words = [f"data.root={trained / 'photos'}", "run=mine", "trainer.max_epochs=5", *MEASURED]
    assert acn("fit", f"resume={saved(last)}", *words)[0] == 0
    run = Path("runs/folder/mine")
    assert not any(b"of this machine" in one.read_bytes() for one in run.rglob("*.*"))
    read_checkpoint(run / "checkpoints" / "best.ckpt")  # its own: there was none beside the file

    saved(last, "other/last.ckpt")
    Path("other/best.ckpt").write_text("of this machine")
    with pytest.warns(UserWarning, match=r"best.ckpt is not an acn checkpoint.*a new best"):
        assert acn("fit", "resume=other/last.ckpt", *words, "run=other")[0] == 0
    read_checkpoint(Path("runs/folder/other/checkpoints/best.ckpt"))

    shutil.copy(trained / "runs/folder/mine/checkpoints/best.ckpt", "other/best.ckpt")
    assert acn("fit", "resume=other/last.ckpt", *words, "run=third")[0] == 0
    own = Path("runs/folder/third/checkpoints/best.ckpt")
    assert own.read_bytes() == Path("other/best.ckpt").read_bytes()


@pytest.mark.parametrize(
    "named", [(), ("model.encoder.kind=import",), ("model.encoder.path=evil:E",)]
)
def test_code_runs_if_it_is_named_in_full(acn, content, named):
    sys.modules.pop("evil", None)
    Path("evil.py").write_text("open('ran', 'w')\nE = print\n")
    config = content["hyper_parameters"][KEY]
    config["model"]["encoder"] = {"kind": "import", "path": "evil:E", "arguments": {"x": "y"}}
    status, _, err = acn("onnx", saved(content), "out=x.onnx", *named)
    assert status == 2
    assert 'evil:E with {"x": "y"}, which is code outside of acn' in err
    assert 'add model.encoder.path=evil:E \'model.encoder.arguments={"x": "y"}\'.' in err
    assert not Path("ran").exists()
    full = ("model.encoder.path=evil:E", "model.encoder.arguments={x: y}")
    assert acn("onnx", "theirs.ckpt", "out=x.onnx", *full)[0] == 2  # print is no network
    assert Path("ran").exists()


def put(*path_and_value):
    """Sets a value at a path."""
    *path, key, value = path_and_value

    def change(content):
        inner = content
        for name in path:
            inner = inner[name]
        inner[key] = value(inner[key]) if callable(value) else value

    return change


def nan_at(row):
    def change(tensor):
        spoilt = tensor.clone(memory_format=torch.contiguous_format)
        spoilt.view(-1)[row] = NAN
        return spoilt

    return change


def shared(depth=60):
    """A list that holds itself twice over in each level: 2 ** depth values in a few bytes."""
    value = ["x"]
    for _ in range(depth):
        value = [value, value]
    return value


def with_attribute(tensor):
    tensor.isfinite = "x"
    return tensor


BANK = "code_bank"
CHANGES = {
    "no weights": lambda content: content.pop("state_dict"),
    "weights are a list": put("state_dict", []),
    "a weight is a number": put("state_dict", "prior.output.bias", 1.0),
    "a weight is NaN": put("state_dict", "prior.output.bias", nan_at(0)),
    "a weight of another size": put("state_dict", "prior.output.bias", lambda old: old[:-1]),
    "a weight that claims terabytes": put(
        "state_dict", "prior.output.bias", torch.zeros(1).expand(2**40)
    ),
    "no hyper-parameters": lambda content: content.pop("hyper_parameters"),
    "no config": lambda content: content["hyper_parameters"].pop(KEY),
    "a config with a tensor": put("hyper_parameters", KEY, "model", "code_size", torch.zeros(1)),
    "a section is a number": put("hyper_parameters", KEY, "trainer", 5),
    "no image shape": lambda content: content["hyper_parameters"].pop("image_shape"),
    "images of two axes": put("hyper_parameters", "image_shape", [12, 12]),
    "images of two channels": put("hyper_parameters", "image_shape", [2, 12, 12]),
    "images of 0 pixels": put("hyper_parameters", "image_shape", [1, 0, 12]),
    "images of a billion pixels": put("hyper_parameters", "image_shape", [1, 2**20, 2**20]),
    "images that need huge networks": put("hyper_parameters", "image_shape", [3, 4096, 4096]),
    "a config of huge networks": put(
        "hyper_parameters", KEY, "model", "encoder", "channels", 16384
    ),
    "a seed of 400 digits": put("hyper_parameters", KEY, "seed", 10**400),
    "a negative seed": put("hyper_parameters", KEY, "seed", -5),
    "a weight of 8 bits": put(
        "state_dict", "prior.output.bias", lambda old: old.to(torch.float8_e4m3fn)
    ),
    "complex weights": put("state_dict", "prior.output.bias", lambda old: old.to(torch.complex64)),
    "nested weights": put(
        "state_dict", "prior.output.bias",
        lambda old: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    ),
    "a weight with other methods": put("state_dict", "prior.output.bias", with_attribute),
    "class names are numbers": put("hyper_parameters", "classes", [1, 2, 3]),
    "class names are a text": put("hyper_parameters", "classes", "abc"),
    "codes are NaN": put(BANK, "codes", nan_at(5)),
    "codes of 16 bits": put(BANK, "codes", lambda old: old.half()),
    "codes of another size": put(BANK, "codes", lambda old: old[:, :-1]),
    "fewer codes": put(BANK, "codes", lambda old: old[:-1]),
    "codes are a list": put(BANK, "codes", lambda old: old.tolist()),
    "rows are all 0": put(BANK, "rows", torch.zeros_like),
    "rows out of range": put(BANK, "rows", lambda old: old + 10**6),
    "negative rows": put(BANK, "rows", lambda old: old - 10),
    "rows in disorder": put(BANK, "rows", lambda old: old.flip(0)),
    "no rows": put(BANK, "rows", lambda old: old[:0]),
    "rows are floats": put(BANK, "rows", lambda old: old.float()),
    "labels of no class": put(BANK, "labels", lambda old: old + 10**6),
    "labels below -1": put(BANK, "labels", lambda old: old - 5),
    "no labels": lambda content: content[BANK].pop("labels"),
    "codes of the future": put(BANK, "written", lambda old: old + 100),
    "a boundary that is a text": put(BANK, "boundary", "3"),
    "neighbours out of range": put(BANK, "neighbours", lambda old: old + 10**6),
    "neighbours held out": put(BANK, "neighbours", lambda old: torch.full_like(old, -1)),
    "its own neighbour": put(
        BANK, "neighbours", lambda old: torch.arange(len(old), dtype=torch.int32)[:, None]
    ),
    "pending codes of no row": put(
        BANK, "pending", [(torch.tensor([10**6]), torch.zeros(1, 4))]
    ),
    "pending is a number": put(BANK, "pending", 5),
    "billions of values": put("loops", shared()),
    "a fingerprint that is a list": put("ImageData", "fingerprint", []),
    "an old Lightning": put("pytorch-lightning_version", "0.1"),
    "a Lightning of no number": put("pytorch-lightning_version", ["2"]),
}  # fmt: skip


COMMANDS = list(CHANGES.values())[::4]
"""Some of these go through a command. It reads checkpoints by the functions that `load` calls."""


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_whole_structure_is_checked(acn, content, change):
    change(content)
    path = saved(content)
    if change in COMMANDS:
        status, _, err = acn("onnx", path, "out=x.onnx")
        assert (status, err.count("\n")) == (2, 1)
    else:
        with pytest.raises(UsageError) as error:
            acn_lightning.load(path)
        assert "\n" not in str(error.value)
    assert list(Path().iterdir()) == [Path("theirs.ckpt")]


@pytest.mark.parametrize("root", [{"a": 1}, 5, ["x"]])
def test_a_root_that_is_no_text_is_asked_for(acn, content, root):
    content["hyper_parameters"][KEY]["data"]["root"] = root
    status, _, err = acn("sample", saved(content))
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("acn: data.root: say where the images are")


def test_weights_that_predict_nothing_finite_are_refused_in_a_line(acn, content, trained):
    for name, weight in content["state_dict"].items():
        if name.startswith("decoder") and weight.is_floating_point():
            weight.fill_(3e38)
    status, _, err = acn("sample", saved(content), f"data.root={trained / 'photos'}")
    assert (status, err.count("\n")) == (2, 1)
    assert "predicts NaN or infinity" in err


METRICS = {
    "bytes": b"\xff\0,\n", "a long field": b"epoch,b\n1," + b"x" * 200_000 + b"\n",
    "no epochs": b"a,b\n1,2\n", "an epoch that is a text": b"epoch,b\nx,2\n",
}  # fmt: skip


@pytest.mark.parametrize("table", METRICS.values(), ids=METRICS.keys())
def test_a_table_of_metrics_that_is_none_is_refused_in_a_line(acn, last, trained, table):
    run = Path("runs/folder/mine")
    shutil.copytree(trained / "runs/folder/mine", run)
    (run / "metrics.csv").write_bytes(table)
    status, _, err = acn(*again(trained))
    assert status == 2
    assert err.splitlines()[-1].startswith(f"acn: run: {run}/metrics.csv is not a table of metrics")


def again(trained):
    """The command of the run `mine`, for one epoch more."""
    return ("fit", "folder", *QUICK, f"data.root={trained / 'photos'}", "trainer.max_epochs=5",
            "data.image_size=12", "run=mine", "resume=auto", "pictures.every_n_epochs=0",
            "evaluation.linear=none", "trainer.accelerator=cpu",
            "model.decoder.kind=conv")  # fmt: skip


@pytest.mark.parametrize("name", ["metrics.csv", ".metrics.csv.partial"])
def test_metrics_are_not_written_through_a_link(acn, trained, name):
    run = Path("runs/folder/mine")
    shutil.copytree(trained / "runs/folder/mine", run)
    (run / "metrics.csv").unlink()
    Path("victim").write_text("keep")
    (run / name).symlink_to(Path("victim").resolve())
    acn(*again(trained))
    assert Path("victim").read_text() == "keep"


def test_a_pipe_in_place_of_metrics_does_not_wait(acn, trained):
    run = Path("runs/folder/mine")
    shutil.copytree(trained / "runs/folder/mine", run)
    (run / "metrics.csv").unlink()
    os.mkfifo(run / "metrics.csv")
    status, _, err = acn(*again(trained))
    assert status == 2
    assert "metrics.csv is no file. Remove it." in err


def test_many_classes_and_the_costs_of_many_epochs_are_read(content):
    """As an older version kept them."""
    state = content["callbacks"]["WarnOfFaults"]
    state["history"] = [[1.5, 2.5] for _ in range(10_000)]
    content["hyper_parameters"]["classes"] = [f"class {one}" for one in range(75_000)]
    assert len(read_checkpoint(saved(content))["hyper_parameters"]["classes"]) == 75_000


def test_a_signal_is_not_taken_for_a_damaged_checkpoint(checkpoint, monkeypatch):
    def signalled(*_, **__):
        raise InterruptionError(None, 143)

    monkeypatch.setattr(torch, "load", signalled)
    with pytest.raises(InterruptionError):
        read_checkpoint(checkpoint)


def test_a_compressed_checkpoint_is_refused(checkpoint):
    """A small file could otherwise fill the memory."""
    with (
        zipfile.ZipFile(checkpoint) as old,
        zipfile.ZipFile("small.ckpt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    for read, what in ((read_checkpoint, "an acn checkpoint"), (read_weights, "a weights file")):
        with pytest.raises(UsageError, match=f"small.ckpt is not {what}: .* is compressed"):
            read("small.ckpt")


class Large:
    """What a pickle of some bytes makes of it would fill the memory."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "call",
    [(bytearray, (10**8,)), (torch.FloatTensor, (10**8,)), (torch.storage.UntypedStorage, (9,))],
    ids=["bytearray", "tensor", "storage"],
)
def test_a_small_pickle_does_not_fill_the_memory(call, zipped, monkeypatch):
    """The same check stands before checkpoints and weights."""
    torch.save({"x": Large(*call)}, "large.pt", _use_new_zipfile_serialization=zipped)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch came to read it"))
    for read in (read_weights, *([read_checkpoint] if zipped else [])):
        with pytest.raises(UsageError, match=r"large.pt .*pickled object, which could run code"):
            read("large.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_ordinary_weights_are_read(zipped):
    kinds = [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.complex64]
    given = torch.nn.BatchNorm1d(3).state_dict() | {
        str(one): torch.ones(2, dtype=one) for one in kinds
    }
    given["own"] = torch.nn.Parameter(torch.ones(2))
    whole = {"state_dict": given, "epoch": 3, "size": torch.Size([1]), "kind": torch.float32}
    torch.save(whole, "some.pt", _use_new_zipfile_serialization=zipped)
    read = read_weights("some.pt")
    assert read.keys() == given.keys()
    assert all(torch.equal(read[name], given[name]) for name in given)


def test_a_checkpoint_with_two_directories_is_refused(monkeypatch):
    """zipfile takes the directory before the last record, so the second file; torch the one that
    this record names from the beginning on, so the first."""
    first, second = (saved({"x": torch.full((2,), value)}).read_bytes() for value in (1.0, 2.0))
    assert len(first) == len(second)
    Path("theirs.ckpt").write_bytes(first + second)
    with zipfile.ZipFile("theirs.ckpt") as archive:
        assert archive.testzip() is None
        assert archive.read("theirs/data/0") == torch.full((2,), 2.0).numpy().tobytes()
    with pytest.raises(UsageError, match=r"theirs.ckpt is truncated or damaged"):
        read_archive(Path("theirs.ckpt"))
    named = "acn_lightning.utils.archives.directory_of"
    monkeypatch.setattr(named, lambda _: len(first) + second.index(b"PK\1\2"))
    assert read_archive(Path("theirs.ckpt"))["x"].tolist() == [1, 1]  # not those that were checked


TRAINING = {
    "a count is a text": put("loops", "fit_loop", "epoch_progress", "current", "processed", "2"),
    "a negative count": put("loops", "fit_loop", "epoch_progress", "total", "ready", -5),
    "no loops": lambda content: content.pop("loops"),
    "loops of numbers": put("loops", "fit_loop", 5),
    "no optimiser": put("optimizer_states", []),
    "two optimisers": put("optimizer_states", lambda old: old * 2),
    "an optimiser is a list": put("optimizer_states", 0, []),
    "moments of another size": put("optimizer_states", 0, "state", 0, "exp_avg", torch.zeros(3)),
    "moments are NaN": put("optimizer_states", 0, "state", 0, "exp_avg", nan_at(0)),
    "no moments": lambda content: content["optimizer_states"][0]["state"][0].pop("exp_avg_sq"),
    "a step is a text": put("optimizer_states", 0, "state", 0, "step", "1"),
    "fewer parameters": put("optimizer_states", 0, "param_groups", 0, "params", [0, 1]),
    "betas are a text": put("optimizer_states", 0, "param_groups", 0, "betas", "x"),
    "betas out of range": put("optimizer_states", 0, "param_groups", 0, "betas", (5.0, -3.0)),
    "another switch": put("optimizer_states", 0, "param_groups", 0, "capturable", True),
    "a step of several": put("optimizer_states", 0, "state", 0, "step", torch.zeros(7)),
    "a negative step": put("optimizer_states", 0, "state", 0, "step", torch.tensor(-1e30)),
    "moments of 8 bits": put(
        "optimizer_states", 0, "state", 0, "exp_avg", lambda old: old.to(torch.int8)
    ),
    "counts of 400 digits": put("callbacks", "RefreshNeighbours", "rebuilds", 10**400),
    "no groups": put("optimizer_states", 0, "param_groups", None),
    "random numbers of no state": put("random", 0, lambda old: old[:10]),
    "random numbers of a wrong state": put("random", 0, lambda old: old.fill_(255)),
    "a time is a tensor": put("callbacks", "Timer", "time_elapsed", "train", torch.zeros(0)),
    "a callback's state is a list": put("callbacks", "Timer", []),
    "costs are texts": put("epoch_costs", ["x"]),
    "parts are numbers": put("pretrained", [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize("change", TRAINING.values(), ids=TRAINING.keys())
def test_what_a_run_resumes_is_checked_before_it_writes(acn, last, trained, change):
    change(last)
    words = [f"resume={saved(last)}", f"data.root={trained / 'photos'}", "trainer.max_epochs=5"]
    status, _, err = acn("fit", *words)
    assert status == 2, err
    assert err.splitlines()[-1].startswith("acn: ")
    assert "Traceback" not in err
    assert list(Path().iterdir()) == [Path("theirs.ckpt")]


def test_what_only_lightning_reads_is_refused_in_a_line(acn, last, trained):
    del last["loops"]["fit_loop"]["epoch_progress"]["total"]
    last["lr_schedulers"] = [{}]
    words = [f"resume={saved(last)}", f"data.root={trained / 'photos'}", "trainer.max_epochs=5"]
    status, _, err = acn("fit", *words)
    assert status == 2
    assert "theirs.ckpt does not fit this run: " in err.splitlines()[-1]
    assert list(Path().iterdir()) == [Path("theirs.ckpt")]


def test_a_checkpoint_changed_anywhere_loads_or_is_refused(last):
    """Typed mutations; `test_fuzz` has other inputs."""
    module = restore(copy.deepcopy(last))
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    refused = 0
    for seed in range(CASES):
        changed, what = mutated(last, random.Random(seed))
        path = saved(changed)
        try:
            content = read_checkpoint(path)
            found = restore(copy.deepcopy(content))
            check_progress(content, trainer, module)
            assert found(torch.rand(1, 1, 12, 12)).mean.isfinite().all(), what
        except UsageError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {what}") from error
    assert CASES / 3 < refused < CASES
