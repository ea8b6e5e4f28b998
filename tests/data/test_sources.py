"""Every source read right, every wrong one refused in a line that names it."""

import gzip
import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from acn_lightning.data.sources.digits import read_digits
from acn_lightning.data.sources.folder import FolderSource
from acn_lightning.data.sources.idx import read_idx
from acn_lightning.data.sources.npz import read_npz
from acn_lightning.data.subsets import held_out_rows
from acn_lightning.utils import memory
from acn_lightning.utils.errors import UsageError
from tests.conftest import write_idx


def test_held_out_rows_divide_all_rows_the_same_way_always():
    kept, held_out = held_out_rows(100, 20)
    assert len(held_out) == 20
    assert sorted(torch.cat([kept, held_out]).tolist()) == list(range(100))
    assert torch.equal(held_out, held_out_rows(100, 20)[1])


def test_digits_are_all_there_and_divided():
    source = read_digits()
    assert source.train.images.shape == (1438, 1, 8, 8)
    assert source.test.images.shape == (359, 1, 8, 8)
    assert source.train.images.max() == 255
    assert source.classes == tuple("0123456789")
    assert set(source.test.labels.tolist()) == set(range(10))


def test_digits_are_those_that_scikit_learn_returns():
    given, (rows, held_out) = load_digits(), held_out_rows(1797, 359)
    for part, own in zip(read_digits()[:2], (rows, held_out), strict=True):
        assert part.labels.tolist() == given.target[own].tolist()
        grey = np.round(given.images[own] * (255 / 16))
        assert (part.images[:, 0].numpy() == grey).all()


# ---------------------------------------------------------------- IDX


def test_idx_plain_and_gzipped(idx_folder):
    source = read_idx(idx_folder)
    assert source.train.images.shape == (60, 1, 6, 5)
    expected = np.random.default_rng(0).integers(0, 256, (60, 6, 5))
    assert (source.train.images[:, 0].numpy() == expected).all()
    assert source.test.labels.tolist() == [i % 4 for i in range(20)]
    assert source.classes == ("0", "1", "2", "3")


def spoil(folder, name, change):
    path = next(folder.glob(f"{name}*"))
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images", lambda content: content[:-40], "truncated or damaged"),
        ("t10k-images", lambda content: content[:-1], "promises 600 bytes of data and has 599"),
        ("t10k-images", lambda content: content + b"x", "promises 600 bytes of data and has more"),
        ("t10k-images", lambda _: b"PK\x03\x04 not this", "not an IDX file of 3-dimensional bytes"),
        ("t10k-labels", lambda _: b"", "not an IDX file of 1-dimensional bytes"),
        ("train-labels", lambda content: gzip.compress(b"\x00\x00\x08"), "not an IDX file"),
        ("train-labels", lambda content: content[:12] + b"\xff\xff" + content[14:], "damaged"),
    ],
)
def test_damaged_idx_files_are_named(idx_folder, name, change, message):
    path = spoil(idx_folder, name, change)
    with pytest.raises(UsageError, match=message) as error:
        read_idx(idx_folder)
    assert str(path) in str(error.value)


def test_idx_counts_that_differ(idx_folder):
    write_idx(idx_folder / "train-labels-idx1-ubyte.gz", np.zeros(59))
    with pytest.raises(UsageError, match=r"60 images in .* 59 labels in"):
        read_idx(idx_folder)


def test_idx_sizes_that_differ(idx_folder):
    write_idx(idx_folder / "t10k-images-idx3-ubyte", np.zeros((20, 7, 5)), compress=False)
    with pytest.raises(UsageError, match="1 x 6 x 5 and test images 1 x 7 x 5"):
        read_idx(idx_folder)


def test_idx_missing(idx_folder, tmp_path):
    next(idx_folder.glob("t10k-labels*")).unlink()
    with pytest.raises(UsageError, match="has no t10k-labels-idx1-ubyte"):
        read_idx(idx_folder)
    with pytest.raises(UsageError, match="there is no folder"):
        read_idx(tmp_path / "nowhere")


# ---------------------------------------------------------------- folders


def read_folder(root, image_size=None, channels=None):
    return FolderSource(root=str(root), image_size=image_size, channels=channels).read()


def picture(path, size=(8, 6), mode="RGB", colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def photos(tmp_path):
    """30 pictures of two classes, told apart by colour."""
    for i in range(15):
        picture(tmp_path / "photos" / "cat" / f"{i:02}.png", colour=(200, i, 0))
        picture(tmp_path / "photos" / "dog" / f"{i:02}.JPG", colour=(0, i, 200))
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "photos" / ".cache").mkdir()
    return tmp_path / "photos"


def test_folder_with_classes(photos):
    source = read_folder(photos, None, None)
    assert source.classes == ("cat", "dog")
    assert source.train.images.shape == (27, 3, 6, 8)
    for part in source.train, source.test:
        red = part.images[:, 0].float().mean((1, 2)) > 100
        assert torch.equal(red, part.labels == 0)


