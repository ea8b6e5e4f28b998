"""Data sets of Hugging Face's `datasets`, without a network."""

import numpy as np
import pytest
import torch
from PIL import Image

import acn_lightning
from acn_lightning.data import ImageData
from acn_lightning.data.sources.arrays import ArraysSource, as_given
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK

datasets = pytest.importorskip("datasets")

PIXELS = (np.arange(60 * 6 * 5) % 251).astype(np.uint8).reshape(60, 6, 5)
NAMES = ["cat", "dog", "emu"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def table(count=60, start=0, names=True, **more):
    rows = range(start, start + count)
    columns = {
        "image": [Image.fromarray(PIXELS[row]) for row in rows],
        "label": [row % 3 for row in rows],
    }
    kinds = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=NAMES) if names else datasets.Value("int64"),
    }
    columns |= {name: values for name, (_, values) in more.items()}
    kinds |= {name: kind for name, (kind, _) in more.items()}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def written(how, folder):
    """A data set of 50 training and 10 test images."""
    train, test = table(50), table(10, 50)
    folder.mkdir()
    if how == "parquet":
        (folder / "data").mkdir()
        train.to_parquet(folder / "data/train-00000-of-00001.parquet")
        test.to_parquet(folder / "data/test-00000-of-00001.parquet")
    elif how == "saved":
        datasets.DatasetDict({"train": train, "test": test}).save_to_disk(folder)
    else:
        for name, part in (("train", train), ("test", test)):
            for row, one in enumerate(part):
                place = folder / name / NAMES[one["label"]]
                place.mkdir(parents=True, exist_ok=True)
                one["image"].save(place / f"{row:02}.png")
    return folder


def read(path, **options):
    data = ImageData(
        source="huggingface", path=str(path), binarisation="none", validation=0, **options
    )
    data.setup()
    return data


def rows_of(images):
    """Which of `PIXELS` each image is."""
    known = {image.tobytes(): row for row, image in enumerate(PIXELS)}
    return [known[image.numpy().tobytes()] for image in images[:, 0]]


def test_splits_that_number_their_classes_differently_share_their_names(tmp_path):
    other = datasets.Features({"image": datasets.Image(),
                               "label": datasets.ClassLabel(names=NAMES[:0:-1])})  # fmt: skip
    kept = [row for row in range(50, 60) if row % 3]
    test = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(PIXELS[row]) for row in kept],
         "label": [NAMES[:0:-1].index(NAMES[row % 3]) for row in kept]}, features=other,
    )  # fmt: skip
    datasets.DatasetDict({"train": table(50), "test": test}).save_to_disk(tmp_path / "saved")
    data = read(tmp_path / "saved")
    assert data.classes == tuple(NAMES)
    assert data.content.test.labels.tolist() == [row % 3 for row in kept]


@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.parametrize("how", ["parquet", "saved", "images"])
def test_local_data_sets_without_a_network(how, cache, tmp_path):
    data = read(written(how, tmp_path / "set"), cache=cache, cache_folder=str(tmp_path / "cache"))
    assert tuple(data.classes) == tuple(NAMES)
    train, test = data.train_set, data.test_set
    rows = rows_of(train.images)
    assert sorted(rows) == list(range(50))
    assert train.labels.tolist() == [row % 3 for row in rows]
    assert [row % 3 for row in rows_of(test.images)] == test.labels.tolist()
    assert "60 images in 3 classes" in data.reader.report
    assert (tmp_path / "cache").exists() == (cache == "disk")
    if cache == "disk":
        again = read(tmp_path / "set", cache="disk", cache_folder=str(tmp_path / "cache"))
        assert again.fingerprint == data.fingerprint
        assert len(list((tmp_path / "cache").glob("huggingface-*/"))) == 1


def test_single_files(tmp_path):
    table().to_parquet(tmp_path / "some.parquet")
    table().save_to_disk(tmp_path / "saved")
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    for path in (tmp_path / "some.parquet", arrow, tmp_path / "saved"):
        data = read(path)
        assert len(data.train_set) == 54  # a tenth is held out
        assert sorted(rows_of(data.train_set.images) + rows_of(data.test_set.images)) == list(
            range(60)
        )


