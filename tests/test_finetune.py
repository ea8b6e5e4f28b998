"""Weights from elsewhere: what is taken, what learns and when, and codes that mean something."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from safetensors.torch import save_file
from torch import nn

from acn_lightning import callbacks as cb
from acn_lightning.config.compose import compose
from acn_lightning.experiment.build import build
from acn_lightning.networks.weights import load_matching, read_weights
from acn_lightning.optimization import CosineSchedule
from acn_lightning.utils.errors import UsageError
from tests.conftest import BESIDE, QUICK, only_run
from tests.test_experiment import assert_same_end, rows, stopped_at

FAST = ("pictures.every_n_epochs=0", "evaluation.linear=none", "data.subset=300")
NAME = ("digits", *BESIDE, *FAST, "data.subset=200")


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """The best checkpoint of a run on digits."""
    from acn_lightning.cli import main

    folder = tmp_path_factory.mktemp("parent")
    words = [*QUICK, *FAST, "run=old", "trainer.max_epochs=2"]
    assert main(["fit", "digits", *words, f"trainer.default_root_dir={folder}"]) == 0
    return folder / "digits" / "old" / "checkpoints" / "best.ckpt"


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


# ---------------------------------------------------------------- what is taken


def test_tensors_of_one_name_and_shape_are_taken():
    torch.manual_seed(0)
    network = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 4)})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    given = {
        "a.weight": torch.ones(3, 2),
        "b.weight": torch.ones(4, 2),
        "b.bias": torch.ones(4),
        "c.bias": torch.ones(1),
    }
    taken = load_matching(network, given)
    assert taken.names == ["a.weight", "b.bias"]
    assert taken.anew == {
        "a.bias": "not in the file",
        "b.weight": "4 x 2 in the file, 4 x 3 here",
    }
    assert taken.left == ["c.bias"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, given[name] if name in taken.names else before[name])


def test_what_does_not_fit_is_named_and_the_rest_taken(acn, parent):
    """Colour images, under another likelihood, and another code size."""
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    np.savez("colour.npz", images=images, labels=np.arange(80) % 3)
    words = [*FAST, "data.source=npz", "data.root=colour.npz", "trainer.max_epochs=1",
             "model.likelihood.kind=logistic_mixture", "model.code_size=6",
             "data.subset=null"]  # fmt: skip
    status, out, err = acn("finetune", parent, "digits", *words)
    assert status == 0, err
    assert f"weights of {parent}" in out
    keeps = "keeps its initial values"
    first = "8 x 1 x 3 x 3 in the file, 8 x 3 x 3 x 3 here"
    assert f"encoder.body.0.weight: {keeps} ({first})" in out
    assert f"encoder.mean.weight: {keeps} (4 x" in out
    assert re.search(rf"decoder\.output\.weight: {keeps} \(256 x 8 x 3 x 3 in .*, \d+ x 8", out)
    assert "prior: 3 of 8 tensors loaded" in out
    found = re.search(r"encoder: (\d+) of (\d+) tensors loaded", out)
    assert 0 < int(found[1]) < int(found[2])


def test_networks_are_the_checkpoints_and_all_else_the_experiments(acn, parent):
    assert acn("finetune", parent, *NAME, "trainer.max_epochs=1", "run=new")[0] == 0
    config = compose("runs/digits/new/config.yaml")
    old, given = compose(str(parent.parents[1] / "config.yaml")), compose("digits")
    for name in ("code_size", "encoder", "prior", "decoder"):
        assert config["model"][name] == old["model"][name]
    assert config["model"]["likelihood"] == given["model"]["likelihood"]
    for name in ("schedule", "optimizer"):
        assert config[name] == given[name]
    assert config["data"] == given["data"] | {"subset": 200}
    results = json.loads(Path("runs/digits/new/results.json").read_text())
    assert results["parent"] == {"checkpoint": str(parent), "run": "digits-old"}
    # the config that was written begins with the same weights again
    status, out, err = acn("fit", "runs/digits/new/config.yaml", "run=again")
    assert status == 0, err
    assert "encoder: 14 of 14 tensors loaded" in out
    assert rows(Path("runs/digits/new")) == rows(Path("runs/digits/again"))


def test_an_automatic_size_is_the_one_that_the_networks_know(acn, parent):
    from acn_lightning.experiment.finetune import finetune_config

    config = finetune_config(str(parent), "folder", ["data.root=photos"])
    assert config["data"]["image_size"] == [8, 8]
    config = finetune_config(str(parent), "folder", ["data.root=photos", "data.image_size=12"])
    assert config["data"]["image_size"] == 12


def test_test_images_that_the_weights_know_are_counted(acn, trained, checkpoint):
    shutil.copytree(trained / "photos", "photos")
    words = [*BESIDE, "data.root=photos", "data.image_size=12", "trainer.max_epochs=0"]
    status, out, err = acn("finetune", checkpoint, "folder", *words, "run=same")
    assert status == 0, err
    assert "test images have names" not in out  # the same tenth is held out
    shutil.copy("photos/digit 0/00.png", "photos/digit 0/more.png")
    status, out, err = acn("finetune", checkpoint, "folder", *words, "run=grown")
    assert status == 0, err
    (known,) = re.findall(r"(\d+) of 15 test images have names of images that these weights", out)
    assert int(known) > 10


def test_wandb_knows_the_parent(acn, parent, monkeypatch):
    from lightning.pytorch.loggers import WandbLogger

    seen = {}
    original = WandbLogger.__init__

    def init(self, *arguments, **options):
        seen.update(options["config"])
        original(self, *arguments, **options)

    monkeypatch.setattr(WandbLogger, "__init__", init)
    words = [*NAME, "trainer.max_epochs=1", "logger=wandb"]
    assert acn("finetune", parent, *words)[0] == 0
    assert seen["parent"] == {"checkpoint": str(parent), "run": "digits-old"}


# ---------------------------------------------------------------- codes before the first step


def module_from(parent, **options):
    config = compose("digits", [*QUICK, "data.subset=200"])
    data, module = build(config)
    taken = load_matching(module, weights(parent))
    module.pretrained = [name for name in taken.names if name in dict(module.named_parameters())]
    return data, module, cb.Finetune(checkpoint=str(parent), **options)


class Watch(Callback):
    """What an epoch began with."""

    def __init__(self):
        self.rates, self.weights, self.codes, self.modes = [], [], None, []

    def on_train_epoch_start(self, trainer, pl_module):
        if self.codes is None:
            self.codes, self.table = pl_module.bank.codes.clone(), pl_module.bank.neighbours.clone()
        state = pl_module.state_dict()
        self.weights.append({name: value.clone() for name, value in state.items()})
        self.modes.append(pl_module.encoder.training)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0:
            groups = trainer.optimizers[0].param_groups
            self.rates.append({group.get("name"): group["lr"] for group in groups})


def train(data, module, *callbacks, epochs=1):
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[cb.RefreshNeighbours(), *callbacks],
    )  # fmt: skip
    trainer.fit(module, data)
    return trainer


def test_the_first_epoch_draws_from_codes_of_the_taken_encoder(parent):
    data, module, finetune = module_from(parent)
    images = data.fixed_set.images / 255
    expected = module(images).mean.detach()
    watch = Watch()
    train(data, module, finetune, watch)
    torch.testing.assert_close(watch.codes, expected)
    distance = torch.cdist(expected[data.rows], expected[data.rows]).fill_diagonal_(torch.inf)
    nearest = data.rows[distance.topk(5, largest=False).indices]
    same = watch.table[data.rows].sort().values == nearest.sort().values
    assert same.float().mean() > 0.99


# ---------------------------------------------------------------- what learns


def test_frozen_parts_stay_and_the_others_learn(parent):
    data, module, finetune = module_from(parent, freeze=["encoder", "decoder.output"])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    train(data, module, finetune, Watch())
    for name, value in module.state_dict().items():
        frozen = name.startswith(("encoder.", "decoder.output."))
        assert torch.equal(value, before[name]) == frozen, name


def test_parts_thaw_at_their_epoch_and_come_to_their_rate(parent):
    options = {"freeze": ["encoder"], "unfreeze_epoch": 2, "rate": 0.5}
    data, module, finetune = module_from(parent, **options)
    del module.pretrained[-3:]  # as if these had begun anew
    watch = Watch()
    train(data, module, finetune, watch, epochs=7)
    rate = module.optimizer.learning_rate
    expected = [0, 0, 0.1, 0.2, 0.4, 0.8, 1]
    assert [one["frozen"] for one in watch.rates] == pytest.approx(
        [0.5 * rate * part for part in expected]
    )
    assert {one["pretrained"] for one in watch.rates} == {0.5 * rate}
    assert {one[None] for one in watch.rates} == {rate}
    names = [name for name in module.state_dict() if name.startswith("encoder.")]
    still = [all(torch.equal(one[name], watch.weights[0][name]) for name in names)
             for one in watch.weights]  # fmt: skip
    assert still == [True, True, True, False, False, False, False]
    assert watch.modes == [False, False, True, True, True, True, True]


def test_the_schedule_and_a_thaw_together(parent):
    """Each group's learning rate is its share of a cosine."""
    data, module, finetune = module_from(parent, freeze=["encoder"], unfreeze_epoch=1, rate=0.5)
    module.schedule = CosineSchedule()
    watch = Watch()
    trainer = train(data, module, finetune, watch, epochs=3)
    steps, rate = trainer.num_training_batches, module.optimizer.learning_rate
    cosine = [(1 + np.cos(np.pi * epoch / 3)) / 2 * rate for epoch in range(3)]
    assert steps * 3 == trainer.global_step
    assert [one["pretrained"] for one in watch.rates] == pytest.approx([0.5 * x for x in cosine])
    parts = [0, 0.05, 0.1]
    assert [one["frozen"] for one in watch.rates] == pytest.approx(
        [part * x for part, x in zip(parts, cosine, strict=True)]
    )


