"""Parts of the user's own, named in a config: found, checked, and never imported unasked."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from acn_lightning.config.compose import complete, compose
from acn_lightning.config.imports import imports_of
from acn_lightning.data import ImageData, Source, Split, Splits
from acn_lightning.experiment.build import build, make_callbacks
from acn_lightning.experiment.carried import in_todays_terms
from acn_lightning.networks.priors import MixturePrior
from acn_lightning.optimization import CosineSchedule, OptimizerFactory
from acn_lightning.runs import sections
from acn_lightning.runs.reading import read_run
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.registry import find_class
from tests.conftest import CHEAP, QUICK, only_run

MINE = """
import pathlib

import torch
from lightning import Callback

from acn_lightning.data import Source, Split, Splits
from acn_lightning.networks.priors import MixturePrior
from acn_lightning.optimization import Schedule

pathlib.Path("imported").touch()


class WidePrior(MixturePrior):
    def __init__(self, code_size: int, *, spread: int = 2) -> None:
        super().__init__(code_size, mixtures=spread, width=8)


class Noise(Source):
    def __init__(self, *, images: int = 80) -> None:
        self.images = images

    def read(self):
        pixels = torch.randint(0, 256, (self.images, 1, 8, 8), dtype=torch.uint8)
        labels = torch.arange(self.images) % 2
        return Splits(Split(pixels[20:], labels[20:]), Split(pixels[:20], labels[:20]), ("a", "b"))


class Steps(Schedule):
    def decay(self, progress):
        return 0.5


class Note(Callback):
    def __init__(self, path, twice: bool = False):
        self.path = path

    def on_train_end(self, trainer, pl_module):
        pathlib.Path(self.path).write_text(str(trainer.optimizers[0].param_groups[0]["lr"]))
