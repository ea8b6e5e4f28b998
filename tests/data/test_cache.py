"""Decoded images on disk: the same as in memory, made once, whole or not at all."""

import errno
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acn_lightning.data import ImageData, binarise, cache, storage
from acn_lightning.data.cache import locked
from acn_lightning.data.sources import folder as folder_source
from acn_lightning.data.sources.arrays import ArraysSource, as_given
from acn_lightning.data.storage import Storage
from acn_lightning.utils import memory, progress
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK

PIXELS = (np.arange(60 * 6 * 5) % 251).astype(np.uint8).reshape(60, 6, 5)


def draw(root, splits=("",)):
    """A folder of 60 images in three classes, in each split."""
    for split in splits:
        for row, image in enumerate(PIXELS):
            place = root / split / f"class {row % 3}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image + (split == "test")).save(place / f"{row:02}.png")
    return root


@pytest.fixture
def photos(tmp_path):
    return draw(tmp_path / "photos")


def read(root, how="disk", where="cache", **options):
    options = {"binarisation": "none", "validation": 0.1} | options
    data = ImageData(source="folder", root=str(root), cache=how, cache_folder=where, **options)
    data.setup()
    return data


def entries(where="cache"):
    return sorted(path for path in Path(where).iterdir() if path.is_dir())


@pytest.mark.parametrize("how", ["auto", "disk"])
def test_a_link_that_leads_nowhere_is_a_file_that_cannot_be_read(how, photos):
    (photos / "class 0/link.png").symlink_to(photos.parent / "nowhere.png")
    with pytest.raises(UsageError, match=r"^data\.root: .*link\.png .*data\.unreadable=skip"):
        read(photos, how)
    data = read(photos, how, unreadable="skip")
    assert len(data.train_set) + len(data.validation_set) + len(data.test_set) == 60
    assert "1 that cannot be read: " in data.reader.report
    known = entries() if how == "disk" else []
    (photos.parent / "nowhere.png").write_bytes((photos / "class 0/00.png").read_bytes())
    data = read(photos, how, unreadable="skip")
    assert len(data.train_set) + len(data.validation_set) + len(data.test_set) == 61
    assert how == "auto" or len(entries()) == len(known) + 1 == 2


def is_mapped(images):
    """Whether images lie in a file that this process maps, of whatever name."""
    start = images.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, inode, *_ = line.split()
        low, high = (int(end, 16) for end in span.split("-"))
        if low <= start < high:
            return inode != "0"
    return False


@pytest.mark.parametrize("splits", [("",), ("train", "test")])
@pytest.mark.parametrize("how", ["none", "static", "threshold", "dynamic"])
@pytest.mark.parametrize("subset", [None, 30])
def test_the_same_images_as_in_memory(splits, how, subset, tmp_path):
    root = draw(tmp_path / "photos", splits)
    memory = read(root, "memory", binarisation=how, subset=subset)
    assert not Path("cache").exists()
    for _ in range(2):  # made, then found
        disk = read(root, binarisation=how, subset=subset)
        assert disk.fingerprint == memory.fingerprint
        assert disk.stored_names == memory.stored_names
        assert disk.binary == memory.binary
        assert disk.reader.report.startswith(memory.reader.report)
        for name in ("train_set", "fixed_set", "validation_set", "test_set"):
            one, other = getattr(disk, name), getattr(memory, name)
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.rows, other.rows)
            assert torch.equal(one.labels, other.labels)
            assert is_mapped(one.images)
            assert not is_mapped(other.images)
        batches = zip(disk.train_dataloader(), memory.train_dataloader(), strict=True)
        assert all(torch.equal(a.image, b.image) for a, b in batches)
    assert len(entries()) == 1