@pytest.mark.parametrize(
    ("epoch", "frozen", "every"),
    # A shape has running statistics, which must not move in an epoch that is resumed midway.
    [(1, "encoder", 0), (2, "encoder", 0), (1, "encoder,shape", 1)],
)
def test_resumed_equals_undisturbed_on_both_sides_of_a_thaw(acn, parent, epoch, frozen, every):
    words = [f"freeze=[{frozen}]", "unfreeze_epoch=2", "rate=0.5", "trainer.max_epochs=4",
             f"checkpoints.every_n_steps={every}"]  # fmt: skip
    whole = ["finetune", parent, *NAME, *words]
    assert acn(*whole, "trainer.default_root_dir=whole")[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", stopped_at(epoch=epoch, step=1))
        assert acn(*whole, "trainer.default_root_dir=parts", "run=one", "resume=auto")[0] == 130
    status, out, err = acn(*whole, "trainer.default_root_dir=parts", "run=one", "resume=auto")
    assert status == 0, err
    assert "tensors loaded" not in out  # its weights are its own by now
    assert_same_end("whole", "parts")
    results = json.loads((only_run(Path("parts")) / "results.json").read_text())
    assert results["parent"]["run"] == "digits-old"
    last = only_run(Path("parts")) / "checkpoints/last.ckpt"  # from which it may resume once more
    assert torch.load(last, weights_only=True)["hyper_parameters"]["parent"] == "digits-old"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say which checkpoint: acn finetune CHECKPOINT NAME [key=value ...]."),
        (("none.ckpt", "digits"), "There is no checkpoint none.ckpt."),
        (("PARENT",), "say which experiment, such as digits: acn finetune CHECKPOINT NAME"),
        (("PARENT", "digits", "freeze=[encode]"), "finetune.freeze: there is no part encode."),
        (("PARENT", "digits", "freeze=[encoder,prior,decoder]"), "no part would be left to train"),
        (("PARENT", "digits", "unfreeze_epoch=2"), "unfreeze_epoch: nothing is frozen"),
        (("PARENT", "digits", "freeze=[encoder]", "unfreeze_epoch=0"), "0 is not from 1 to"),
        (("PARENT", "digits", "rate=0"), "finetune.rate: 0.0 is not above 0 and"),
        (("PARENT", "digits", "checkpoint=x"), "give the checkpoint as the first argument"),
        (("PARENT", "digits", "resume=old.ckpt"), "resume=old.ckpt: acn finetune starts from its"),
        (("PARENT", "digits", "data.subset=5000"), "data.subset: 5000 is not between 2 and 1438"),
        (("PARENT", "nothing"), "nothing: unknown experiment."),
        (("PARENT", "digits", "model.encoder.kind=none", "model.prior.kind=standard_normal",
          "model.decoder.kind=pixelcnn"), "none of its weights fits these networks"),
    ],
)  # fmt: skip
def test_a_wrong_command_says_what_is_wrong(acn, parent, words, said):
    words = [str(parent) if word == "PARENT" else word for word in words]
    status, _, err = acn("finetune", *words)
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("acn:")]
    assert said in line
    assert not Path("runs").exists()