"""


@pytest.fixture
def mine(monkeypatch):
    """The module in the current folder."""
    Path("mine.py").write_text(MINE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("mine", None)  # another test's
    yield
    sys.modules.pop("mine", None)


ALL = (
    "model.prior.kind=mine:WidePrior", "data.source=mine:Noise", "schedule.kind=mine:Steps",
    "callbacks.note.kind=mine:Note",
)  # fmt: skip
WORDS = (*ALL, "callbacks.note.path=note.txt", "optimizer.kind=torch.optim:NAdam")


def test_a_class_at_a_path_is_of_its_family(mine):
    assert issubclass(find_class(MixturePrior, "mine:WidePrior"), MixturePrior)
    config = compose("digits", ["model.prior.kind=mine:WidePrior", "model.prior.spread=3"])
    assert config["model"]["prior"] == {"kind": "mine:WidePrior", "spread": 3}
    assert "mine:WidePrior" not in MixturePrior.kinds


@pytest.mark.parametrize("known", [None, True])
def test_an_imported_encoder_of_an_earlier_version_was_in_the_runs_precision(known):
    encoder = {"kind": "import", "path": "mine:Note"} | ({"float32": known} if known else {})
    shape = {"kind": "white"}
    found = in_todays_terms({"model": {"encoder": encoder, "shape": shape}})
    assert found["model"] == {"encoder": encoder | {"float32": bool(known)}, "shape": shape}


def test_a_run_with_parts_of_ones_own_and_what_its_checkpoint_asks_for(acn, mine):
    quick = [word for word in QUICK if not word.startswith(("model.prior", "schedule"))]
    status, _, err = acn("fit", "digits", *quick, *WORDS, "trainer.max_epochs=1")
    assert status == 0, err
    assert float(Path("note.txt").read_text()) == pytest.approx(0.5e-3)
    checkpoint = only_run() / "checkpoints" / "last.ckpt"
    sys.modules.pop("mine")
    Path("imported").unlink()
    given = []
    for word in ("data.source=mine:Noise", "model.prior.kind=mine:WidePrior"):
        status, _, err = acn("test", checkpoint, *given)
        assert status == 2
        assert f"If you trust that, add {word}." in err
        given.append(word)
        assert not Path("imported").exists()
    status, _, err = acn("test", checkpoint, *given, "trainer.default_root_dir=tested")
    assert status == 0, err  # what only training runs is not asked for
    run = read_run(only_run())
    lines = [shlex.split(line) for _, line in sections.uses_of_codes(run)]
    assert [line[-len(given) :] for line in (lines[0][:-1], lines[1])] == [given] * 2
    status, _, err = acn(*lines[1][1:])
    assert status == 0, err
    moved = replace(run, folder=Path("moved"))
    assert {*sections.same_run(moved)[1:]} == {*given, *WORDS[2:3], WORDS[-1]}
    status, _, err = acn("pack", checkpoint, given[1], "out=packed")
    assert status == 0, err
    card = Path("packed/README.md").read_text()
    assert f'acn_lightning.load("FOLDER", {given[1:]})' in card
    assert "its module has to be where Python finds it" in card
    sys.modules.pop("mine")
    status, _, err = acn("fit", f"resume={checkpoint}", *given)
    assert status == 2
    assert "code outside of acn" in err
    # Replacing a class does not import the checkpoint's.
    assert "mine" not in sys.modules or sys.modules.pop("mine")
    Path("imported").unlink(missing_ok=True)
    status, _, err = acn("test", checkpoint, given[0], "model.prior.kind=mixture")
    assert status == 2
    assert "model.prior.kind: the checkpoint was trained with mine:WidePrior" in err
    theirs = ("data.source=digits", "model.prior.kind=mixture", "trainer.max_epochs=1")
    status, _, err = acn("finetune", checkpoint, "digits", *theirs, "run=tuned")
    assert status == 0, err
    assert not Path("imported").exists()
    resumed = ("trainer.max_epochs=2", "run=on")
    status, _, err = acn("fit", f"resume={checkpoint}", *WORDS, *resumed)
    assert status == 0, err


def test_the_images_of_a_source_of_ones_own_are_not_needed_to_use_its_model(acn, mine):
    quick = [word for word in QUICK if not word.startswith("schedule")]
    words = [*quick, "data.source=mine:Noise", "trainer.max_epochs=1", "evaluation.linear=none"]
    assert acn("fit", "digits", *words)[0] == 0
    from acn_lightning import load

    Path("mine.py").unlink()
    sys.modules.pop("mine")
    acn_ = load(only_run() / "checkpoints" / "last.ckpt")
    assert acn_.encode(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


def test_nothing_in_a_checkpoints_config_is_resolved(acn, checkpoint, monkeypatch):
    monkeypatch.setenv("SECRET", "mine:WidePrior")
    content = torch.load(checkpoint, weights_only=True)
    config = content["hyper_parameters"]["acn_config"]
    for section, key in [("data", "root"), ("model", "code_size")]:
        before = config[section][key]
        config[section][key] = "${oc.env:SECRET}"
        torch.save(content, "theirs.ckpt")
        for command in (["test", "theirs.ckpt"], ["fit", "resume=theirs.ckpt"]):
            status, _, err = acn(*command)
            assert status == 2
            assert f"acn: {section}.{key}: the checkpoint's config holds ${{oc.env" in err
        config[section][key] = before


TRICKS = {
    "bracket": lambda c: c.update(callbacks={"a[0]": {}, "a": [{"kind": "mine:Note"}]}),
    "dotted": lambda c: (c["data"].update(source="mine:Noise"), c.update({"data.source": "b:C"})),
    "number": lambda c: c.update({3: {"kind": "mine:Note"}}),
    "alias": lambda c: c["model"].update(encoder={
        "kind": "acn_lightning.networks.imported_encoder:ImportedEncoder", "path": "mine:Note"}),
    "import": lambda c: c["model"].update(encoder={"kind": "import", "path": "mine:Note"}),
    "optimizer": lambda c: c.update(optimizer={"kind": "mine:Note"}),
    "missing": lambda c: c.update(optimizer={"kind": "???"}),
}  # fmt: skip
ALIAS = "model.encoder.kind=acn_lightning.networks.imported_encoder:ImportedEncoder"


@pytest.mark.parametrize(
    ("trick", "words"),
    [
        ("bracket", ()),
        ("dotted", ()),
        ("dotted", ("data.source=b:C",)),
        ("number", ()),
        ("alias", ()),
        ("alias", (ALIAS,)),
        ("import", ("model.encoder.kind=import",)),
        ("import", ('model.encoder.kind="import"',)),
        ("import", ("model.encoder.kind= import",)),
        ("import", ("model.encoder.kind=conv", "model={encoder: {kind: import}}")),
        ("import", ("model.encoder.path=???",)),
        ("optimizer", ()),
        ("optimizer", ("optimizer.kind=???",)),
        ("missing", ()),
    ],
)
def test_no_trick_of_a_checkpoint_imports_what_the_user_does_not_name(
    acn, checkpoint, mine, trick, words
):
    content = torch.load(checkpoint, weights_only=True)
    TRICKS[trick](content["hyper_parameters"]["acn_config"])
    torch.save(content, "theirs.ckpt")
    for command in (["fit", "resume=theirs.ckpt"], ["sample", "theirs.ckpt"]):
        if trick in ("optimizer", "missing") and command[0] == "sample":
            continue  # which needs no optimiser
        status, _, err = acn(*command, *words)
        assert status == 2
        assert len([line for line in err.splitlines() if line.startswith("acn: ")]) == 1
        assert not Path("imported").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(acn_config=3),
        lambda h: h["acn_config"].pop("model"),
        lambda h: h["acn_config"].update(data="x"),
        lambda h: h["acn_config"]["model"].update(encoder=None),
        lambda h: h["acn_config"].update(schedule="x"),
        lambda h: h["acn_config"].update(optimizer=[1]),
        lambda h: h.pop("image_shape"),
    ],
)
def test_a_misshapen_config_in_a_checkpoint_is_one_line(acn, checkpoint, change):
    content = torch.load(checkpoint, weights_only=True)
    change(content["hyper_parameters"])
    torch.save(content, "theirs.ckpt")
    status, _, err = acn("onnx", "theirs.ckpt")
    assert status == 2
    assert len(err.splitlines()) == 1


def test_a_model_of_images_of_ones_own_is_used_on_others(acn, mine):
    quick = [word for word in QUICK if not word.startswith("schedule")]
    assert acn("fit", "digits", *quick, "data.source=mine:Noise", "trainer.max_epochs=1")[0] == 0
    checkpoint = only_run() / "checkpoints" / "last.ckpt"
    sys.modules.pop("mine")
    Path("imported").unlink()
    words = ["k=3", "projection=pca", "thumbnails=0", "data.subset=60", "out=codes"]
    status, _, err = acn("export", checkpoint, "digits", *words)
    assert status == 0, err
    status, _, err = acn("finetune", checkpoint, "digits", "trainer.max_epochs=0", "run=new",
                         "evaluation.linear=none", "evaluation.unconditional_codes=16")  # fmt: skip
    assert status == 0, err
    assert "source: digits" in Path("runs/digits/new/config.yaml").read_text()
    assert not Path("imported").exists()


def test_naming_the_kind_that_is_there_changes_nothing():
    for words, experiment in [
        (["model.encoder.kind=conv"], "celeba"),
        (["model.encoder.kind=conv", "data.root=x"], "mnist+small"),
        (["model.shape.kind=white"], "fashion_mnist"),
        (["optimizer.kind=adam"], "folder"),
    ]:
        where = ["data.root=x"]
        assert compose(experiment, [*where, *words]) == compose(experiment, where)


def test_a_class_that_a_later_layer_replaces_is_not_looked_up():
    Path("layer.yaml").write_text("data: {source: 'nowhere:X'}\nschedule: {kind: 'nowhere:Y'}")
    words = ["data.source=digits", "schedule.kind=constant"]
    assert compose("digits+layer.yaml", words)["data"]["source"] == "digits"


def test_a_long_override_is_no_file(acn):
    tags = ",".join(f"tag{number}" for number in range(90))
    status, out, err = acn("show", "digits", f"wandb.tags=[{tags}]")
    assert status == 0, err
    assert "- tag89" in out


def test_what_a_config_imports_is_named_by_its_keys():
    config = complete({"experiment": "x"})
    assert imports_of(config) == {}
    config["model"]["encoder"] = {"kind": "import", "path": "a:B"}
    config["callbacks"] = {"one": {"kind": "c:D"}}
    config["data"]["source"] = "e:F"
    config["optimizer"]["kind"] = "torch.optim:SGD"
    assert imports_of(config) == {
        "model.encoder.path": "a:B",
        "callbacks.one.kind": "c:D",
        "data.source": "e:F",
        "optimizer.kind": "torch.optim:SGD",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.prior.kind=mine"], "model.prior.kind: 'mine' is not one of"),
        (["model.prior.kind=:P"], "model.prior.kind: ':P' is not of the form"),
        (["model.prior.kind=mine:"], "is not of the form package.module:Name"),
        (["model.prior.kind=nowhere:P"], "nowhere:P cannot be imported: No module named"),
        (["model.prior.kind=mine:Noise"], "mine:Noise is not a subclass of Prior."),
        (["model.prior.kind=mine:WidePrior", "model.prior.mixtures=2"], "model.prior.mixtures"),
        (["model.prior.kind=mine:WidePrior", "model.prior.spread=x"], "model.prior.spread"),
        (["data.source=mine:WidePrior"], "mine:WidePrior is not a subclass of Source."),
        (["data.source=mine:Noise", "data.imagse=3"], "Did you mean 'data.images'?"),
        (
            ["data.channels=3"],
            "It is for data.source=arrays, folder, huggingface.",
        ),
        (["model.decoder.layers=3"], "It is for model.decoder.kind=pixelcnn."),
        (["optimizer.kind=adan"], "Did you mean 'adam'?"),
        (["optimizer.kind=pathlib:Path"], "pathlib:Path is not a torch.optim.Optimizer."),
        (["optimizer.weight_decy=1"], "Did you mean 'optimizer.weight_decay'?"),
        (["optimizer.weight_decay=-1"], "optimizer: adam refuses its options: "),
        (["optimizer.lr=0.1"], "optimizer.lr: there is no such key."),
        (["schedule.kind=cosine", "schedule.warmup_steps=-1"], "schedule.warmup_steps: -1"),
        (["schedule.kind=mine:Note"], "mine:Note is not a subclass of Schedule."),
        (["callbacks.a.path=x"], "callbacks.a.kind: say which class"),
        (["callbacks.a.kind=mine:Noise"], "mine:Noise is not a lightning.Callback."),
        (["callbacks.a.kind=mine:Note", "callbacks.a.pth=x"], "Did you mean 'callbacks.a.path'?"),
        (["callbacks.a.kind=mine:Note"], "callbacks.a: Note cannot be made: "),
        (["callbacks=3"], "callbacks is a section"),
        (["callbacks={a: {kind: 3}}"], "callbacks.a.kind: say which class"),
        (["callbacks.early-stop.kind=mine:Note"], "'early-stop' is not a name of letters"),
        (["callbacks.class.kind=mine:Note"], "'class' is not a name of letters"),
        (
            ["callbacks.s.kind=lightning.pytorch.callbacks:Timer", "callbacks.s.duration=x"],
            "callbacks.s: Timer cannot be made",
        ),
        (["optimizer.betas=[0.5]"], "optimizer: adam "),
        (["optimizer.kind=torch.optim:LBFGS"], "optimizer: torch.optim:LBFGS "),
        (["optimizer.kind=torch.optim:SparseAdam"], "optimizer: torch.optim:SparseAdam "),
    ],
)
def test_a_wrong_part_is_one_line(acn, mine, words, said):
    status, _, err = acn("fit", "digits", *words)
    assert status == 2
    (line,) = err.splitlines()
    assert said in line
    assert not Path("runs").exists()


def test_old_names_of_keys_are_taken_with_a_line(acn):
    status, out, err = acn("show", "digits", "model.learning_rate=0.5", "model.schedule=constant")
    assert status == 0
    assert "learning_rate: 0.5" in out
    assert err.splitlines() == [
        "acn: model.learning_rate is now optimizer.learning_rate; the old name still works.",
        "acn: model.schedule is now schedule.kind; the old name still works.",
    ]
    Path("old.yaml").write_text("model: {learning_rate: 0.25, code_size: 8}")
    status, out, err = acn("show", "old.yaml")
    assert "learning_rate: 0.25" in out
    assert err.count("the old name still works") == 1


def test_options_of_other_sources_at_their_defaults_say_nothing():
    """As configs have them that were written when all sources had the same."""
    old = {"source": "npz", "root": "x.npz", "image_size": None, "channels": None,
           "attribute": None, "download": True}  # fmt: skip
    config = complete({"experiment": "x", "data": old})
    assert config["data"]["root"] == "x.npz"
    assert "channels" not in config["data"]
    with pytest.raises(UsageError, match=r"data\.channels"):
        complete({"experiment": "x", "data": old | {"channels": 3}})


def test_another_source_keeps_what_it_has_in_common():
    config = compose("folder", ["data.source=npz", "data.root=a.npz"])
    assert "image_size" not in config["data"]
    config = compose("folder", ["data.source=celeba", "data.root=a"])
    assert config["data"]["image_size"] == "auto"
    config = compose("folder", ["data.root=a", "optimizer.kind=adamw"])
    assert config["optimizer"] == {"kind": "adamw", "learning_rate": 0.002}


def test_optimisers_are_pytorchs_with_their_options():
    weights = [torch.nn.Parameter(torch.ones(3))]
    made = OptimizerFactory(kind="adamw", learning_rate=0.1, weight_decay=0.5).make(weights)
    assert type(made) is torch.optim.AdamW
    assert made.defaults["lr"] == 0.1
    assert made.defaults["weight_decay"] == 0.5
    with pytest.raises(UsageError, match=r"optimizer\.learning_rate: 0"):
        OptimizerFactory(learning_rate=0.0)


COUNTING = """
import numpy as np
import torch
from lightning import Callback


