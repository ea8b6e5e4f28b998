"""Images and labels that are given in Python."""

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, TensorDataset

import acn_lightning
from acn_lightning import training
from acn_lightning.callbacks import RefreshNeighbours
from acn_lightning.config.compose import compose
from acn_lightning.data import ImageData
from acn_lightning.data.labels import named_classes, number_labels, plain_labels
from acn_lightning.data.sources.arrays import ArraysSource, as_given
from acn_lightning.experiment.build import build_for
from acn_lightning.runs import sections
from acn_lightning.runs.reading import read_run
from acn_lightning.utils.errors import InterruptionError, UsageError
from tests.conftest import QUICK
from tests.nursery import ROOT, python

GREY = (np.arange(40 * 6 * 5) % 251).astype(np.uint8).reshape(40, 6, 5)
COLOUR = (np.arange(40 * 6 * 5 * 3) % 251).astype(np.uint8).reshape(40, 6, 5, 3)
LABELS = np.arange(40) % 4


def read(images, labels=None, test=None, classes=None, **options):
    return ArraysSource(*as_given(images, labels, test), classes, **options).read()


def everything(splits):
    """All images, in the order in which they were given: the split is that of `held_out_rows`."""
    from acn_lightning.data.subsets import held_out_rows

    count = len(splits.train.images) + len(splits.test.images)
    rows = torch.cat(held_out_rows(count, len(splits.test.images)))
    whole = torch.empty(count, *splits.train.images.shape[1:], dtype=torch.uint8)
    labels = torch.empty(count, dtype=torch.long)
    whole[rows] = torch.cat([splits.train.images, splits.test.images])
    labels[rows] = torch.cat([splits.train.labels, splits.test.labels])
    return whole.numpy(), labels.numpy()


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


def first(images):
    """Channels first."""
    return torch.from_numpy(images.reshape(*images.shape[:3], -1)).movedim(3, 1)


def files_of(images, folder):
    folder.mkdir()
    paths = [folder / f"{row:03}.png" for row in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


KINDS = {
    "array": lambda images, _: images,
    "channel last": lambda images, _: images.reshape(*images.shape[:3], -1),
    "tensor": lambda images, _: first(images),
    "floats": lambda images, _: images / 255,
    "float tensor": lambda images, _: torch.from_numpy(images / 255),
    "big endian": lambda images, _: (images / 255).astype(">f4"),
    "reversed": lambda images, _: images[::-1][::-1],
    "list of arrays": lambda images, _: list(images),
    "list of pictures": lambda images, _: list(map(Image.fromarray, images)),
    "list of paths": lambda images, folder: files_of(images, folder),
    "list of names": lambda images, folder: list(map(str, files_of(images, folder))),
    "dataset": lambda images, _: Items(list(map(Image.fromarray, images))),
    "tensor dataset": lambda images, _: TensorDataset(first(images) / 255),
    "dictionaries": lambda images, _: Items([{"image": one} for one in images]),
}  # fmt: skip


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_images_however_they_are_given(kind, images, tmp_path):
    found, labels = everything(read(KINDS[kind](images, tmp_path / "files"), LABELS))
    expected = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    assert (found == expected).all()
    assert (labels == LABELS).all()


def test_arrays_of_the_users_are_not_changed():
    before, labels = GREY.copy(), LABELS.copy()
    read(GREY, LABELS, image_size=None)
    assert (before == GREY).all()
    assert (labels == LABELS).all()


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [
        (None, [-1, -1, -1, -1], ()),
        ([0, 1, 2, 0], [0, 1, 2, 0], ("0", "1", "2")),
        (np.array([7, 3, 3, 7], np.uint8), [1, 0, 0, 1], ("3", "7")),
        (torch.tensor([1, -1, 0, 1]), [1, -1, 0, 1], ("0", "1")),
        (["dog", "cat", None, "dog"], [1, 0, -1, 1], ("cat", "dog")),
        (np.array(["b", "a", "b", "a"]), [1, 0, 1, 0], ("a", "b")),
        (np.array([True, False, True, True]), [1, 0, 1, 1], ("False", "True")),
        ([np.int64(5), torch.tensor(5), 6, 6], [0, 0, 1, 1], ("5", "6")),
    ],
)
def test_labels_of_many_kinds(labels, numbers, classes):
    found, names = number_labels([plain_labels(labels, 4)])
    assert (found[0].tolist(), names) == (numbers, classes)