def test_without_weights_from_elsewhere_there_is_nothing_to_freeze(acn):
    status, _, err = acn("fit", "digits", *QUICK, "finetune.freeze=[encoder]")
    assert status == 2
    assert "acn: finetune: these keys need weights from elsewhere" in err
    assert not Path("runs").exists()


# ---------------------------------------------------------------- encoders from elsewhere

ROOT = Path(__file__).parents[1]
OWN = ("model.encoder.kind=import", "model.encoder.path=resnet:SmallResNet")
NAMED = (OWN[1], 'model.encoder.arguments={"width": 8}')
MEASURED = [word for word in (*QUICK, *FAST) if word.startswith("evaluation.")]


@pytest.fixture
def resnet(monkeypatch):
    """The docs' network, in the current folder; its module, as Python knows it."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/finetuning.md").read_text(), re.S)
    Path("resnet.py").write_text(block)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    names = {}
    exec(block, names)
    yield names["SmallResNet"]
    import sys

    sys.modules.pop("resnet", None)


def without_encoder(words):
    return [word for word in words if not word.startswith("model.encoder")]


def test_an_encoder_of_ones_own_trains_and_is_imported_only_when_named(acn, resnet):
    (line,) = re.findall(r"^acn (fit digits model\.encoder.*)$",
                         (ROOT / "docs/finetuning.md").read_text(), re.M)  # fmt: skip
    words = [*without_encoder(QUICK), *FAST, "trainer.max_epochs=1"]
    status, _, err = acn(*line.split(), *words)
    assert status == 0, err
    checkpoint = only_run() / "checkpoints" / "best.ckpt"
    refused = [("test", checkpoint), ("sample", checkpoint), ("fit", f"resume={checkpoint}"),
               ("finetune", checkpoint, "digits")]  # fmt: skip
    Path("resnet.py").unlink()
    import sys

    sys.modules.pop("resnet")
    for command in refused:
        status, _, err = acn(*command)
        assert status == 2
        assert "model.encoder.path: the checkpoint would import and run" in err
        words = " ".join(f"{word!r}" if "{" in word else word for word in NAMED)
        assert f"add {words}." in err
    shutil.rmtree(checkpoint.parents[1].parent / "other", ignore_errors=True)
    assert acn("test", checkpoint, NAMED[0])[0] == 2  # without its arguments
    status, _, err = acn("test", checkpoint, *NAMED)
    assert status == 2  # named, but not there
    assert "acn: model.encoder.path: resnet:SmallResNet cannot be imported: No module" in err


def test_a_run_ends_with_its_results_whatever_its_encoder_keeps(acn, resnet):
    """Other commands refuse what a stranger's checkpoint could crash them with."""
    text = Path("resnet.py").read_text()
    made = "super().__init__()\n"
    assert made in text
    mask = made + '        self.register_buffer("mask", torch.full((2, 2), -torch.inf))\n'
    Path("resnet.py").write_text("import torch\n" + text.replace(made, mask, 1))
    words = [*without_encoder(QUICK), *FAST, *OWN, "trainer.max_epochs=1"]
    status, _, err = acn("fit", "digits", *words)
    assert status == 0, err
    run = only_run()
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert any(name.endswith("mask") for name in content["state_dict"])
    assert json.loads((run / "results.json").read_text())["checkpoint"]