class Counting(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            group["taken"] = group.get("taken", 0) - 1
            for one in group["params"]:
                self.state[one]["estimate"] = -float("inf")
        return super().step(closure)

    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr)
        self.param_groups[0]["taken"] = 0


class Keep(Callback):
    best = float("inf")

    def on_fit_start(self, trainer, pl_module):
        self.kept = getattr(self, "kept", [])

    def on_train_epoch_end(self, trainer, pl_module):
        self.best = min(self.best, trainer.callback_metrics["train/total"])
        self.kept.append(np.float64(self.best))

    def state_dict(self):
        return {"best": self.best, "kept": self.kept}

    def load_state_dict(self, state):
        self.best, self.kept = state["best"], state["kept"]
"""


def test_parts_of_ones_own_may_keep_what_they_like(acn, monkeypatch):
    """An optimiser's groups and states need not look like those of PyTorch's. A callback's state
    may be there only once it trains, change its type, and have numbers of NumPy's."""
    Path("counting.py").write_text(COUNTING)
    monkeypatch.delitem(sys.modules, "counting", raising=False)
    words = ["fit", "digits", *QUICK, *CHEAP, "data.subset=200", "run=mine", "resume=auto",
             "optimizer.kind=counting:Counting", "optimizer.learning_rate=1e-4",
             "callbacks.keep.kind=counting:Keep"]  # fmt: skip
    assert acn(*words, "trainer.max_epochs=1")[0] == 0
    status, _, err = acn(*words, "trainer.max_epochs=2")
    assert status == 0, err
    content = torch.load("runs/digits/mine/checkpoints/last.ckpt", weights_only=True)
    (group,) = content["optimizer_states"][0]["param_groups"]
    assert group["taken"] == -content["global_step"] < -3
    assert [type(one) for one in content["callbacks"]["Keep"]["kept"]] == [float, float]


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_a_fused_step_is_the_step_and_is_not_taken_against_an_option(kind):
    stepped = []
    for fused in (False, True):
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(3, 5)), torch.nn.Parameter(torch.randn(4))]
        made = OptimizerFactory(kind=kind).make(weights, fused=fused)
        assert made.param_groups[0]["fused"] is (True if fused else None)
        for _ in range(3):
            for weight in weights:
                weight.grad = weight.detach().cos()
            made.step()
        stepped.append(torch.cat([weight.detach().flatten() for weight in weights]))
    torch.testing.assert_close(*stepped)
    made = OptimizerFactory(kind=kind, foreach=True).make(weights, fused=True)
    assert made.param_groups[0]["fused"] is None
    away = [torch.nn.Parameter(torch.ones(3, device="meta"))]
    assert OptimizerFactory(kind=kind).make(away, fused=True).param_groups[0]["fused"] is None
    other = OptimizerFactory(kind="torch.optim:NAdam").make(weights, fused=True)
    assert type(other) is torch.optim.NAdam