def test_images_are_decoded_once(photos, monkeypatch):
    read(photos)
    monkeypatch.setattr(folder_source, "read_files", None)
    read(photos)  # finds them
    with pytest.raises(TypeError):
        read(photos, image_size=4)
    os.utime(photos / "class 0/00.png", (1, 1))
    with pytest.raises(TypeError):
        read(photos)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 4},
        {"channels": 3},
        {"background": "black"},
        {"max_pixels": 1000},
        {"unreadable": "skip"},
    ],
)
def test_another_form_is_another_entry(change, photos):
    before = read(photos)
    after = read(photos, **change)
    assert len(entries()) == 2
    assert (after.fingerprint != before.fingerprint) == (
        set(change) & {"image_size", "channels"} != set()
    )


def test_a_changed_folder_is_read_again(photos):
    before = read(photos)
    Image.fromarray(PIXELS[7]).save(photos / "class 0/99.png")
    assert len(read(photos).labels) == len(before.labels) + 1
    assert len(entries()) == 2


def test_files_that_cannot_be_read_are_left_out_alike(photos):
    for name in ("class 1/01.png", "class 2/59.png"):
        (photos / name).write_bytes(b"nothing")
    memory = read(photos, "memory", unreadable="skip")
    for _ in range(2):
        disk = read(photos, unreadable="skip")
        assert disk.fingerprint == memory.fingerprint
        assert disk.stored_names == memory.stored_names
        assert "2 that cannot be read" in disk.reader.report
    with pytest.raises(UsageError, match=r"01\.png"):
        read(photos, where="other")
    assert entries("other") == []  # nothing is left


def spoil_size(entry):
    with next(entry.glob("*.u8")).open("ab") as file:
        file.truncate(100)


def spoil_content(entry):
    path = next(entry.glob("*.u8"))
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_size,
        spoil_content,
        lambda entry: next(entry.glob("*.u8")).unlink(),
        lambda entry: (entry / "about.json").unlink(),
        lambda entry: (entry / "about.json").write_text("{"),
        lambda entry: (entry / "about.json").write_text("[]"),
        lambda entry: (entry / "about.json").write_text("{}"),
        lambda entry: (entry / "about.json").write_bytes(b"\xff\x00"),
        lambda entry: (entry / "about.json").write_text(
            (entry / "about.json").read_text().replace('"labels": [0, ', '"labels": [')
        ),
        lambda entry: (shutil.rmtree(entry), entry.write_text("a file")),
        lambda entry: (shutil.rmtree(entry), entry.symlink_to("nowhere")),
        lambda entry: (entry / "about.json").write_text(
            (entry / "about.json").read_text().replace('"shape": [', '"shape": [9, ')
        ),
    ],
)
def test_a_damaged_entry_is_made_again(spoil, photos):
    before = read(photos)
    kept = before.fixed_set.images.clone()
    fingerprint = before.fingerprint
    del before
    (entry,) = entries()
    spoil(entry)
    again = read(photos)
    assert entries() == [entry]
    assert again.fingerprint == fingerprint
    assert torch.equal(again.fixed_set.images, kept)


def test_a_killed_process_leaves_no_entry(photos, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "describe", killed)
    with pytest.raises(KeyboardInterrupt):
        read(photos)
    assert [path.name for path in Path("cache").iterdir() if path.suffix != ".lock"] == []


def test_auto_goes_by_the_size_of_decoded_images(photos, monkeypatch):
    assert not is_mapped(read(photos, "auto").fixed_set.images)
    assert not Path("cache").exists()
    size = 3 * 60 * 30  # at most: colours are not known before the files are looked at
    monkeypatch.setattr(memory, "total_memory", lambda: 4 * size)
    assert not is_mapped(read(photos, "auto").fixed_set.images)
    monkeypatch.setattr(memory, "total_memory", lambda: 4 * size - 1)
    assert is_mapped(read(photos, "auto").fixed_set.images)


