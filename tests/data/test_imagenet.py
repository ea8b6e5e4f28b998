"""ImageNet in three layouts, and each part of them missing or wrong."""

import numpy as np
import pytest
import torch
from PIL import Image

from acn_lightning.data import ImageData
from acn_lightning.data.sources.imagenet import read_imagenet
from acn_lightning.utils.errors import UsageError

# ---------------------------------------------------------------- downsampled


@pytest.fixture
def small(tmp_path):
    """Downsampled ImageNet of 4 x 4: batches of 2 images, the last of 1, and 3 to validate."""
    generator = np.random.default_rng(0)
    names = [*(f"train_data_batch_{i}" for i in range(1, 11)), "val_data"]
    for i, name in enumerate(names):
        count = {9: 1, 10: 3}.get(i, 2)
        data = generator.integers(0, 256, (count, 48), dtype=np.uint8)
        labels = np.arange(1, count + 1) + 99 * i
        np.savez(tmp_path / f"{name}.npz", data=data, labels=labels, mean=np.zeros(48))
    return tmp_path


def change(path, **arrays):
    with np.load(path) as old:
        content = {name: old[name] for name in old.files}
    content.update(arrays)
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


def test_downsampled(small):
    source = read_imagenet(small, None)
    assert source.train.images.shape == (19, 3, 4, 4)
    assert source.train.images.dtype == torch.uint8
    generator = np.random.default_rng(0)
    flat = [int(v) for n in [2] * 9 + [1, 3] for v in generator.integers(0, 256, n * 48, np.uint8)]
    for n in (0, 5, 18):
        for colour, row, column in np.ndindex(3, 4, 4):
            expected = flat[n * 48 + colour * 16 + row * 4 + column]
            assert source.train.images[n, colour, row, column] == expected
    assert source.test.images.flatten().tolist() == flat[19 * 48 :]
    assert source.train.labels.tolist() == [99 * i + j for i in range(9) for j in (0, 1)] + [891]
    assert source.test.labels.tolist() == [990, 991, 992]
    assert source.classes[:2] == ("1", "2")
    assert len(source.classes) == 1000


def test_no_image_is_in_memory_twice(small, monkeypatch):
    """Labels are read without images, and images one batch at a time."""
    import acn_lightning.data.sources.imagenet as module

    asked = []

    def load(path, names, original=module.load_npz):
        asked.append((path.stem, *names))
        return original(path, names)

    monkeypatch.setattr(module, "load_npz", load)
    read_imagenet(small, None)
    batches = [f"train_data_batch_{i}" for i in range(1, 11)]
    assert asked[:20] == [(name, what) for what in ("labels", "data") for name in batches]


@pytest.mark.parametrize("name", ["train_data_batch_1", "train_data_batch_10", "val_data"])
def test_downsampled_with_a_file_missing(small, name):
    (small / f"{name}.npz").unlink()
    with pytest.raises(UsageError, match=rf"has no {name}\.npz\. .* consists of"):
        read_imagenet(small, None)


def test_the_pickled_version_is_refused(tmp_path):
    (tmp_path / "train_data_batch_1").write_bytes(b"\x80\x02}.")
    with pytest.raises(UsageError, match="Take the npz version"):
        read_imagenet(tmp_path, None)


def test_downsampled_images_are_not_resized(small):
    with pytest.raises(UsageError, match=r"data\.image_size: .* downsampled already"):
        ImageData(source="imagenet", root=str(small), image_size=2).setup()


ZEROS = np.zeros((2, 48), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": None}, "has no array 'data'"),
        ({"labels": None}, "has no array 'labels'"),
        ({"data": ZEROS / 2}, r"no array 'data' of uint8 .*float64 \(2, 48\)"),
        ({"data": ZEROS[:, 1:]}, r"uint8 \(2, 47\)"),
        ({"data": ZEROS[:, :0]}, r"uint8 \(2, 0\)"),
        ({"data": ZEROS[0, 0]}, r"uint8 \(\)"),
        ({"data": ZEROS.reshape(2, 3, 4, 4)}, r"uint8 \(2, 3, 4, 4\)"),
        ({"data": ZEROS[:, :27]}, r"3 x 3 x 3, in train_data_batch_1\.npz 3 x 4 x 4"),
        ({"data": ZEROS[:1]}, "1 images in .* 2 labels in"),
        ({"labels": np.array([1, 2, 3])}, "2 images in .* 3 labels in"),
        ({"labels": np.array([0, 1])}, "labels from 0 to 1, not within 1 to 1000"),
        ({"labels": np.array([1, 1001])}, "labels from 1 to 1001"),
        ({"labels": np.array([1.0, 2.0])}, "no array 'labels'"),
        ({"labels": np.array([], int)}, "no array 'labels'"),
        ({"data": np.array([{}, {}], object)}, "not a readable .npz"),
    ],
)
def test_wrong_batches(small, arrays, message):
    path = small / "train_data_batch_2.npz"
    change(path, **arrays)
    with pytest.raises(UsageError, match=message) as error:
        read_imagenet(small, None)
    assert path.name in str(error.value)


def test_parts_of_two_sizes(small):
    change(small / "val_data.npz", data=np.zeros((3, 27), np.uint8))
    with pytest.raises(UsageError, match=r"training images are 3 x 4 x 4 .*val_data\.npz 3 x 3 x"):
        read_imagenet(small, None)


