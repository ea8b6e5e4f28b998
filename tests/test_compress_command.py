"""`acn compress` and `acn decompress`, as typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acn_lightning.data.unchanged import list_files, read_unchanged
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK


@pytest.fixture
def compress(acn, checkpoint):
    """Compresses images of the fixture's kind: `status, out, err = compress("photos", ...)`."""
    return lambda *words: acn("compress", checkpoint, *words)


def pixels(path):
    return np.asarray(Image.open(path))


def photos(trained):
    return trained / "photos"


def refused(result, *words):
    status, _out, err = result
    assert status == 2, err
    for word in words:
        assert word in err
    assert len(err.strip().splitlines()) == 1
    assert not list(Path().rglob("*.acn"))
    assert not list(Path().rglob("*.partial"))


def test_a_folder_comes_back_with_its_names(trained, compress, acn, checkpoint):
    status, out, err = compress(photos(trained), "out=mine/photos.acn")
    assert status == 0, err
    for word in (
        "150 images of 1 x 12 x 12, order=keep, 1 block", "payload", "the model's bound",
        "xz, solid", "PNG, one file each", "WebP lossless, solid", "the files themselves",
        "is not counted", "all images came back", "mine/photos.acn",
    ):  # fmt: skip
        assert word in out
    status, out, err = acn("decompress", "mine/photos.acn", checkpoint, "out=back")
    assert (status, out) == (0, "150 images in back\n"), err
    files = sorted(path.relative_to(photos(trained)) for path in photos(trained).rglob("*.png"))
    assert sorted(path.relative_to("back") for path in Path("back").rglob("*.png")) == files
    for file in files:
        assert (pixels(photos(trained) / file) == pixels("back" / file)).all()


@pytest.mark.parametrize("order", ["free", "tour"])
def test_a_set_comes_back_as_a_set(trained, compress, acn, checkpoint, order):
    files = sorted(photos(trained).rglob("*.png"))[40:48]
    status, out, err = compress(*files, f"order={order}", "compare=false")
    assert status == 0, err
    assert "their order is not kept" in out
    assert "bound" not in out
    status, _, err = acn("decompress", "images.acn", checkpoint)
    assert status == 0, err
    sent, back = (
        sorted(pixels(path).tobytes() for path in paths)
        for paths in (files, Path("images").iterdir())
    )
    assert sent == back
    assert sorted(path.name for path in Path("images").iterdir())[-1] == "7.png"


def test_some_images_of_several_files(trained, compress, acn, checkpoint):
    files = sorted(photos(trained).rglob("*.png"))[5:12]
    status, _, err = compress(*files, "block=3", "compare=false")
    assert status == 0, err
    status, out, err = acn("decompress", "images.acn", checkpoint, "images=6,0,2-3")
    assert (status, out) == (0, "4 images in images\n"), err
    for number in (6, 0, 2, 3):
        assert (pixels(files[number]) == pixels(Path("images") / files[number].name)).all()
    status, out, err = acn("decompress", "images.acn", checkpoint, "out=plain", "names=false")
    assert (status, out) == (0, "7 images in plain\n"), err
    assert sorted(path.name for path in Path("plain").iterdir()) == [f"{n}.png" for n in range(7)]
    for word in ("7", "x", "3-2", "-1", "1,,2", "0-", "1.5", "²"):
        status, _, err = acn("decompress", "images.acn", checkpoint, "out=more", f"images={word}")
        assert status == 2
        assert err.startswith("acn: images: '")
        assert not Path("more").exists()