def test_auto_counts_the_processes_of_this_host(photos, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    size = 3 * 60 * 30
    monkeypatch.setattr(memory, "total_memory", lambda: 8 * 4 * size)
    assert not is_mapped(read(photos, "auto").fixed_set.images)
    monkeypatch.setattr(memory, "total_memory", lambda: 8 * 4 * size - 1)
    assert is_mapped(read(photos, "auto").fixed_set.images)


def test_what_cannot_be_written_is_named_before_anything_is_decoded(photos, monkeypatch):
    monkeypatch.setattr(folder_source, "read_files", None)
    Path("file").write_text("")
    with pytest.raises(UsageError, match=r"data\.cache_folder: cannot write file"):
        read(photos, where="file")
    with pytest.raises(UsageError, match=r"data\.cache_folder: cannot write file/inside"):
        read(photos, where="file/inside")
    with pytest.raises(UsageError, match=r"data\.cache_folder: s3://bucket is an address"):
        read(photos, where="s3://bucket")
    monkeypatch.setattr(cache.os, "access", lambda *_: False)
    with pytest.raises(UsageError, match=r"data\.cache_folder: cannot write locked"):
        read(photos, where="locked")


def no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("way", ["free", "reserve"])
def test_too_little_room_is_named_before_anything_is_decoded(photos, monkeypatch, way):
    if way == "free":
        monkeypatch.setattr(
            storage.shutil, "disk_usage", lambda _: storage.shutil._ntuple_diskusage(10, 10, 0)
        )
    else:
        monkeypatch.setattr(storage.os, "posix_fallocate", no_room)
    decoded = []
    monkeypatch.setattr("acn_lightning.data.files.copy_rows", decoded.append)
    with pytest.raises(UsageError, match=r"data\.cache_folder: 60 images .* GiB free") as error:
        read(photos)
    assert "\n" not in str(error.value)
    assert decoded == []
    assert entries() == []


@pytest.mark.parametrize("how", ["tape", "Disk", ""])
def test_a_cache_of_another_kind(how, acn):
    status, _, err = acn("fit", "digits", f"data.cache={how}")
    assert (status, err.count("\n")) == (2, 1)
    assert "auto, memory, disk" in err


def test_sources_that_read_arrays_whole(acn):
    status, _, err = acn("fit", "digits", "data.cache=disk")
    assert status == 2
    assert "data.cache: disk is for sources that decode images one at a time" in err
    assert not Path("runs").exists()


@pytest.mark.parametrize("kind", ["pictures", "arrays", "mapped"])
def test_images_from_python(kind):
    images = PIXELS
    if kind == "pictures":
        images = list(map(Image.fromarray, PIXELS))
    elif kind == "mapped":
        np.save("images.npy", PIXELS)
        images = np.load("images.npy", mmap_mode="r")
    found = {}
    for how in ("memory", "disk"):
        source = ArraysSource(*as_given(images, None, None))
        data = ImageData(source=source, binarisation="none", cache=how, cache_folder="cache")
        data.setup()
        found[how] = data.fingerprint
        assert is_mapped(data.fixed_set.images) == (how == "disk")
        assert is_mapped(data.test_set.images) == (how == "disk")
    assert found["memory"] == found["disk"]
    assert list(Path("cache").iterdir()) == []  # the files have no names
    assert (np.asarray(PIXELS) == np.array(images if kind == "mapped" else PIXELS)).all()


def test_a_mapped_array_with_a_test_split_stays_where_it_is():
    np.save("images.npy", PIXELS)
    images = np.load("images.npy", mmap_mode="r")
    source = ArraysSource(*as_given(images, None, PIXELS[:8]))
    data = ImageData(source=source, binarisation="none")
    data.setup()
    assert data.fixed_set.images.data_ptr() == images.ctypes.data


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_several_processes_decode_once_or_share_what_the_first_has_decoded(
    photos, monkeypatch, locks
):
    def counted(*arguments, read_files=folder_source.read_files):
        said.put("decoded")
        if not locks:
            all_decode.wait(60)
        return read_files(*arguments)

    monkeypatch.setattr(folder_source, "read_files", counted)
    if not locks:  # of a file system that has none
        monkeypatch.setattr(cache, "acquire", lambda lock: None)
    forked = multiprocessing.get_context("fork")
    said, all_decode = forked.Queue(), forked.Barrier(3)

    def one_of_them():
        said.put(read(photos).fingerprint)

    started = [forked.Process(target=one_of_them, daemon=True) for _ in range(3)]
    for one in started:
        one.start()
    decoded = 1 if locks else 3
    found = sorted(said.get(timeout=20) for _ in range(3 + decoded))
    for one in started:
        one.join()
    assert found.count("decoded") == decoded
    assert len(set(found)) == 2
    assert len(entries()) == 1
    assert sorted(path.suffix for path in Path("cache").iterdir() if path.is_file()) in (
        [], [".lock"],
    )  # fmt: skip


def test_a_run_and_its_resumption_are_those_in_memory(photos, acn):
    def fit(how, run, epochs, *more):
        words = (
            "folder", *QUICK, f"data.root={photos}", "data.image_size=8", f"run={run}",
            f"data.cache={how}", "data.cache_folder=cache", f"trainer.max_epochs={epochs}",
            "trainer.accelerator=cpu", "resume=auto", "pictures.every_n_epochs=0",
        )  # fmt: skip
        status, out, err = acn("fit", *words, *more)
        assert status == 0, err
        path = f"runs/folder/{run}/checkpoints/last.ckpt"
        content = torch.load(path, weights_only=True)
        return out, content["code_bank"]["codes"]

    _, whole = fit("memory", "whole", 2)
    out, _ = fit("disk", "parts", 1)
    assert "Decoded images are in cache/folder-" in out
    _, codes = fit("memory", "parts", 2)  # where images are kept may change
    assert torch.equal(codes, whole)


# ---------------------------------------------------------------- parts


def test_dividing_in_place_equals_indexing(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for where in (None, tmp_path):
        for size in (3, 4096, 10_000):
            rows = torch.randperm(size, generator=generator)
            first, last = rows[size // 3 :].sort().values, rows[: size // 3].sort().values
            room = Storage(where)
            images = room.empty((size, 1, 2, 1))
            images[:] = torch.randint(0, 256, images.shape, generator=generator)
            expected = images[first].clone(), images[last].clone()
            parts = room.divide(images, first, last)
            assert all(map(torch.equal, parts, expected))
            assert parts[0].data_ptr() == images.data_ptr()


def test_binarising_gives_the_same_draw_wherever_it_lies(tmp_path):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5000, 1, 3, 3), np.uint8))
    generator = torch.Generator().manual_seed(7)
    naive = torch.cat(
        [torch.bernoulli(some / 255, generator=generator) for some in images.split(4096)]
    )
    for room in (Storage(), Storage(tmp_path)):
        found = binarise(images, "static", 7, room.empty)
        assert torch.equal(found, (naive * 255).byte())
        assert torch.equal(
            binarise(images, "threshold", 7, room.empty), (images > 127).byte() * 255
        )
    assert binarise(images, "none", 7) is images


def test_a_lock_that_cannot_be_taken_is_named(photos):
    read(photos)
    (entry,) = entries()
    shutil.rmtree(entry)
    lock = entry.with_name(f"{entry.name}.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()
    with pytest.raises(UsageError, match=r"data.cache_folder: cannot lock .*\.lock"):
        read(photos)


def test_who_is_waited_for_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "QUICK", 0.05)
    monkeypatch.setattr(cache, "acquire", lambda lock: time.sleep(0.3))
    path = tmp_path / "photos.lock"
    with locked(path):
        pass
    assert f"holds {path} ..." in capsys.readouterr().err


def test_what_a_link_in_the_place_of_an_entry_leads_to_stays(photos, tmp_path):
    read(photos)
    (entry,) = entries()
    shutil.rmtree(entry)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("mine")
    entry.symlink_to(other)
    read(photos)
    assert (other / "mine").read_text() == "mine"
    assert not entry.is_symlink()