def test_folder_resized_and_grey(photos):
    picture(photos / "cat" / "odd.png", size=(31, 9), mode="L", colour=77)
    source = read_folder(photos, (4, 4), 1)
    assert source.train.images.shape[1:] == (1, 4, 4)


def test_folder_of_grey_images_has_one_channel_and_a_mixed_one_three(tmp_path):
    for i in range(10):
        picture(tmp_path / "grey" / "a" / f"{i}.png", mode="L", colour=i)
    assert read_folder(tmp_path / "grey", None, None).train.images.shape[1:] == (1, 6, 8)
    picture(tmp_path / "grey" / "a" / "colour.png")
    assert read_folder(tmp_path / "grey", None, None).train.images.shape[1:] == (3, 6, 8)


def test_folder_without_classes(tmp_path):
    for i in range(20):
        picture(tmp_path / "flat" / f"{i}.png")
    source = read_folder(tmp_path / "flat", None, None)
    assert source.classes == ()
    assert set(source.train.labels.tolist()) == {-1}


def test_folder_with_its_own_test_part(photos, tmp_path):
    (tmp_path / "divided").mkdir()
    photos.rename(tmp_path / "divided" / "train")
    picture(tmp_path / "divided" / "test" / "dog" / "x.png", colour=(0, 0, 200))
    source = read_folder(tmp_path / "divided", None, None)
    assert len(source.train.images) == 30
    assert source.test.labels.tolist() == [1]


def test_unreadable_image_is_named(photos):
    (photos / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbut no more")
    with pytest.raises(UsageError, match=r"dog/broken\.png cannot be read"):
        read_folder(photos, None, None)
    whole = (photos / "cat" / "00.png").read_bytes()
    (photos / "dog" / "broken.png").write_bytes(whole[: len(whole) - 30])
    with pytest.raises(UsageError, match=r"dog/broken\.png cannot be read"):
        read_folder(photos, None, None)


def test_sizes_that_differ_are_named_and_the_way_out(photos):
    picture(photos / "dog" / "wide.png", size=(9, 6))
    with pytest.raises(
        UsageError, match=r"8 x 6, .*wide\.png is 9 x 6.*data\.image_size=\[64,64\]"
    ):
        read_folder(photos, None, None)


def test_an_automatic_size_is_the_images_own_if_they_share_a_small_one(photos):
    assert read_folder(photos, "auto").train.images.shape[1:] == (3, 6, 8)
    untouched = read_folder(photos).train.images
    assert torch.equal(read_folder(photos, "auto").train.images, untouched)
    picture(photos / "dog" / "wide.png", size=(9, 6))
    assert read_folder(photos, "auto").train.images.shape[1:] == (3, 32, 32)


@pytest.mark.parametrize(
    ("size", "found"),
    [((32, 32), (32, 32)), ((20, 32), (32, 20)), ((33, 8), (32, 32)), ((400, 300), (32, 32))],
)
def test_an_automatic_size_is_at_most_32(size, found, tmp_path):
    for i in range(10):
        picture(tmp_path / "many" / f"{i}.png", size=size)
    assert read_folder(tmp_path / "many", "auto", 1).train.images.shape[1:] == (1, *found)


def test_an_automatic_size_is_that_of_images_as_they_are_shown(tmp_path):
    """A camera held on its side says so in a tag, and writes the pixels as they lie."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned").mkdir()
    for i in range(10):
        Image.new("L", (20, 10)).save(tmp_path / "turned" / f"{i}.jpg", exif=exif)
    assert read_folder(tmp_path / "turned", "auto").train.images.shape[1:] == (1, 20, 10)
    picture(tmp_path / "turned" / "upright.png", size=(10, 20), mode="L")
    assert read_folder(tmp_path / "turned", "auto").train.images.shape[1:] == (1, 20, 10)


def test_sixteen_bits_a_pixel_keep_their_grey_values(tmp_path):
    ramp = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    for i in range(10):
        path = tmp_path / "deep" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(ramp).save(path)
    images = read_folder(tmp_path / "deep", None, None).train.images
    assert images.shape[1:] == (1, 6, 8)
    assert (images[0, 0].numpy() == ramp // 257).all()


def test_images_beside_sub_folders(photos):
    picture(photos / "lonely.png")
    with pytest.raises(
        UsageError, match=r"both images \(lonely\.png\) and folders of images \(cat\)"
    ):
        read_folder(photos, None, None)


def test_empty_folder(tmp_path):
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(UsageError, match="empty has no images"):
        read_folder(tmp_path / "empty", None, None)


# ---------------------------------------------------------------- .npz


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_npz(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 6, 3), dtype=np.uint8)
    path = save(tmp_path / "a.npz", images=images, labels=np.arange(40) % 3)
    source = read_npz(path)
    assert source.train.images.shape == (36, 3, 5, 6)
    kept, _ = held_out_rows(40, 4)
    assert (source.train.images.permute(0, 2, 3, 1).numpy() == images[kept.numpy()]).all()
    assert source.classes == ("0", "1", "2")
    grey = save(tmp_path / "b.npz", images=images[..., 0], test_images=images[:7, ..., 0])
    source = read_npz(grey)
    assert (len(source.train.images), len(source.test.images)) == (40, 7)
    assert source.classes == ()


ONES = np.ones((20, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": ONES}, "no array 'images', only image. Did you mean 'image'"),
        ({"images": ONES / 2}, "float64"),
        ({"images": ONES[..., None].repeat(2, 3)}, "2 channels"),
        ({"images": ONES, "labels": np.zeros(19, int)}, "20 images .* 19 labels"),
        ({"images": ONES, "labels": np.zeros(20)}, "not integers"),
        ({"images": ONES, "test_images": ONES[:, 1:]}, "1 x 4 x 4 and test_images 1 x 3 x 4"),
        ({"images": np.array([{}], object)}, "not a readable .npz"),
        ({"images": ONES[:0]}, "has no images"),
        ({"images": ONES, "labels": np.arange(20) * 2**40}, "Number the classes from 0"),
        ({"images": ONES, "labels": np.arange(20) - 2}, "not integers from 0, or -1 for none"),
        ({"images": ONES, "labels": np.full(20, 2**64 - 1, np.uint64)}, "not integers from 0"),
    ],
)
def test_wrong_npz(tmp_path, arrays, message):
    with pytest.raises(UsageError, match=message):
        read_npz(save(tmp_path / "wrong.npz", **arrays))


def test_npz_missing_or_damaged(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        read_npz(tmp_path / "none.npz")
    path = save(tmp_path / "cut.npz", images=ONES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UsageError, match=r"cut\.npz is not a readable"):
        read_npz(path)


def npz(path, members):
    """A zip file of these members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(array, shape):
    """An array's file, whose header promises another shape."""
    file = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False,
              "shape": shape}  # fmt: skip
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + array.tobytes()