def test_labels_with_names_of_classes():
    found, names = number_labels([[0, 2, None], ["a"][:0]], ["a", "b", "c"])
    assert ([part.tolist() for part in found], names) == ([[0, 2, -1], []], ("a", "b", "c"))
    assert number_labels([["c", "a"]], ["a", "b", "c"])[0][0].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("labels", "classes", "why"),
    [
        ([0, 1], None, "there are 4 images, but 2 labels"),
        ([0.0, 1.0, 2.0, 3.0], None, "0.0 is neither the number of a class"),
        ([0, 1, 2, -2], None, "-2 is neither"),
        (np.eye(4), None, r"the shape is \(4, 4\)"),
        ([[1], [1, 2], [3], [4]], None, "one class for each image is needed"),
        ("abcd", None, r"the shape is \(\)"),
        ([0, "a", 1, "b"], None, "both numbers and names"),
        ([0, 1, 2, 3], ["a", "b"], "'2' is none of the 2 classes"),
        (["cat", "dog", "dog", "cats"], ["cat", "dog"], "'cats' is none.*Did you mean 'cat'"),
        ([b"a", b"b", b"c", b"d"], None, "b'a' is neither"),
    ],
)
def test_labels_that_are_refused(labels, classes, why):
    with pytest.raises(UsageError, match=why) as error:
        number_labels([plain_labels(labels, 4)], classes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "options", "why"),
    [
        (GREY.astype(np.int64), {}, "images are int64"),
        (GREY / 100, {}, "must lie between 0 and 1"),
        (GREY[0], {}, r"images have shape \(6, 5\)"),
        (np.zeros((9, 6, 5, 4), np.uint8), {}, r"images have shape \(9, 6, 5, 4\)"),
        (np.array(["a", "b"], object), {}, "arrays are object"),
        ([], {}, "there are no images"),
        (7, {}, "images are int"),
        (iter([GREY[0]]), {}, "a data set with a length"),
        ([[1, 2], [3, 4]], {}, "an image of PIL|cannot be read|have shape"),
        ([GREY[0], None], {}, "image 1 is of type NoneType"),
        ([GREY[0], GREY[1][:4]], {}, r"data.image_size: images differ in size.*image 1 is 5 x 4"),
        ([GREY[0] / 20, GREY[1]], {}, "image 0: images of float64 must lie"),
        (Items([(GREY[0], 1, 2)] * 4), {}, "items have 3 parts"),
        (Items([(GREY[0], 0.5)] * 40), {}, "0.5 is neither"),
        (Items([{"image": GREY[0], "labels": 1}] * 40), {}, "the keys image, labels: give image"),
        (["nowhere.png"], {}, "nowhere.png"),
        (GREY[:4], {}, "too few to hold any out"),
        (GREY, {"channels": 2}, "data.channels: 2"),
    ],
)
def test_images_that_are_refused(images, options, why):
    with pytest.raises(UsageError, match=why) as error:
        read(images, **options)
    assert "\n" not in str(error.value)


def test_a_data_set_whose_form_is_told_is_passed_over_once(monkeypatch):
    """As docs/data.md says; one more item is asked for its size."""
    asked, given = [], Items([(image, 0) for image in COLOUR])
    own = Items.__getitem__
    monkeypatch.setattr(Items, "__getitem__", lambda self, row: asked.append(row) or own(self, row))
    read(given, image_size=32, channels=3, bits=8)
    assert len(asked) == len(COLOUR) + 1


def test_sizes_and_channels_can_be_asked_for(tmp_path):
    for kind in ("array", "list of pictures", "list of paths"):
        given = KINDS[kind](COLOUR, tmp_path / kind)
        found = read(given, LABELS, image_size=8, channels=1)
        assert found.train.images.shape == (36, 1, 8, 8)
    mixed = [Image.new("RGB", (9, 9), "red"), Image.new("L", (5, 4))] * 10
    found = read(mixed, image_size=[4, 4])
    assert found.train.images.shape == (18, 3, 4, 4)


