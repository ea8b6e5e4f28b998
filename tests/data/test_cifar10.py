"""CIFAR-10 in both versions and their archives; pickles that must not run."""

import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from acn_lightning.data import ImageData
from acn_lightning.data.sources import cifar10
from acn_lightning.data.sources.cifar10 import read_cifar10
from acn_lightning.utils.errors import UsageError

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
CLASSES = ("airplane", "cat", "frog")


def content():
    """Three images a batch, as (label, [colour][row][column]), told apart in every pixel."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (6, 3, 3, 32, 32), dtype=np.uint8)
    return images, [[i % 3, 1, 2 - i % 3] for i in range(6)]


def text2(value):
    """A Python 2 string in a pickle."""
    return b"T" + struct.pack("<i", len(value)) + value


def pickle2(planes, labels):
    """A batch, opcode by opcode as Python 2 and its NumPy wrote the publisher's."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"J%sJ%s\x86" % tuple(struct.pack("<i", side) for side in planes.shape)
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + text2(planes.tobytes())
        + b"tb"
    )
    numbers = b"".join(b"K%c" % label for label in labels)
    items = text2(b"data") + array + text2(b"labels") + b"](" + numbers + b"e"
    return b"\x80\x02}(" + text2(b"batch_label") + text2(b"a batch") + items + b"u."


def pickle3(planes, labels):
    """The same content from Python 3, as a mirror may have made it."""
    return pickle.dumps({b"data": planes, b"labels": labels}, protocol=2)


def write_python(folder, write=pickle2):
    folder.mkdir(parents=True)
    images, labels = content()
    for name, batch, own in zip(NAMES, images, labels, strict=True):
        (folder / name).write_bytes(write(batch.reshape(3, -1), own))
    names = b"](" + b"".join(text2(name.encode()) for name in CLASSES) + b"e"
    (folder / "batches.meta").write_bytes(b"\x80\x02}" + text2(b"label_names") + names + b"s.")
    return folder


def write_binary(folder):
    folder.mkdir(parents=True)
    images, labels = content()
    for name, batch, own in zip(NAMES, images, labels, strict=True):
        records = [
            bytes([label]) + image.tobytes() for image, label in zip(batch, own, strict=True)
        ]
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return folder


def check(source):
    images, labels = content()
    assert source.train.images.dtype == torch.uint8
    assert (source.train.images.numpy() == np.concatenate(images[:5])).all()
    assert (source.test.images.numpy() == images[5]).all()
    assert source.train.labels.tolist() == [label for own in labels[:5] for label in own]
    assert source.test.labels.tolist() == labels[5]
    assert source.classes == CLASSES


def test_the_hand_made_pickle_is_one():
    images, labels = content()
    batch = pickle.loads(pickle2(images[0].reshape(3, -1), labels[0]), encoding="bytes")
    assert (batch[b"data"].reshape(3, 3, 32, 32) == images[0]).all()
    assert batch[b"labels"] == labels[0]


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize("write", [pickle2, pickle3])
def test_python_version(tmp_path, inner, write):
    write_python(tmp_path / "c" / inner, write)
    check(read_cifar10(tmp_path / "c"))


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_binary_version(tmp_path, inner):
    write_binary(tmp_path / "c" / inner)
    check(read_cifar10(tmp_path / "c"))


def archive(tmp_path, name, folder):
    (tmp_path / "c").mkdir()
    with tarfile.open(tmp_path / "c" / name, "w:gz") as tar:
        tar.add(folder, folder.name)
    return tmp_path / "c" / name


def test_archives_as_published(tmp_path):
    folder = write_binary(tmp_path / "cifar-10-batches-bin")
    path = archive(tmp_path, "cifar-10-binary.tar.gz", folder)
    check(read_cifar10(tmp_path / "c"))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UsageError, match=r"cifar-10-binary\.tar\.gz is truncated or damaged"):
        read_cifar10(tmp_path / "c")


def test_python_archive(tmp_path):
    folder = write_python(tmp_path / "cifar-10-batches-py")
    (folder / "data_batch_3").rename(folder / "elsewhere")
    path = archive(tmp_path, "cifar-10-python.tar.gz", folder)
    with pytest.raises(UsageError, match=r"python\.tar\.gz has no data_batch_3\. .*consists of"):
        read_cifar10(tmp_path / "c")
    (folder / "elsewhere").rename(folder / "data_batch_3")
    path.unlink()
    path.parent.rmdir()
    archive(tmp_path, "cifar-10-python.tar.gz", folder)
    check(read_cifar10(tmp_path / "c"))


def test_the_data_module_reads_it(tmp_path):
    write_binary(tmp_path / "c")
    data = ImageData(
        source="cifar10", root=str(tmp_path / "c"), binarisation="none", validation=0.2
    )
    data.prepare_data()  # nothing to fetch
    data.setup()
    assert data.image_shape == (3, 32, 32)
    assert len(data.validation_set) == 3