def test_an_npz_that_promises_more_than_it_has(tmp_path):
    for shape, message in [((10**15, 1, 1), "needs 931,3.* GiB of memory"), ((21, 4, 4), "has 320"),
                           ((19, 4, 4), "promises 304 bytes and has 320")]:  # fmt: skip
        path = npz(tmp_path / "much.npz", {"images.npy": npy(ONES, shape)})
        with pytest.raises(UsageError, match=message):
            read_npz(path)


def test_other_files_in_an_npz_are_no_arrays(tmp_path):
    members = {"images.npy": npy(ONES, ONES.shape), "notes.txt": b"hello", "labels": b"x"}
    assert len(read_npz(npz(tmp_path / "a.npz", members)).train.images) == 18
    with pytest.raises(UsageError, match="no array 'images', only none"):
        read_npz(npz(tmp_path / "b.npz", {"images": b"not an array"}))


@pytest.mark.parametrize(("offset", "value"), [(6, 1), (8, 99)], ids=["encrypted", "unknown"])
def test_an_npz_that_python_cannot_unpack(tmp_path, offset, value):
    path = npz(tmp_path / "a.npz", {"images.npy": npy(ONES, ONES.shape)})
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    content[offset], content[central + offset + 2] = value, value
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.npz is not a readable \.npz file"):
        read_npz(path)


# ---------------------------------------------------------------- memory


def test_a_small_file_that_unpacks_to_much_is_not_unpacked(idx_folder, monkeypatch):
    path = idx_folder / "train-images-idx3-ubyte"
    for other in idx_folder.glob("train-images*"):
        other.unlink()
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 3)
    with gzip.open(path, "wb") as file:
        file.write(header + bytes(100_000_000))
    tracemalloc.start()
    with pytest.raises(UsageError, match="promises 18 bytes of data and has more"):
        read_idx(idx_folder)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    with gzip.open(path, "wb") as file:
        file.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**10, 2**10))
    with pytest.raises(UsageError, match=r"needs 2,097,152\.0 GiB of memory; this machine has"):
        read_idx(idx_folder)


def test_images_of_0_pixels(idx_folder):
    for other in idx_folder.glob("train-images*"):
        other.unlink()
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 0, 3)
    (idx_folder / "train-images-idx3-ubyte").write_bytes(header)
    with pytest.raises(UsageError, match="is empty"):
        read_idx(idx_folder)


@pytest.mark.parametrize(
    ("groups", "name", "file"),
    [
        ("0::/job/step/task", "job", "memory.max"),
        ("0::/job/step/task", "", "memory.max"),  # as in a container
        ("0::/../other", "", "memory.max"),
        ("5:cpu,cpuacct:/\n4:memory:/slurm/job\n0::/", "memory/slurm", "memory.limit_in_bytes"),
        ("", "memory", "memory.limit_in_bytes"),
    ],
)
def test_the_memory_of_a_container_or_a_job_counts(tmp_path, monkeypatch, groups, name, file):
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN", tmp_path / "own")
    whole = memory.total_memory()
    if groups:
        (tmp_path / "own").write_text(groups + "\n")
    limit = tmp_path / "groups" / name / file
    limit.parent.mkdir(parents=True)
    for text, expected in [("max\n", whole), ("1000\n", 1000)]:
        limit.write_text(text)
        assert memory.total_memory() == expected
    with pytest.raises(UsageError, match=r"x needs 0\.0 GiB of memory"):
        memory.check_memory("x", 1001)