def test_columns_and_splits_can_be_named(tmp_path):
    kinds = {
        "mask": (datasets.Image(), [Image.new("RGB", (6, 5), "red")] * 60),
        "species": (datasets.Value("string"), ["b", "a"] * 30),
        "weight": (datasets.Value("float64"), [0.5] * 60),
    }
    datasets.DatasetDict({"all": table(names=False, **kinds), "other": table(10)}).save_to_disk(
        tmp_path / "set"
    )
    path = tmp_path / "set"
    data = read(path, split="all", image="mask", label="species")
    assert data.image_shape == (3, 5, 6)
    assert tuple(data.classes) == ("a", "b")
    assert read(path, split="all").image_shape == (1, 6, 5)  # "image" of two
    assert tuple(read(path, split="all").classes) == (
        "0",
        "1",
        "2",
    )  # "label", though it has no names
    assert not read(path, split="all", label="none").classes
    assert len(read(path, split="all", test_split="other").test_set) == 10
    assert read(path, split="all", image_size=8, channels=3).image_shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"split": "trian"}, "data.split: .* has no split 'trian', only train, test. Did you mean"),
        ({"test_split": "dev"}, "data.test_split: .*only train, test"),
        ({"image": "img"}, "data.image: there is no column 'img', only image, label, weight"),
        ({"label": "lable"}, "data.label: there is no column 'lable'.*Did you mean 'label'"),
        ({"label": "weight"}, "data.label: 0.5 is neither"),
        ({"image": "weight"}, "image 0 is of type float, not an array"),
        ({"image_size": "big"}, "data.image_size"),
        ({"subset_name": "no"}, "data.path"),
    ],
)
def test_what_is_refused_in_one_line(options, why, tmp_path, acn):
    path = tmp_path / "set"
    weight = {"weight": (datasets.Value("float64"), [0.5] * 60)}
    (path / "data").mkdir(parents=True)
    for name in ("train", "test"):
        table(**weight).to_parquet(path / f"data/{name}.parquet")
    with pytest.raises(UsageError, match=why) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    words = [f"data.{key}={value}" for key, value in options.items()]
    status, _, err = acn("fit", "folder", "data.source=huggingface", f"data.path={path}", *words)
    assert (status, err.count("\n")) == (2, 1), err
    assert not (tmp_path / "runs").exists()


