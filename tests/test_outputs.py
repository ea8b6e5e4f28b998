"""Where commands find a model, and where they write about it."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from lightning import Trainer

import acn_lightning
from acn_lightning import ACN
from acn_lightning.checkpoint import find_model
from acn_lightning.config.compose import compose
from acn_lightning.experiment.folder import output_folder, run_folder
from acn_lightning.utils.errors import UsageError
from tests.conftest import BESIDE, CHEAP, QUICK, only_run
from tests.test_experiment import assert_same_end, stopped_at


@pytest.fixture
def run(trained):
    """A copy of the run, in the folder of all runs."""
    shutil.copytree(trained / "runs", "runs")
    return Path("runs/folder/mine")


def test_a_runs_folder_stands_for_its_best_checkpoint_or_else_its_last(run):
    assert find_model(run) == run / "checkpoints/best.ckpt"
    assert acn_lightning.load(str(run)).source == run / "checkpoints/best.ckpt"
    (run / "checkpoints/best.ckpt").unlink()
    assert find_model(run) == run / "checkpoints/last.ckpt"
    for folder in ("runs", run / "checkpoints"):
        with pytest.raises(UsageError, match=r"neither a run's folder .* nor a pack, nor a"):
            find_model(folder)
    with pytest.raises(UsageError, match=r"use acn_lightning\.load\(PATH\)"):
        ACN.load_from_checkpoint(run / "checkpoints/last.ckpt")


def test_outputs_lie_under_the_run_that_they_are_of(acn, run, trained):
    root = f"data.root={trained / 'photos'}"
    image = trained / "photos/digit 0/00.png"
    for words in [
        ("test", run, root, *BESIDE, "trainer.accelerator=cpu"),
        ("sample", run, root, "kind=unconditional", "rows=16"),  # there are 15 test images
        ("neighbours", run, image, root, "encode=false"),
        ("export", run, root, "projection=pca", "thumbnails=0"),
        ("explore", run / "checkpoints/last.ckpt", root, "projection=pca"),
    ]:
        status, out, err = acn(*words)
        assert status == 0, err
        name = rf"{run}/outputs/{words[0]}-\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d-[0-9a-f]{{4}}/\w"
        assert re.search(f"^{name}", out, re.M), out
    assert only_run() == run  # nothing else looks like a run
    more = [f"data.root={trained / 'photos'}", "data.image_size=12", "trainer.max_epochs=5"]
    words = [*QUICK, *more, "run=mine", "resume=auto", "pictures.every_n_epochs=0",
             "trainer.accelerator=cpu"]  # fmt: skip
    status, _, err = acn("fit", "folder", *words)  # as if the experiment had changed meanwhile
    assert status == 2
    own = f"acn fit {run}/config.yaml run=mine resume=auto"
    assert "trained with conv, but the config says pixelcnn. Leave it out, resume by what" in err
    assert f"what the run has kept ({own}), or train a new model." in err
    status, _, err = acn("fit", "folder", *words, "model.decoder.kind=conv")
    assert status == 0, err
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 4


def test_what_is_of_no_run_lies_beside_them(run):
    config, best = compose("folder"), run / "checkpoints/best.ckpt"

    def place(source, *words):
        return output_folder("test", source, compose("folder", words)).parent

    assert place(best) == run / "outputs"
    assert place(best.absolute()) == run.absolute() / "outputs"
    assert place(best, "trainer.default_root_dir=x") == Path("x/outputs")
    assert place(None) == place(Path("best.ckpt")) == place(Path("pack")) == Path("runs/outputs")
    (run / "config.yaml").unlink()
    assert place(best) == Path("runs/outputs")
    named = output_folder("test", None, config | {"run": "mine"})
    assert named == Path("runs/outputs/mine")
    named.mkdir(parents=True)
    with pytest.raises(UsageError, match="runs/outputs/mine already exists"):
        output_folder("test", None, config | {"run": "mine"})
    with pytest.raises(UsageError, match=r"'\.\./x' is not a valid folder name"):
        output_folder("test", None, config | {"run": "../x"})
    with pytest.raises(UsageError, match="experiment: outputs is the folder"):
        run_folder(config | {"experiment": "outputs"})


SHORT = ("data.subset=200", "trainer.max_epochs=2", "pictures.every_n_epochs=0")
FIT = ("digits", *QUICK, *CHEAP, *SHORT)


@pytest.mark.parametrize("words", [("fit",), ("fit", "run=my run"), ("finetune",)])
def test_the_hint_after_ctrl_c_goes_on_with_the_same_run(acn, run, words):
    command, *named = words
    shutil.move("runs", "parent")
    begin = [command, *(["parent/folder/mine"] if command == "finetune" else []), *FIT, *named]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", stopped_at(epoch=1, step=1))
        status, _, err = acn(*begin)
    assert status == 130
    stopped = only_run()
    (hint,) = re.findall(r"Resume with: acn (.*)$", err, re.M)
    status, out, err = acn(*shlex.split(hint))
    assert status == 0, err
    assert only_run() == stopped  # and no other
    assert f"{stopped}/results.json" in out
    assert acn(*begin, "trainer.default_root_dir=whole")[0] == 0
    assert_same_end("runs", "whole")