def test_nothing_there(tmp_path):
    with pytest.raises(UsageError, match=r"no data_batch_1\.bin .*cs\.toronto\.edu"):
        read_cifar10(tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        read_cifar10(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
@pytest.mark.parametrize("write", [write_binary, write_python])
def test_a_missing_file_is_named(tmp_path, write, name):
    folder = write(tmp_path / "c")
    (path,) = folder.glob(f"{name}*")
    path.unlink()
    with pytest.raises(UsageError, match=f"c has no {path.name}. .* consists of"):
        read_cifar10(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("data_batch_2.bin", lambda old: old[:-1], "its 9,218 bytes are not a whole number"),
        ("test_batch.bin", lambda old: old + b"x", "truncated or damaged"),
        ("test_batch.bin", lambda _: b"", r"shape \(0, 3072\)"),
        ("data_batch_5.bin", lambda old: b"\x03" + old[1:], "from 1 to 3, but there are 3 classes"),
        ("batches.meta.txt", lambda _: b"\n", "is empty"),
        ("batches.meta.txt", lambda _: b"\xff\xfe", "no class names"),
    ],
)
def test_damaged_binary_files(tmp_path, name, change, message):
    path = write_binary(tmp_path / "c") / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UsageError, match=message) as error:
        read_cifar10(tmp_path / "c")
    assert str(path) in str(error.value)


ZEROS = np.zeros((3, 3072), np.uint8)


def pickled(value):
    return lambda _: pickle.dumps(value, protocol=2)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("data_batch_2", lambda old: old[:-40], "is damaged or not a pickle"),
        ("data_batch_2", lambda old: old[: len(old) // 2], "is damaged or not a pickle"),
        ("data_batch_2", lambda _: b"", "is damaged or not a pickle"),
        ("data_batch_2", lambda _: b"not a pickle", "is damaged or not a pickle"),
        ("data_batch_2", pickled([1, 2]), "is not a batch of CIFAR-10"),
        ("data_batch_2", pickled({b"data": [1], b"labels": [1]}), "is not a batch of CIFAR-10"),
        ("data_batch_2", pickled({b"data": ZEROS}), "is not a batch of CIFAR-10"),
        ("data_batch_2", pickled({b"data": ZEROS * 1.0, b"labels": [0] * 3}), "is not a batch"),
        ("data_batch_2", pickled({b"data": ZEROS, b"labels": "abc"}), "is not a batch"),
        ("data_batch_2", pickled({b"data": ZEROS[:, 1:], b"labels": [0] * 3}), r"\(3, 3071\)"),
        ("data_batch_2", pickled({b"data": ZEROS, b"labels": [0, 0]}), "3 images in .* 2 labels"),
        ("test_batch", pickled({b"data": ZEROS, b"labels": [0, 0, -1]}), "from -1 to 0"),
        ("batches.meta", pickled({}), "no class names"),
        ("batches.meta", pickled({b"label_names": 3}), "no class names"),
        ("batches.meta", pickled([]), "no class names"),
    ],
)
def test_damaged_python_files(tmp_path, name, change, message):
    path = write_python(tmp_path / "c") / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UsageError, match=message) as error:
        read_cifar10(tmp_path / "c")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("name", ["data_batch_1", "batches.meta"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "payload",
    [
        Runs(os.mkdir, "ran"),
        Runs(eval, "__import__('os').mkdir('ran')"),
        Runs(np.save, "ran", 1),
        Runs(Path.mkdir, Path("ran")),
    ],
)
def test_a_pickle_runs_no_code(tmp_path, name, protocol, payload):
    folder = write_python(tmp_path / "c")
    malicious = pickle.dumps({b"data": payload, b"label_names": payload}, protocol)
    (folder / name).write_bytes(malicious)
    with pytest.raises(UsageError, match=rf"{name} is refused: .*it asks for '\w+.*\.\w+'"):
        read_cifar10(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_the_payload_would_run(tmp_path):
    pickle.loads(pickle.dumps(Runs(os.mkdir, "ran")))
    assert (tmp_path / "ran").is_dir()


def shared(depth):
    """A list that holds itself twice over in each level: 2 ** depth numbers in a few bytes."""
    value = [1]
    for _ in range(depth):
        value = [value, value]
    return value


def test_lists_of_lists_of_lists_take_no_time(tmp_path):
    root = write_python(tmp_path / "python", pickle3)
    batch = {b"data": np.zeros((3, 3072), np.uint8), b"labels": shared(40)}
    (root / "data_batch_2").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(UsageError, match="labels are not a list of numbers"):
        read_cifar10(root)
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": shared(40)}, protocol=2))
    with pytest.raises(UsageError, match="has no class names"):
        read_cifar10(root)


def test_links_in_an_archive_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "data_batch_1.bin"
        archive.addfile(link)
    with pytest.raises(UsageError, match=r"has no data_batch_1\.bin"):
        read_cifar10(tmp_path)


def test_what_is_too_large_to_be_cifar_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "LARGEST", 1000)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("data_batch_1.bin")
        member.size = 10**6
        archive.addfile(member, io.BytesIO(bytes(10**6)))
    with pytest.raises(UsageError, match="too large to be CIFAR-10"):
        read_cifar10(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(1001))
    with pytest.raises(UsageError, match="too large to be of CIFAR-10"):
        read_cifar10(tmp_path)