def test_a_truncated_batch(small):
    path = small / "train_data_batch_4.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UsageError, match=r"batch_4\.npz is not a readable"):
        read_imagenet(small, None)


# ---------------------------------------------------------------- JPEG files

COLOURS = {"n01440764": (200, 0, 0), "n02102040": (0, 200, 0), "n03000684": (0, 0, 200)}


def jpeg(path, wnid, size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[wnid]).save(path, "JPEG")


def write_train(folder):
    for wnid in COLOURS:
        for i in range(4):
            jpeg(folder / wnid / f"{wnid}_{i}.JPEG", wnid, size=(10 + i, 9))


def check(source, test_labels):
    assert source.classes == tuple(COLOURS)
    assert source.train.images.shape == (12, 3, 6, 6)
    assert source.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert sorted(source.test.labels.tolist()) == test_labels
    for part in source.train, source.test:
        brightest = part.images.float().mean((2, 3)).argmax(1)
        assert torch.equal(brightest, part.labels)


@pytest.fixture
def folders(tmp_path):
    write_train(tmp_path / "train")
    for wnid in list(COLOURS)[1:]:
        jpeg(tmp_path / "val" / wnid / "ILSVRC2012_val_00000001.JPEG", wnid)
    return tmp_path


@pytest.fixture
def kaggle(tmp_path):
    base = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    write_train(base / "train")
    lines = ["ImageId,PredictionString"]
    for i, wnid in enumerate([*COLOURS, "n02102040"]):
        jpeg(base / "val" / f"ILSVRC2012_val_{i:08}.JPEG", wnid)
        lines.insert(1, f"ILSVRC2012_val_{i:08},{wnid} 1 2 30 40 {wnid} 5 6 7 8 ")  # any order
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_folders(folders):
    check(read_imagenet(folders, (6, 6)), [1, 2])


def test_kaggle(kaggle):
    check(read_imagenet(kaggle, (6, 6)), [0, 1, 1, 2])


def test_grey_files_among_the_others(folders):
    Image.new("L", (9, 9), 50).save(folders / "train" / "n03000684" / "grey.JPEG")
    assert read_imagenet(folders, (6, 6)).train.images.shape == (13, 3, 6, 6)


def test_the_data_module_reads_files(folders):
    options = {"source": "imagenet", "root": str(folders), "binarisation": "none"}
    data = ImageData(**options, image_size=[5, 7])
    data.setup()
    assert data.image_shape == (3, 5, 7)
    with pytest.raises(UsageError, match=r"ImageNet needs an image size: data\.image_size=64"):
        ImageData(**options).setup()


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_missing_folder_is_named(folders, name):
    (folders / name).rename(folders / "elsewhere")
    with pytest.raises(UsageError, match=f"has no {name}/. ImageNet is train_data_batch_1"):
        read_imagenet(folders, (6, 6))


def test_nothing_there(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        read_imagenet(tmp_path / "nowhere", None)
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(UsageError, match="train has no images"):
        read_imagenet(tmp_path, (6, 6))


def test_a_training_part_without_classes(folders):
    for path in list((folders / "train").glob("*/*")):
        path.rename(folders / "train" / path.name)
    for path in (folders / "train").iterdir():
        if path.is_dir():
            path.rmdir()
    with pytest.raises(UsageError, match="train has no sub-folders"):
        read_imagenet(folders, (6, 6))


def test_a_class_without_training_images(folders):
    (folders / "val" / "n03000684").rename(folders / "val" / "n09999999")
    with pytest.raises(UsageError, match=r"of class n09999999, which .*train does not have"):
        read_imagenet(folders, (6, 6))


def test_a_damaged_file_is_named(folders):
    (folders / "val" / "n03000684" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UsageError, match=r"n03000684/ILSVRC2012_val_00000001\.JPEG cannot be read"):
        read_imagenet(folders, (6, 6))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("PredictionString", "Prediction", "not a table of ImageId,PredictionString"),
        ("val_00000002,n03000684 1 2 30 40 n03000684 5 6 7 8 ", "val_00000002,", "is truncated"),
        ("val_00000002,n03000684 1 2 30 40 n03000684 5 6 7 8 ", "val_00000002", "is truncated"),
        ("val_00000002,", "val_00000001,", "4 images in .*val, but 3 labels in"),
        ("val_00000002,", "val_00000009,", r"has no row for .*val_00000002\.JPEG"),
        ("val_00000002,n03", "val_00000002,n09", "of class n09000684"),
    ],
)
def test_wrong_tables(kaggle, old, new, message):
    path = kaggle / "LOC_val_solution.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        read_imagenet(kaggle, (6, 6))


def test_kaggle_with_a_part_missing(kaggle):
    next((kaggle / "ILSVRC/Data/CLS-LOC/val").iterdir()).unlink()
    with pytest.raises(UsageError, match=r"3 images in .*val, but 4 labels in .*solution\.csv"):
        read_imagenet(kaggle, (6, 6))
    (kaggle / "LOC_val_solution.csv").unlink()
    with pytest.raises(UsageError, match=r"has no LOC_val_solution\.csv\. Images of val/ need it"):
        read_imagenet(kaggle, (6, 6))