def test_a_checkpoint_of_an_encoder_of_ones_own_is_tested(acn, resnet):
    words = [*without_encoder(QUICK), *FAST, "trainer.max_epochs=1", *OWN]
    assert acn("fit", "digits", *words)[0] == 0
    folder = only_run()
    status, _, err = acn("test", folder / "checkpoints" / "best.ckpt", OWN[1],
                         "trainer.default_root_dir=tested", *MEASURED)  # fmt: skip
    assert status == 0, err
    one, other = (json.loads((run / "results.json").read_text())["nats_per_image"]
                  for run in (folder, only_run(Path("tested"))))  # fmt: skip
    assert one == other


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_its_weights_come_from_a_file_and_can_be_frozen(acn, resnet, suffix):
    torch.manual_seed(1)
    given = resnet(width=8).state_dict() | {"fc.weight": torch.zeros(2, 2)}
    path = f"given.{suffix}"
    if suffix == "pt":
        torch.save({"state_dict": given}, path)
    else:
        save_file(given, path)
    words = [*without_encoder(QUICK), *FAST, *OWN, "trainer.max_epochs=1",
             "model.encoder.arguments.width=8", f"model.encoder.weights={path}",
             "finetune.freeze=[encoder.body]"]  # fmt: skip
    with pytest.warns(UserWarning, match=r"fc: ignored 1 tensors that the network does not have"):
        status, _, err = acn("fit", "digits", *words)
    assert status == 0, err
    found = weights(only_run() / "checkpoints" / "last.ckpt")
    for name, value in given.items():
        if not name.startswith("fc."):  # running means included
            assert torch.equal(found[f"encoder.body.{name}"], value), name