def test_a_schedule_warms_up_and_decays():
    schedule = CosineSchedule(warmup_steps=4)
    rates = [schedule(step, 12.0) for step in range(13)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1
    assert rates[8] == pytest.approx(0.5)
    assert rates[12] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("section", ["schedule: null", "optimizer: x", "schedule: [1]"])
def test_old_names_beside_a_section_that_is_none(acn, section):
    Path("old.yaml").write_text(f"model: {{learning_rate: 0.1, schedule: cosine}}\n{section}")
    status, _, err = acn("show", "old.yaml")
    assert status == (0 if "null" in section else 2)
    assert "Traceback" not in err


def test_in_python_a_source_is_an_object():
    class Few(Source):
        def read(self) -> Splits:
            part = Split(torch.zeros(30, 1, 4, 4, dtype=torch.uint8), torch.zeros(30).long())
            return Splits(part, part, ("a",))

    data = ImageData(source=Few(), validation=0)
    data.setup()
    assert data.image_shape == (1, 4, 4)
    assert data.source == "Few"
    with pytest.raises(UsageError, match=r"data\.batchsize: set it where the source is made"):
        ImageData(source=Few(), batchsize=3)


def test_callbacks_of_a_config_are_made_in_order(mine):
    words = ["callbacks.b.kind=mine:Note", "callbacks.b.path=x", "callbacks.a.kind=mine:Note",
             "callbacks.a.path=y"]  # fmt: skip
    config = compose("digits", words)
    assert [one.path for one in make_callbacks(config)] == ["x", "y"]
    _, module = build(compose("digits", ["model.code_size=3", "optimizer.kind=sgd"]))
    assert module.optimizer.cls is torch.optim.SGD


ORDINARY = """
import enum
from collections.abc import Sequence

import torch
from torch import nn

from acn_lightning.data import Source
from acn_lightning.networks.encoders import Encoder


class Ordinary(Encoder):
    def __init__(self, image_shape, code_size, *, sizes: Sequence[int] = (64, 32),
                 names: dict = {"a": [1]}, activation=nn.ReLU, last: nn.Module | None = None,
                 dtype: torch.dtype = torch.float32, some: list[nn.Module] = []):
        super().__init__()
        self.given = sizes, names, activation, last, dtype, some


class Rooted(Source):
    def __init__(self, *, root: str, sides: int):
        self.root = root
"""


@pytest.fixture
def ordinary(monkeypatch):
    """A module in the current folder whose constructors are as Python has them."""
    Path("ordinary.py").write_text(ORDINARY)
    monkeypatch.delitem(sys.modules, "ordinary", raising=False)


def test_defaults_that_yaml_cannot_hold_are_left_to_python(ordinary):
    kind = "model.encoder.kind=ordinary:Ordinary"
    config = compose("digits", [kind])["model"]["encoder"]
    plain = {"sizes": [64, 32], "names": {"a": [1]}, "last": None, "some": []}
    assert config == {"kind": "ordinary:Ordinary", **plain}
    config = compose("digits", [kind, "model.encoder.sizes=[5]", "model.encoder.names.b=2"])
    assert config["model"]["encoder"]["names"] == {"a": [1], "b": 2}
    _, module = build(config)
    assert module.encoder.given == (
        [5], {"a": [1], "b": 2}, torch.nn.ReLU, None, torch.float32, []
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"encoder\.activation: there is no such key"):
        compose("digits", [kind, "model.encoder.activation=x"])


def test_an_option_without_a_default_needs_a_value(ordinary):
    kind = "data.source=ordinary:Rooted"
    with pytest.raises(UsageError, match=r"^data\.sides: it needs a value\.$"):
        compose("digits", [kind, "data.root=x"])
    assert compose("digits", [kind, "data.root=x", "data.sides=3"])["data"]["sides"] == 3


FUTURE = """
from __future__ import annotations

from typing import TYPE_CHECKING

from lightning import Callback

if TYPE_CHECKING:
    from nowhere import Nothing


class Printing(Callback):
    def __init__(self, digits: int = 2, title: str | None = None) -> None:
        pass


class Unknown(Callback):
    def __init__(self, digits: int = 2, what: Nothing | None = None) -> None:
        pass
"""


def test_arguments_of_callbacks_are_checked(monkeypatch):
    Path("future.py").write_text(FUTURE)
    monkeypatch.delitem(sys.modules, "future", raising=False)
    one = "callbacks.a.kind=future:Printing"
    with pytest.raises(UsageError, match=r"^callbacks\.a\.digits: 'abc' is not a whole number\.$"):
        compose("digits", [one, "callbacks.a.digits=abc"])
    given = compose("digits", [one, "callbacks.a.digits=3", "callbacks.a.title=12"])["callbacks"]
    assert given["a"] == {"kind": "future:Printing", "digits": 3, "title": "12"}
    own = ["callbacks.a.kind=future:Unknown", "callbacks.a.digits=abc"]  # nothing is known of it
    assert compose("digits", own)["callbacks"]["a"]["digits"] == "abc"