def test_arrays_and_an_experiment(acn, tmp_path):
    words = [*QUICK, "trainer.max_epochs=1", "run=r", "data.binarisation=static"]
    status, _, err = acn("fit", "digits", *words, "model.likelihood.kind=bernoulli")
    assert status == 0, err
    best = "runs/digits/r/checkpoints/best.ckpt"
    status, out, err = acn("compress", best, "digits", "data.binarisation=static", "compare=false")
    assert status == 0, err
    assert "359 images of 1 x 8 x 8" in out
    images = np.random.default_rng(0).integers(0, 2, (9, 8, 8)).astype(np.uint8) * 255
    np.savez("nine.npz", images)
    status, out, err = acn("compress", best, "nine.npz", "out=nine.acn", "compare=false")
    assert status == 0, err
    assert "9 images" in out
    assert acn("decompress", "nine.acn", best, "out=nine")[0] == 0
    assert all((pixels(f"nine/{row}.png") == image).all() for row, image in enumerate(images))
    for name, array, word in (
        ("grey", images // 2, "it has grey pixels"),
        ("float", images / 255, "are float64 (9, 8, 8)"),
        ("size", images[:, :7], "(9, 7, 8)"), ("none", images[:0], "(0, 8, 8)"),
    ):  # fmt: skip
        np.savez(f"{name}.npz", images=array)
        with pytest.raises(UsageError, match=re.escape(word) + ".*changes nothing"):
            read_unchanged([f"{name}.npz"], (1, 8, 8), binary=True)
    status, _, err = acn("compress", best, "nine.npz", "out=x.acn", "names=true")
    assert status == 2
    assert "names: these images have none" in err
    np.savez("two.npz", a=images, b=images)
    with pytest.raises(UsageError, match="has no array 'images', only a, b"):
        read_unchanged(["two.npz"], (1, 8, 8), binary=True)
    status, _, err = acn("compress", best, "digits", "out=x.acn")  # grey ones
    assert status == 2
    assert "digits: it has grey pixels" in err
    status, _, err = acn("compress", best, "nine.npz", "data.seed=1", "out=x.acn")
    assert status == 2
    assert "only an experiment has keys under data" in err
    assert not Path("x.acn").exists()


def odd_files(folder):
    """Images that a model of 12 x 12 in grey would have to change."""
    grey = Image.new("L", (12, 12), 7)
    palette = grey.convert("P")
    turned = Image.Exif()
    turned[0x0112] = 6
    makers = {
        "colour.png": (Image.new("RGB", (12, 12)), {}, "its pixels are RGB"),
        "alpha.png": (Image.new("LA", (12, 12)), {}, "its pixels are LA"),
        "deep.png": (Image.fromarray(np.zeros((12, 12), np.uint16)), {}, "its pixels are I;16"),
        "palette.png": (palette, {}, "its pixels are P"),
        "clear.png": (grey, {"transparency": 7}, "it has a transparent colour"),
        "wide.png": (Image.new("L", (13, 12)), {}, "it is 13 x 12"),
        "turned.jpg": (grey, {"exif": turned}, "it is to be turned when shown"),
        "moving.png": (grey, {"save_all": True, "append_images": [Image.new("L", (12, 12), 9)]},
                       "it has 2 frames"),
    }  # fmt: skip
    for name, (image, options, words) in makers.items():
        image.save(folder / name, **options)
        yield name, words
    pgm = b"P5 12 12 100 " + bytes(144)  # white is 100, so Pillow gives other numbers
    (folder / "scaled.pgm").write_bytes(pgm)
    yield "scaled.pgm", "more than 8 bits a channel, or another white"
    os.mkfifo(folder / "pipe.png")
    yield "pipe.png", "pipe.png"
    (folder / "text.png").write_text("no image")
    yield "text.png", "cannot be read as an image"


def test_images_that_would_be_changed_are_refused_by_name(compress, tmp_path):
    for name, words in odd_files(tmp_path):
        with pytest.raises(UsageError, match=re.escape(words)) as error:
            read_unchanged([name], (1, 12, 12), binary=False)
        assert name in str(error.value)
    refused(compress("colour.png"), "colour.png", "its pixels are RGB")


def test_a_folder_with_something_else_in_it_is_refused(trained, compress):
    Path("mixed").mkdir()
    Image.new("L", (12, 12)).save("mixed/a.png")
    Path("mixed/.hidden").touch()
    assert compress("mixed", "compare=false", "out=one.acn")[0] == 0
    Path("one.acn").unlink()
    Path("mixed/notes.txt").touch()
    refused(compress("mixed"), "mixed/notes.txt, which is not one")
    Path("linked").mkdir()
    Path("linked/more").symlink_to("../mixed")
    Image.new("L", (12, 12)).save("linked/a.png")
    refused(compress("linked"), "linked/more, which is not one")
    Path("empty").mkdir()
    refused(compress("empty"), "this one has none")
    refused(compress("nothing.png"), "there is no image, folder or experiment nothing.png")
    with pytest.raises(UsageError, match=r"there is no image nothing\.png"):
        list_files(["mixed/a.png", "nothing.png"])
    with pytest.raises(UsageError, match=r"a\.png: two images have this name"):
        list_files(["mixed/a.png", "mixed/a.png"])


def test_a_folder_that_cannot_be_read_is_not_left_out(locked):
    for name in ("a", "b"):
        Path("mine", name).mkdir(parents=True)
        Path("mine", name, "1.png").touch()
    assert list(list_files(["mine"])) == ["a/1.png", "b/1.png"]
    locked(Path("mine/b"))
    with pytest.raises(PermissionError, match="mine/b"):
        list_files(["mine"])


def test_a_jpeg_is_compressed_as_pixels_and_says_so(compress, acn, checkpoint):
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).save("a.jpg")
    status, out, err = compress("a.jpg", "compare=false")
    assert status == 0, err
    assert "JPEG files among the images: 1." in out
    assert acn("decompress", "images.acn", checkpoint, "out=back")[0] == 0
    assert (pixels("back/a.jpg.png") == pixels("a.jpg")).all()