@pytest.mark.parametrize("kind", ["array", "list of pictures", "list of paths"])
def test_an_automatic_size_is_that_of_small_training_images(kind, tmp_path):
    small = KINDS[kind](GREY, tmp_path / "small")
    large = KINDS[kind](np.zeros((20, 40, 50), np.uint8), tmp_path / "large")
    both = read(small, test=large, image_size="auto")
    assert both.train.images.shape[1:] == both.test.images.shape[1:] == (1, 6, 5)
    assert read(large, image_size="auto").train.images.shape[1:] == (1, 32, 32)


def deep(brightest):
    """20 images of 16 bits, the brightest pixel of which is this one."""
    values = np.full((20, 6, 5), 500, np.uint16)
    values[:, 0, 0] = brightest
    return values


DEEP = {name: KINDS[name] for name in ("list of pictures", "list of paths", "dataset")}


@pytest.mark.parametrize("brightest", [(3999, 999), (999, 3999)], ids=["train", "test"])
@pytest.mark.parametrize("kind", DEEP)
def test_16_bits_are_scaled_alike_in_both_splits_and_it_is_kept(kind, brightest, tmp_path):
    train, test = (
        KINDS[kind](deep(one), tmp_path / name)
        for name, one in zip(("train", "test"), brightest, strict=True)
    )
    source = ArraysSource(*as_given(train, None, test))
    data = ImageData(source=source, binarisation="none", validation=0)
    data.setup()
    for part in (data.train_set, data.test_set):
        assert set(part.images[:, :, 1:].flatten().tolist()) == {500 * 255 // 4095}
    assert data.state_dict()["bits"] == 12


@pytest.mark.parametrize("kind", KINDS)
def test_grey_test_images_beside_training_images_in_colour(kind, tmp_path):
    grey, colour = (KINDS[kind](one, tmp_path / str(one.ndim)) for one in (GREY, COLOUR))
    for train, test in ((colour, grey), (grey, colour)):
        found = read(train, test=test)
        assert found.train.images.shape == found.test.images.shape == (40, 3, 6, 5)
        both = found.train.images, found.test.images
        assert (both[test is grey] == torch.from_numpy(GREY)[:, None]).all()


def test_a_model_scales_16_bits_as_its_training_images_were():
    values = deep(3999)
    acn = acn_lightning.fit(list(map(Image.fromarray, values)), **settings(run="mine"))
    assert acn.form.bits == 12
    Image.fromarray(values[0]).save("dark.png")
    stored = acn.encode((values[:1].astype(int) * 255 // 4095).astype(np.uint8))
    assert np.allclose(acn.encode("dark.png"), stored)


def test_a_test_split_of_ones_own():
    found = read(GREY, LABELS, test=(GREY[:8], LABELS[:8] + 1))
    assert (len(found.train.images), len(found.test.images)) == (40, 8)
    assert found.classes == ("0", "1", "2", "3", "4")
    assert found.test.labels.tolist() == [1, 2, 3, 4] * 2
    assert read(GREY, test=GREY[:8]).test.labels.tolist() == [-1] * 8
    with pytest.raises(UsageError, match="only one of the training and test images is labelled"):
        read(GREY, LABELS, test=GREY[:8])


def test_a_file_that_cannot_be_read_may_be_left_out(tmp_path):
    paths = files_of(GREY, tmp_path / "files")
    paths[3].write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"003.png"):
        read(paths, LABELS)
    found, labels = everything(read(paths, LABELS, unreadable="skip"))
    assert (found[:, 0] == np.delete(GREY, 3, 0)).all()
    assert (labels == np.delete(LABELS, 3)).all()


# ---------------------------------------------------------------- training


def settings(**more):
    """`QUICK` as keywords."""
    from omegaconf import OmegaConf

    nested = OmegaConf.to_container(OmegaConf.from_dotlist(list(QUICK)))
    trainer = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
    return nested | {"trainer": nested["trainer"] | trainer} | more


DIGITS = load_digits()


def test_fit_on_an_array_gives_a_trained_model(capsys):
    names = np.array(["zero", "one", "two"])[DIGITS.target[:120] % 3]
    acn = acn_lightning.fit(
        DIGITS.images[:120] / 16, names, overrides=["model.code_size=3"], seed=1,
        **settings(run="mine"),
    )  # fmt: skip
    assert acn.image_shape == (1, 8, 8)  # its own, not the experiment's
    assert acn.classes == ("one", "two", "zero")
    assert acn.encode(DIGITS.images[:5] / 16).shape == (5, 3)
    assert acn.config["seed"] == 1
    assert len(acn.bank.rows) == 97  # of 108, a tenth is for validation
    out, err = capsys.readouterr()
    assert "120 grey images of 8 x 8 pixels in 3 classes." in out
    assert "overridden" not in err
    folder = Path("runs/folder/mine")
    assert {"config.yaml", "metrics.csv", "results.json"} <= {one.name for one in folder.iterdir()}


@pytest.mark.parametrize("known", [200, 60, 3])
def test_some_images_may_have_no_label(known, capsys):
    """Three labels are too few for the held-out images to have any."""
    rows = np.random.default_rng(0).permutation(300)
    labels = [int(DIGITS.target[row] > 4) if row in rows[:known] else None for row in range(300)]
    more = settings(run="mine") | {"probe": {"every_n_epochs": 1}}
    acn = acn_lightning.fit(DIGITS.images[:300] / 16, labels, **more)
    assert sorted(np.unique(acn.bank.labels)) == [-1, 0, 1]
    results = json.loads(Path("runs/folder/mine/results.json").read_text())
    codes = results["representations"]["codes"]
    assert (codes is None) == (known == 3)
    if codes:
        assert 0.3 < codes["knn"] <= 1
        head = Path("runs/folder/mine/metrics.csv").read_text().splitlines()[0]
        assert "val/knn_accuracy" in head
        assert "codes/knn_accuracy" in head
    assert set(np.unique(acn.neighbours(DIGITS.images[:9] / 16).labels)) <= {-1, 0, 1}


def test_a_run_goes_on_where_it_ended():
    images = DIGITS.images[:120] / 16

    def codes(epochs, run, **more):
        # Not the quickest precision, which is measured in each run that starts.
        trainer = settings()["trainer"] | {"max_epochs": epochs, "precision": "32-true"}
        acn = acn_lightning.fit(images, **settings(trainer=trainer, run=run, **more))
        return acn.bank.codes

    whole = codes(2, "whole")
    codes(1, "parts")
    assert torch.equal(codes(2, "parts", resume="auto"), whole)
    with pytest.raises(UsageError, match="trained on other data"):
        acn_lightning.fit(images[::-1], **settings(run="parts", resume="auto"))


def test_a_report_says_how_to_go_on_in_python(acn, tmp_path):
    images, labels = DIGITS.images[:120] / 16, DIGITS.target[:120]
    acn_lightning.fit(images, labels, **settings(run="mine", data={"image_size": 12}))
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images[:20]):
        Image.fromarray((image * 255).astype(np.uint8)).save(tmp_path / f"photos/{number}.png")
    first = read_run(Path("runs/folder/mine"))
    again, longer, explore, export = sections.commands(first)
    assert again[0] == "Repeat it, as a new run, in Python with the same images:"
    assert longer[0] == "Train it longer, in Python with the same images:"
    names = {"acn_lightning": acn_lightning, "images": images, "labels": labels}
    for _, line in (again, longer):
        eval(line, names)
    second, longer = (read_run(Path("runs/folder", name)) for name in ("mine-again", "mine"))
    assert second.history["train/total"] == first.history["train/total"]
    assert (first.epochs, second.epochs, longer.epochs, longer.state) == (1, 1, 2, "finished")
    assert explore[1] == "acn explore runs/folder/mine FOLDER open=true"
    words = shlex.split(export[1].replace("FOLDER", "photos"))
    assert acn(*words[1:], "projection=pca")[0] == 0
    shutil.move("runs/folder/mine", "moved")
    (_, (_, onward), *_) = sections.commands(read_run(Path("moved")))
    assert "'resume=moved/checkpoints/last.ckpt'" in onward


def test_what_was_given_in_python_is_asked_for_again(acn):
    acn_lightning.fit(DIGITS.images[:120] / 16, **settings(run="mine"))
    checkpoint = "runs/folder/mine/checkpoints/best.ckpt"
    status, _, err = acn("test", checkpoint)
    assert status == 2
    assert "were given in Python" in err
    assert acn("fit", "folder", "data.source=arrays")[0] == 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"model": {"codesize": 3}}, "Did you mean 'model.code_size'"),
        ({"modle": {"code_size": 3}}, "modle"),
        ({"model": 3}, "model"),
        ({"data": 3}, "data is a section"),
        ({"data": {"root": "photos"}}, "data.root"),
        ({"data": {"source": "digits"}}, "the images are given already"),
        ({"overrides": ["data.source=digits"]}, "the images are given already"),
        ({"overrides": ["seed"]}, "not of the form key=value"),
        ({"experiment": "folderr"}, "Did you mean 'folder'"),
        ({"seed": "one"}, "seed"),
        ({"seed": object()}, "seed"),
        ({"trainer": {"enable_checkpointing": False}}, "trainer.enable_checkpointing"),
        ({"trainer": {"fast_dev_run": True}}, "trainer.fast_dev_run: fit returns the model of the"),
        ({"data": {"validation": float("nan")}}, "data.validation: nan"),
        ({"labels": [1]}, "40 images, but 1 labels"),
        ({"classes": ["a"], "labels": LABELS}, "none of the 1 classes"),
    ],
)
def test_what_fit_refuses_and_writes_nothing(words, why):
    with pytest.raises(UsageError, match=why) as error:
        acn_lightning.fit(GREY, **settings(**words))
    assert "\n" not in str(error.value)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("images", [iter([]), None, 3], ids=["iterator", "none", "number"])
