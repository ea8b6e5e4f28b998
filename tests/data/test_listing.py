"""Which images of a folder are read, of which class and split; everything else is told."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acn_lightning.data import ImageData
from acn_lightning.data.files import read_files
from acn_lightning.data.listing import list_folder, list_images
from acn_lightning.data.sources.folder import FolderSource
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK
from tests.nursery import python


def fill(root, *names, mode="L", size=(8, 6)):
    """Images of different grey values, or other files where the suffix says so."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg", ".webp", ".bmp", ".gif", ".tif", ".PNG"):
            Image.new(mode, size, number * 10).save(path)
        else:
            path.write_text("nothing")


def several(folder, count=10):
    return [f"{folder}/{number:02}.png" for number in range(count)]


def listed(root, part="train"):
    """(path, class) of each image, relative."""
    own = list_folder(root).of(part)
    return [
        (str(file.relative_to(root)), label)
        for file, label in zip(own.files, own.labels, strict=True)
    ]


# ---------------------------------------------------------------- classes


def test_folders_are_classes_and_deeper_ones_belong_to_them(tmp_path):
    fill(
        tmp_path, "cat/2.png", "cat/1.webp", "cat/deep/er/3.gif", "cat/a/0.tif", "dog/2020/a.bmp",
        "dog/.x/b.png", "empty/notes.txt",
    )  # fmt: skip
    assert listed(tmp_path) == [
        ("cat/1.webp", "cat"),
        ("cat/2.png", "cat"),
        ("cat/a/0.tif", "cat"),
        ("cat/deep/er/3.gif", "cat"),
        ("dog/2020/a.bmp", "dog"),
    ]
    assert list_folder(tmp_path).left_out == ["1 hidden", "1 .txt"]
    assert list_folder(tmp_path).test is None
    assert list_folder(tmp_path).of("test") == list_folder(tmp_path).train


def test_the_order_of_usual_layouts_is_that_of_sorted_paths(tmp_path):
    fill(tmp_path / "flat", "b.png", "B.PNG", "a b.png", "a.png", "10.png", "9.png")
    assert [name for name, _ in listed(tmp_path / "flat")] == sorted(os.listdir(tmp_path / "flat"))
    fill(tmp_path / "two", "b/1.png", "B/1.png", "a-b/1.png", "a/2.png", "a/10.png")
    files = list_folder(tmp_path / "two").train.files
    folders = sorted(path for path in (tmp_path / "two").iterdir())
    assert files == [path for folder in folders for path in sorted(folder.iterdir())]


def test_images_beside_folders_count_only_where_the_folders_hold_images(tmp_path):
    fill(tmp_path, "a.png", "b.png", "notes/a.txt", "runs/x/y.log")
    assert listed(tmp_path) == [("a.png", None), ("b.png", None)]
    fill(tmp_path, "later/deep/c.png")
    with pytest.raises(UsageError, match=r"both images \(a\.png\) and folders of images \(later\)"):
        list_folder(tmp_path)


def test_a_folder_in_a_folder_stands_for_it(tmp_path):
    fill(tmp_path, "photos/photos/cat/a.png", "photos/photos/dog/b.png", "photos/README.md",
         "__MACOSX/photos/._a.png", "._photos")  # fmt: skip
    names = [("photos/photos/cat/a.png", "cat"), ("photos/photos/dog/b.png", "dog")]
    assert listed(tmp_path) == names
    assert list_folder(tmp_path).left_out == ["1 hidden", "1 .md", "1 in __MACOSX"]
    one = tmp_path / "photos/photos"
    (one / "cat").rename(one / "train")
    (one / "dog").rename(one / "test")
    assert listed(tmp_path, "test") == [("photos/photos/test/b.png", None)]


def test_one_class_is_still_a_class(tmp_path):
    fill(tmp_path, "cat/a.png", "cat/b.png")
    assert listed(tmp_path) == [("cat/a.png", "cat"), ("cat/b.png", "cat")]