def test_what_exists_is_not_replaced(trained, compress, acn, checkpoint):
    files = sorted(photos(trained).rglob("*.png"))[:3]
    Path("images.acn").write_text("mine")
    status, _, err = compress(*files)
    assert status == 2
    assert "out: images.acn already exists" in err
    assert Path("images.acn").read_text() == "mine"
    assert compress(*files, "out=x.acn", "compare=false")[0] == 0
    Path("images").mkdir()
    status, _, err = acn("decompress", "x.acn", checkpoint)
    assert status == 2
    assert "out: images already exists" in err
    assert not list(Path("images").iterdir())


def test_wrong_files_to_decompress(trained, compress, acn, checkpoint):
    status, _, err = acn("decompress", "none.acn", checkpoint)
    assert status == 2
    assert "there is no file none.acn" in err
    status, _, err = acn("decompress", checkpoint, checkpoint)
    assert status == 2
    assert "is not a file that acn compress wrote" in err
    files = sorted(photos(trained).rglob("*.png"))[:3]
    assert compress(*files, "compare=false")[0] == 0
    content = Path("images.acn").read_bytes()
    for name, changed, words in (
        ("newer", content[:8] + b"\3\0" + content[10:], "has version 3 of the format"),
        ("short", content[:-1], "is truncated"),
        ("wrong", content[:-40] + bytes(8) + content[-32:], "is damaged"),
    ):
        Path(name).write_bytes(changed)
        status, _, err = acn("decompress", name, checkpoint)
        assert status == 2
        assert words in err
        assert not Path("images").exists()


OTHER = {
    "OMP_NUM_THREADS": "2",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}


def test_a_file_from_one_environment_is_read_in_another(trained, checkpoint, compress):
    """Other instruction sets and another number of threads."""
    files = sorted(photos(trained).rglob("*.png"))[40:70]
    status, _, err = compress(*files, "order=free", "compare=false")
    assert status == 0, err
    words = ["decompress", "images.acn", str(checkpoint), "out=there"]
    command = [sys.executable, "-m", "acn_lightning", *words]
    own = os.environ | OTHER | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    sent = sorted(pixels(path).tobytes() for path in files)
    assert sorted(pixels(path).tobytes() for path in Path("there").iterdir()) == sent