def test_what_has_no_length_is_refused_by_fit(images):
    with pytest.raises(UsageError, match="give an array, a tensor, a list of images or paths"):
        acn_lightning.fit(images)
    assert not Path("runs").exists()


def test_a_folder_can_be_named(trained):
    acn = acn_lightning.fit(
        trained / "photos", **settings(data={"image_size": 12, "augment": "none"})
    )
    assert acn.image_shape == (1, 12, 12)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"labels": [1, 2]}, r"^labels: .* are its classes\. Leave labels out\.$"),
        ({"classes": ["a", "b"]}, r"^classes: .* are its classes\. Leave classes out\.$"),
        ({"test": GREY}, r"^test: a folder holds its own test images.*\. Leave test out\.$"),
        ({"data": {"source": "celeba"}}, r"^data\.source: .* given already\. Leave the source out"),
        ({"overrides": ["data.source=digits"]}, r"^data\.source: the images are given already"),
        ({"data": {"root": "others"}}, r"^data\.root: .* given already\. Leave the root out\.$"),
        ({"overrides": ["data.root=others"]}, r"^data\.root: the images are given already"),
    ],
)
def test_what_a_folder_says_itself_is_refused_beside_it(trained, words, why):
    with pytest.raises(UsageError, match=why):
        acn_lightning.fit(trained / "photos", **settings(**words))
    assert list(Path().iterdir()) == []