def test_images_of_mixed_sizes_need_a_size(tmp_path):
    images = [Image.new("L", (5 + row % 2, 6)) for row in range(30)]
    datasets.Dataset.from_dict({"image": images}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"data.image_size: images differ in size"):
        read(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", image_size=4).image_shape == (1, 4, 4)
    assert read(tmp_path / "a.parquet", image_size="auto").image_shape == (1, 32, 32)


def test_with_an_automatic_size_the_test_images_get_that_of_the_training_images(tmp_path):
    (tmp_path / "set").mkdir()
    for name, side in [("train", 6), ("test", 40)]:
        images = [Image.new("L", (side, side)) for _ in range(20)]
        table = datasets.Dataset.from_dict({"image": images})
        table.to_parquet(tmp_path / "set" / f"{name}.parquet")
    data = read(tmp_path / "set", image_size="auto")
    assert data.image_shape == (1, 6, 6)
    assert len(data.test_set) == 20


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_16_bits_and_colours_are_those_of_all_splits(cache, tmp_path):
    (tmp_path / "set").mkdir()
    for name, brightest in [("train", 3999), ("test", 999)]:
        values = np.full((20, 6, 5), 500, np.uint16)
        values[:, 0, 0] = brightest
        images = [Image.fromarray(one) for one in values]
        if name == "test":
            images[3] = Image.new("RGB", (5, 6), "red")
        table = datasets.Dataset.from_dict({"image": images})
        table.to_parquet(tmp_path / "set" / f"{name}.parquet")
    for _ in range(2):  # the second time from the cache, if there is one
        data = read(tmp_path / "set", cache=cache, cache_folder=str(tmp_path / "cache"))
        assert data.image_shape == (3, 6, 5)
        for part in (data.train_set, data.test_set):
            assert part.images[0, 0, 5, 4] == 500 * 255 // 4095
        assert data.state_dict()["bits"] == 12


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (None, "data.path: source 'huggingface' needs"),
        ("./nowhere", "there is no ./nowhere"),
        ("nowhere.parquet", "there is no nowhere.parquet"),
        ("owner/name", "data.path: owner/name cannot be read"),
        ("s3://bucket/x", "is an address"),
        ("empty", "data.path"),
        ("text.csv", "is none of .parquet"),
        ("damaged.parquet", "damaged.parquet cannot be read"),
        ("script", "data.path"),
    ],
)
def test_paths_that_are_no_data_set(path, why, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and nothing")
    (tmp_path / "script").mkdir()
    (tmp_path / "script/script.py").write_text("open('ran', 'w')")
    with pytest.raises(UsageError, match=why) as error:
        read(path) if path else ImageData(source="huggingface")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_downloads_can_be_forbidden(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(UsageError, match=r"data.download=false"):
        read("owner/name", download=False)


def test_a_table_given_in_python():
    given = ArraysSource(
        *as_given(datasets.DatasetDict({"train": table(50), "test": table(10, 50)}), None, None)
    )
    found = given.read()
    assert rows_of(found.train.images) == list(range(50))
    assert found.classes == tuple(NAMES)
    assert found.test.labels.tolist() == [row % 3 for row in range(50, 60)]
    labelled = ArraysSource(*as_given(table(), ["x", "y"] * 30, None)).read()
    assert labelled.classes == ("x", "y")


def test_a_table_keeps_the_order_of_its_classes(tmp_path):
    """So its numbers are the model's, and a run may be tested on the table's files."""
    own = table().cast_column("label", datasets.ClassLabel(names=["zebra", "ant", "moth", "none"]))
    data = ImageData(source=ArraysSource(*as_given(own, None, None)), binarisation="none")
    data.setup()
    assert data.classes == ("zebra", "ant", "moth", "none")
    rows = rows_of(data.fixed_set.images)
    assert data.labels.tolist() == [row % 3 for row in rows]
    own.to_parquet(tmp_path / "some.parquet")
    assert read(tmp_path / "some.parquet").fingerprint == data.fingerprint
    other = table(10).cast_column("label", datasets.ClassLabel(names=["moth", "ant", "wasp"]))
    both = ArraysSource(*as_given(own, None, other)).read()
    assert both.classes == ("zebra", "ant", "moth", "none", "wasp")
    assert both.test.labels.tolist() == [(2, 1, 4)[row % 3] for row in range(10)]
    order = ["none", "moth", "ant", "zebra"]
    assert ArraysSource(*as_given(own, None, None), order).read().classes == tuple(order)


def test_a_table_of_several_columns_of_classes_or_images():
    coarse = {"coarse": (datasets.ClassLabel(names=["a", "b"]), [row % 2 for row in range(60)])}
    given = table(**coarse).rename_column("label", "fine")
    for labels in (given["fine"], list(given["fine"]), given.with_format("torch")["fine"]):
        found = ArraysSource(*as_given(given, labels, None)).read()
        assert found.classes == ("0", "1", "2")
    with pytest.raises(UsageError, match=r"^labels: .* fine, coarse\..*rename_column\(\"fine\", "):
        ArraysSource(*as_given(given, None, None)).read()
    way_out = given.rename_column("fine", "label")
    assert ArraysSource(*as_given(way_out, None, None)).read().classes == tuple(NAMES)

    mask = {"mask": (datasets.Image(), [Image.new("L", (6, 5))] * 60)}
    given = table(**mask).rename_column("image", "photo")
    with pytest.raises(UsageError, match=r"^images: .* photo, mask\..*rename_column\(\"photo\", "):
        ArraysSource(*as_given(given, None, None)).outline()
    way_out = ArraysSource(*as_given(given.rename_column("photo", "image"), None, None))
    assert sorted(rows_of(torch.cat([part.images for part in way_out.read()[:2]]))) == [*range(60)]


def test_a_checkpoint_does_not_decide_what_is_read(tmp_path, acn):
    path = written("saved", tmp_path / "set")
    words = ["data.source=huggingface", f"data.path={path}", "run=mine", "trainer.max_epochs=1"]
    status, _, err = acn(
        "fit", "folder", *words, *QUICK, "data.image_size=8", "trainer.accelerator=cpu"
    )
    assert status == 0, err
    checkpoint = "runs/folder/mine/checkpoints/best.ckpt"
    status, _, err = acn("test", checkpoint)
    assert status == 2
    assert "data.path: say where the images are" in err
    quiet = [word for word in QUICK if not word.startswith(("model.", "schedule."))]
    status, _, err = acn("test", checkpoint, f"data.path={path}", *quiet)
    assert status == 0, err
    assert acn_lightning.load(checkpoint).classes == tuple(NAMES)  # needs no images
