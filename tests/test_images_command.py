"""`acn images`: what it writes is read back as the same data."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acn_lightning.commands.images import folder_names
from acn_lightning.config.compose import compose
from acn_lightning.data.listing import list_folder
from acn_lightning.experiment.build import read_data


def test_a_folder_holds_each_image_in_its_class(acn):
    status, out, err = acn("images", "digits", "out=photos")
    assert status == 0, err
    data = read_data(compose("digits")).content
    assert out == f"{len(data.train.images):,} images, 10 classes: photos\n"
    listing = list_folder(Path("photos"))
    rows = [int(path.stem) for path in listing.train.files]
    assert sorted(rows) == list(range(len(data.train.images)))
    assert [int(label) for label in listing.train.labels] == data.train.labels[rows].tolist()
    for path, row in zip(listing.train.files[::100], rows[::100], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), data.train.images[row, 0])


def test_the_test_images_are_written_on_request(acn):
    assert acn("images", "digits", "part=test", "out=photos")[0] == 0
    data = read_data(compose("digits")).content
    found = Counter(np.asarray(Image.open(path)).tobytes() for path in Path().glob("*/*/*.png"))
    assert found == Counter(image.numpy().tobytes() for image in data.test.images)


def test_images_without_classes_and_in_colour(acn):
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    np.savez("mine.npz", images=images)
    Path("mine.yaml").write_text("data: {source: npz, root: mine.npz}")
    status, out, err = acn("images", "mine.yaml", "out=photos")
    assert status == 0, err
    files = sorted(Path("photos").iterdir())
    assert out == f"{len(files)} images: photos\n"
    known = {image.tobytes() for image in images}
    assert {np.asarray(Image.open(path)).tobytes() for path in files} <= known


def test_images_without_a_label_lie_apart_and_are_told(acn):
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype=np.uint8)
    np.savez("mine.npz", images=images, labels=np.arange(40) % 4 - 1,
             test_images=images[:8], test_labels=np.arange(8) % 3)  # fmt: skip
    Path("mine.yaml").write_text("data: {source: npz, root: mine.npz}")
    status, out, err = acn("images", "mine.yaml", "out=photos")
    assert status == 0, err
    assert out == "40 images, 3 classes, 10 without a label in 'no label': photos\n"
    assert len(list(Path("photos/no label").iterdir())) == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digit"], "digit: unknown experiment."),
        (["digits", "part=val"], "part: 'val' is not one of train, test."),
        (["digits", "prt=test"], "prt: acn images has no such option. Did you mean 'part'?"),
        (["digits", "out=here"], "out: here already exists."),
        (["mnist", "data.root=nowhere", "data.download=false"], "there is no folder nowhere."),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(acn, words, said):
    Path("here").mkdir()
    status, _, err = acn("images", *words)
    assert status == 2
    (line,) = err.splitlines()
    assert said in line
    assert [path.name for path in Path().iterdir()] == ["here"]


def test_names_of_classes_stay_inside_the_folder():
    names = folder_names(["../../etc", "..", "", "a/b", "A:B", "\n", "x"])
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert Path(name).parts == (name,)
        assert name not in ("", ".", "..")
        assert name[0] != "."