def test_queries_are_all_images_at_any_depth(tmp_path):
    fill(tmp_path, "a.png", "val/b.png", "cat/c.png", "cat/d/e.png", "cat/f.txt")
    (tmp_path / "cat/up").symlink_to("..")
    listing = list_images(tmp_path)
    names = [str(file.relative_to(tmp_path)) for file in listing.train.files]
    assert names == ["a.png", "cat/c.png", "cat/d/e.png", "val/b.png"]
    assert listing.left_out == ["1 .txt", "cat/up, which leads back"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty has no images \(.*\): there is no file in it\.$"):
        list_images(tmp_path / "empty")


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"), ("Train", "TEST"), ("Training", "Testing"), ("train", "val"),
        ("training", "valid"), ("TRAIN", "Validation"), ("train", "dev"), ("train", "eval"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("inner", ["", "cat/", "cat/deep/"])
def test_usual_names_are_splits_in_any_case(tmp_path, train, test, inner):
    fill(tmp_path, f"{train}/{inner}a.png", f"{test}/{inner}b.png")
    label = "cat" if inner else None
    assert listed(tmp_path) == [(f"{train}/{inner}a.png", label)]
    assert listed(tmp_path, "test") == [(f"{test}/{inner}b.png", label)]


def test_what_is_beside_splits_is_told(tmp_path):
    fill(tmp_path, "train/a.png", "test/b.png", "val/c.png", "val/d.png", "extra/x/e.png",
         "f.png", "g.csv", "docs/h.txt")  # fmt: skip
    assert [len(list_folder(tmp_path).of(part).files) for part in ("train", "test")] == [1, 1]
    assert list_folder(tmp_path).left_out == [
        "1 .csv",
        "1 .txt",
        "1 beside train",
        "1 in extra",
        "2 in val (validation images are held out of training: data.validation)",
    ]


def test_other_files_beside_splits_are_told(tmp_path):
    fill(tmp_path, "train/a.png", "test/b.png", "val/c.heic", "extra/d.heic", "extra/e.svg")
    assert sorted(list_folder(tmp_path).left_out) == ["1 .svg", "2 .heic"]


def test_names_of_splits_alone_are_classes(tmp_path):
    fill(tmp_path, "train/a.png", "boat/b.png")
    assert listed(tmp_path) == [("boat/b.png", "boat"), ("train/a.png", "train")]


def test_two_folders_for_one_split_are_refused(tmp_path):
    fill(tmp_path, "train/a.png", "Training/b.png", "test/b.png")
    with pytest.raises(UsageError, match="two folders for one split, Training and train"):
        list_folder(tmp_path)


def test_a_split_without_images_is_named(tmp_path):
    fill(tmp_path, "train/a.png", "test/a.heic")
    with pytest.raises(UsageError, match=r"test has no images .*\. It has 1 \.heic\."):
        list_folder(tmp_path)


# ---------------------------------------------------------------- what is left out


@pytest.mark.parametrize(
    "name", ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found",
             "#recycle", "__pycache__"]
)  # fmt: skip
def test_folders_of_the_system_are_no_classes(tmp_path, name):
    fill(tmp_path, "cat/a.png", f"cat/{name}/thumb.png", f"{name}/a.png", f"{name}/b/c.png")
    assert listed(tmp_path) == [("cat/a.png", "cat")]
    assert sorted(list_folder(tmp_path).left_out) == sorted([f"2 in {name}", f"1 in cat/{name}"])


def test_outputs_of_this_program_are_no_classes(tmp_path):
    fill(tmp_path, "a.png", "runs/folder/mine/images/x.png", "runs/folder/mine/checkpoints/y.ckpt")
    (tmp_path / "runs/folder/mine/config.yaml").write_text("experiment: folder\nseed: 0\n")
    assert listed(tmp_path) == [("a.png", None)]
    assert list_folder(tmp_path).left_out == ["3 in runs/folder/mine, written by acn"]
    fill(tmp_path / "other", "cat/a.png", "dog/b.png")
    (tmp_path / "other/cat/config.yaml").write_text("camera: mine\n")
    assert listed(tmp_path / "other") == [("cat/a.png", "cat"), ("dog/b.png", "dog")]


def test_the_current_folder_with_runs_inside(acn):
    fill(Path(), *several(".", 40))
    words = ["fit", "folder", *QUICK, "data.root=.", "data.image_size=8", "trainer.max_epochs=1",
             "pictures.every_n_epochs=0"]  # fmt: skip
    for _ in range(2):
        status, out, err = acn(*words)
        assert status == 0, err
        assert f"{Path().resolve().name}: 40 images, 8 x 6 pixels. Converted: 40 resized" in out
    assert re.search(r"Left out: \d+ in runs/folder/[^ ]+, written by acn\.", out)


def test_other_files_are_counted_by_suffix(tmp_path):
    fill(tmp_path, "cat/a.png", "cat/b.HEIC", "cat/c.heic", "d.svg", "cat/README", ".DS_Store")
    left_out = list_folder(tmp_path).left_out
    assert sorted(left_out) == ["1 .svg", "1 hidden", "1 without a suffix", "2 .heic"]
    fill(tmp_path, *(f"cat/e.{letter}" for letter in "abcdefg"))
    assert len(list_folder(tmp_path).left_out) == 7
    assert list_folder(tmp_path).left_out[-1] == "5 of other kinds"


def test_links_are_followed_once(tmp_path):
    fill(tmp_path, "elsewhere/a.png", "photos/cat/b.png", "photos/cat/in/c.png")
    (tmp_path / "photos/dog").symlink_to("../elsewhere")
    (tmp_path / "photos/cat/loop").symlink_to("../..")
    (tmp_path / "photos/cat/in/up").symlink_to("..")
    (tmp_path / "photos/self").symlink_to("self")
    (tmp_path / "photos/root").symlink_to(".")
    root = tmp_path / "photos"
    assert listed(root) == [("cat/b.png", "cat"), ("cat/in/c.png", "cat"), ("dog/a.png", "dog")]
    told = list_folder(root).left_out
    for name in ("cat/loop", "cat/in/up", "root"):
        assert f"{name}, which leads back" in told


def test_a_folder_that_leads_only_back_has_no_images(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a").symlink_to("../photos")
    with pytest.raises(UsageError, match="has no images"):
        list_folder(tmp_path / "photos")


# ---------------------------------------------------------------- the source and its report


def read(root, **options):
    source = FolderSource(root=str(root), **options)
    return source.read(), source.report


def test_the_report_of_a_messy_folder(tmp_path):
    root = tmp_path / "photos"
    fill(root, *several("cat", 6), *several("dog", 6), "cat/x.heic", "dog/y.heic", ".DS_Store",
         "__MACOSX/a.png")  # fmt: skip
    Image.new("RGBA", (20, 10)).save(root / "cat/clear.png")
    Image.new("L", (8, 6)).save(
        root / "dog/moving.gif", save_all=True, append_images=[Image.new("L", (8, 6), 99)]
    )
    Image.fromarray(np.full((6, 8), 4095, np.uint16)).save(root / "dog/deep.png")
    (root / "dog/bad\x1b.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"^data\.root: .*bad\\x1b\.png .*data\.unreadable=skip"):
        read(root, image_size=8)
    splits, report = read(root, image_size=8, unreadable="skip")
    assert report.partition(str(root))[0] == (
        "photos: 15 images in 2 classes, 8 x 6 to 20 x 10 pixels. Converted: 15 resized to 8 x 8; "
        "1 transparent, laid on white (data.background); 1 of several frames or pages, of which "
        "the first is taken; 1 of 16 bits, of which 12 are used (data.bits). Left out: 2 .heic; "
        "1 hidden; 1 in __MACOSX; 1 that cannot be read: "
    )
    assert report.isprintable()
    assert len(splits.train.images) + len(splits.test.images) == 15
    names = [*splits.train.names, *splits.test.names]
    assert not any("bad" in name for name in names)
    for part in splits.train, splits.test:
        for name, label in zip(part.names, part.labels.tolist(), strict=True):
            assert splits.classes[label] == Path(name).parent.name


def test_a_report_of_images_that_need_nothing_is_short(tmp_path):
    fill(tmp_path / "plain", *several("."))
    assert read(tmp_path / "plain")[1] == "plain: 10 images, 8 x 6 pixels."


def test_skipped_files_of_both_splits_and_of_a_whole_class(tmp_path):
    fill(tmp_path, *several("train/cat", 3), *several("test/cat", 3), "train/dog/a.png")
    for name in ("train/cat/01.png", "test/cat/00.png", "train/dog/a.png"):
        (tmp_path / name).write_bytes(b"no image")
    splits, report = read(tmp_path, unreadable="skip")
    assert splits.classes == ("cat",)
    assert [Path(name).name for name in splits.train.names] == ["00.png", "02.png"]
    assert [Path(name).name for name in splits.test.names] == ["01.png", "02.png"]
    assert splits.train.images[:, 0, 0, 0].tolist() == [0, 20]
    assert splits.test.images[:, 0, 0, 0].tolist() == [40, 50]
    assert splits.train.labels.tolist() == splits.test.labels.tolist() == [0, 0]
    assert "3 that cannot be read: " in report
    assert report.endswith("; all of class dog.")


def test_nothing_left_is_refused(tmp_path):
    fill(tmp_path, "train/a.png", "test/b.png")
    (tmp_path / "test/b.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="no image of the test split can be read"):
        read(tmp_path, unreadable="skip")
    (tmp_path / "train/a.png").write_bytes(b"no image")
    with pytest.raises(
        UsageError, match=r"^data\.root: none of the 2 images can be read: .*a\.png"
    ):
        read(tmp_path, unreadable="skip")
    with pytest.raises(UsageError, match=r"data\.unreadable: 'ignore' is not one of stop, skip"):
        read(tmp_path, unreadable="ignore")


def test_too_few_handles_stop_a_run_that_may_skip(tmp_path, monkeypatch):
    fill(tmp_path, *several("."))
    real, left = os.open, [25]

    def scarce(path, *rest):
        left[0] -= str(path).endswith(".png")
        if left[0] < 0:
            raise OSError(24, "Too many open files")
        return real(path, *rest)

    monkeypatch.setattr(os, "open", scarce)
    assert read(tmp_path, image_size=4, unreadable="skip")
    with pytest.raises(OSError, match=r"Too many open files: .*\.png"):
        read(tmp_path, image_size=4, unreadable="skip")


def test_no_image_is_skipped_for_want_of_file_handles(tmp_path):
    fill(tmp_path / "photos", *several("."))
    code = (
        "import resource, sys, torch, PIL.Image\n"
        "from acn_lightning.data.sources.folder import FolderSource\n"
        "PIL.Image.init()\n"
        "import os; held = [os.open('/dev/null', 0) for _ in range(3)]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 2,) * 2)\n"
        "os.open('/dev/null', 0)\n"
        "from acn_lightning.data.files import read_files\n"
        "from acn_lightning.data.pixels import Form\n"
        "from pathlib import Path\n"
        "files = [Path('photos') / f'{number:02}.png' for number in range(10)]\n"
        "try:\n"
        "    print(len(read_files(files, Form(), 'skip').rows))\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [python(), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert re.search(r"Too many open files: .*\.png", done.stdout), done.stderr


def test_names_that_are_not_utf_8_become_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/photos/caf\xe9"
    os.makedirs(folder)
    for number in range(10):
        Image.new("L", (8, 6)).save(open(folder + b"/%d\xff.png" % number, "wb"), "PNG")  # noqa: SIM115
    splits, report = read(tmp_path / "photos")
    assert splits.classes == ("caf\\udce9",)
    for text in (*splits.classes, *splits.train.names, *splits.test.names, report):
        text.encode()


def test_what_was_found_in_images_is_kept_for_others(tmp_path):
    fill(tmp_path / "plain", *several("."))
    for number in range(10):
        pixels = np.full((6, 8), 400 * number, np.uint16)
        path = tmp_path / "deep" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    for name, kept in (("plain", set()), ("deep", {"bits"})):
        data = ImageData(source="folder", root=str(tmp_path / name), validation=0)
        data.setup()
        assert data.state_dict().keys() - {"fingerprint", "names"} == kept
        data.load_state_dict(data.state_dict())
    assert data.state_dict()["bits"] == 12


def test_the_fingerprint_of_a_usual_folder_has_not_changed(tmp_path):
    """Checkpoints of earlier versions hold it."""
    root = tmp_path / "photos"
    for number in range(20):
        path = root / ("b", "a")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, columns = np.mgrid[:9, :7]
        Image.fromarray((rows * 20 + columns * 5 + number).astype(np.uint8)).save(path)
    data = ImageData(source="folder", root=str(root), image_size=6)
    data.setup()
    assert data.fingerprint == "18 images, 77e5dbe8d65b649a"


@pytest.mark.parametrize("unreadable", ["stop", "skip"])
def test_order_and_rows_follow_files_whatever_the_threads_do(tmp_path, unreadable):
    fill(tmp_path, *several(".", 25))
    listing = list_folder(tmp_path)
    from acn_lightning.data.pixels import Form

    images = read_files(listing.train.files, Form(), unreadable).images
    assert torch.equal(images[:, 0, 0, 0], torch.arange(25, dtype=torch.uint8) * 10)


@pytest.mark.parametrize(
    ("trained", "tested", "said"),
    [
        ("Cat", "cat", "cat (6), where training has Cat in other case or Unicode form."),
        (
            "cafe\u0301",
            "caf\u00e9",
            "caf\u00e9 (6), where training has cafe\u0301 in other case or Unicode form.",
        ),
        ("airplane", "airplaine", "airplaine (6), where training has airplane."),
        ("boat", "zebra", "zebra (6)."),
        ("cat", "cat", ""),
    ],
)
def test_classes_that_only_test_images_have_are_named(tmp_path, trained, tested, said):
    names = [*several(f"train/{trained}", 9), *several("train/dog", 9), *several("test/dog", 6)]
    fill(tmp_path / "photos", *names, *several(f"test/{tested}", 6))
    data = ImageData(source="folder", root=str(tmp_path / "photos"), cache="memory")
    data.setup()
    assert said in data.report
    assert ("6 test images of classes without a training image: " in data.report) == bool(said)