def test_wrong_encoders_are_refused_in_a_line(acn, resnet):
    class Pickled:
        def __reduce__(self):
            return Path.touch, (Path("run"),)

    torch.save({"state_dict": Pickled()}, "evil.pt")
    torch.save({"other": torch.zeros(1)}, "other.pt")
    Path("broken.safetensors").write_bytes(b"no")
    Path("broken.py").write_text("def x(:\n")
    path = "model.encoder.path="
    for words, said in [
        ([], "'' is not of the form package.module:Name"),
        ([f"{path}resnet"], "'resnet' is not of the form package.module:Name"),
        ([f"{path}nowhere:Net"], "nowhere:Net cannot be imported: No module named 'nowhere'"),
        ([f"{path}broken:Net"], "broken:Net cannot be imported: invalid syntax"),
        ([f"{path}resnet:Big"], "resnet:Big cannot be imported: module 'resnet' has no attribute"),
        ([f"{path}pathlib:Path"], "does not return an nn.Module"),
        ([OWN[1], "model.encoder.arguments.depth=3"], "unexpected keyword argument 'depth'"),
        ([OWN[1], "model.encoder.arguments.channels=3"], "returns no features (B, ...) for"),
        ([OWN[1], "model.encoder.weights=none.pt"], "There is no weights file none.pt."),
        ([OWN[1], "model.encoder.weights=evil.pt"], "which could run code when loaded: refused"),
        ([OWN[1], "model.encoder.weights=other.pt"], "no tensor of other.pt fits resnet:Small"),
        ([OWN[1], "model.encoder.weights=broken.safetensors"], "broken.safetensors is truncated"),
    ]:
        status, _, err = acn("fit", "digits", OWN[0], *words)
        assert status == 2, said
        assert said in err
    assert not Path("run").exists()
    assert not Path("runs").exists()


def test_a_bare_state_dict_is_read():
    torch.save({"a": torch.ones(2), "note": "x"}, "bare.pt")
    assert list(read_weights("bare.pt")) == ["a"]
    torch.save([1], "list.pt")
    with pytest.raises(UsageError, match="holds no named tensors"):
        read_weights("list.pt")