ENCODER = """
from torch import nn
from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.encoders import Encoder

class Flat(Encoder):
    def __init__(self, image_shape, code_size, *, width: int = 8):
        super().__init__()
        self.layer = nn.Linear(image_shape[1] * image_shape[2], code_size)

    def forward(self, image):
        return unit_normal(self.layer(image.flatten(1)))
"""


def test_an_encoder_of_ones_own_is_named_once(monkeypatch):
    Path("flat_encoder.py").write_text(ENCODER)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    own = settings()
    own["model"] |= {"encoder": {"kind": "flat_encoder:Flat", "width": 4}}
    acn = acn_lightning.fit(DIGITS.images[:120] / 16, **own)
    assert type(acn.module.encoder).__name__ == "Flat"


def test_ctrl_c_is_pythons_own_and_says_how_to_go_on(monkeypatch, capsys):
    def stop(number, *_):
        raise InterruptionError(Path("runs/folder/mine/checkpoints/last.ckpt"), number)

    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    shown, filters = warnings.formatwarning, log.filters[:]
    for status, kind in ((130, KeyboardInterrupt), (143, SystemExit)):
        monkeypatch.setattr(training, "run", partial(stop, status))
        with pytest.raises(kind):
            acn_lightning.fit(GREY)
        assert "call fit with run='mine', resume='auto'" in capsys.readouterr().err
    assert (warnings.formatwarning, log.filters) == (shown, filters)


def test_a_newcomers_script_of_six_lines(tmp_path):
    page = (Path(__file__).parents[2] / "docs/data.md").read_text()
    script = re.search(r"```python\n(.*?)```", page, re.S)[1]
    assert len([line for line in script.splitlines() if line]) == 6
    quick = f"overrides={[*QUICK, 'data.subset=200', 'trainer.max_epochs=1']!r}"
    Path("script.py").write_text(script.replace('budget={"minutes": 1}', quick))
    done = subprocess.run(
        [python(), "script.py"], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path("codes.png").stat().st_size > 5000
    assert "Warning" not in done.stderr


def test_a_loader_of_other_batches_is_named_at_the_first_batch():
    data = ImageData()
    data.setup()
    module = build_for(data, compose("digits", QUICK))
    loader = DataLoader(TensorDataset(torch.rand(8, 1, 8, 8), torch.zeros(8)), batch_size=4)
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[RefreshNeighbours()],
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    for call in (trainer.fit, trainer.validate):
        with pytest.raises(UsageError, match=r"not list: train with acn_lightning.fit") as error:
            call(module, loader)
        assert "\n" not in str(error.value)


def test_the_order_of_a_split_is_that_of_a_folder(tmp_path):
    for row, image in enumerate(GREY):
        folder = tmp_path / "photos" / f"class {LABELS[row]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{row:02}.png")
    files = sorted((tmp_path / "photos").rglob("*.png"))
    assert [one.parent.name for one, other in pairwise(files) if one.parent != other.parent]
    folder = ImageData(source="folder", root=str(tmp_path / "photos"), binarisation="none")
    listed = ImageData(
        source=ArraysSource(*as_given(files, [one.parent.name for one in files], None)),
        binarisation="none",
    )
    for data in (folder, listed):
        data.setup()
    assert folder.fingerprint == listed.fingerprint
    assert folder.stored_names == listed.stored_names


class Lying(Dataset):
    """Says that it has 50 images, and has 40."""

    def __len__(self):
        return 50

    def __getitem__(self, row):
        return list(GREY)[row]


class Unsized(Dataset):
    def __getitem__(self, row):
        return GREY[row]


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        ((one for one in GREY), "images are generator: give an array"),
        (None, "images are NoneType: give"),
        (Image.fromarray(GREY[0]), "images are Image: give"),
        ({"a": GREY}, "images are dict: give"),
        (memoryview(GREY), "images are memoryview: give"),
        (Unsized(), "images are Unsized: give|how many there are cannot be told"),
        (np.array(3), "how many there are cannot be told"),
        (GREY[:0], "there are no images"),
        (Lying(), "image 40 of 50 cannot be had .list index out of range"),
        (torch.rand(40, 6, 5).to_sparse(), "no dense tensor"),
        (["a\0b"] * 40, "cannot be read as an image"),
    ],
)
def test_what_are_no_images_is_refused_before_they_are_counted(images, complaint):
    source = ArraysSource(*as_given(images, None, None))
    data = ImageData(source=source, binarisation="none")
    with pytest.raises(UsageError, match=complaint):
        data.setup()


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        (4, "a list of names is needed"),
        ("abcd", "is no list"),
        (list("aabc"), "'a' is there twice"),
    ],
)
def test_names_of_classes_that_are_none_are_refused(classes, complaint):
    with pytest.raises(UsageError, match=complaint):
        named_classes(classes)


def test_nested_lists_are_bytes_or_floats_as_arrays_are():
    whole = everything(read(GREY.tolist()))[0]
    assert (whole[:, 0] == GREY).all()
    assert (everything(read((GREY / 255).tolist()))[0] == whole).all()
    with pytest.raises(UsageError, match=r"must lie between 0 and 1"):
        read((GREY / 25).tolist())
    with pytest.raises(UsageError, match=r"image 0 cannot be read as an image"):
        read((GREY.astype(int) + 256).tolist())
