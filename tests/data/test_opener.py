"""One door for image files: what is behind it opens, whatever else stands there is named."""

import errno
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from acn_lightning.data import pixels
from acn_lightning.data.files import read_files
from acn_lightning.data.opener import FORMATS, SUFFIXES, open_image
from acn_lightning.data.pixels import Form, glance, read_picture
from acn_lightning.utils.errors import InterruptionError, UnreadableError, UsageError
from acn_lightning.utils.memory import Room

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\n(boom) =\nshowpage\n%%EOF\n"


def opened(path, **options):
    """The size of an image that the door lets in."""
    with open_image(path, **options) as image:
        image.load()
        return image.size


def gradient(width=8, height=6):
    """Pixels that tell where they are, (H, W, 3)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 40, columns * 30, rows * 0 + 9], 2).astype(np.uint8)


def chunk(kind, content):
    """A chunk of a PNG file."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(*chunks, size=(8, 6), depth=8, colour=0):
    """A PNG file of black pixels, six rows of them, with chunks before the pixels."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    line = b"\0" * (1 + size[0] * depth // 8 * (3 if colour == 2 else 1))
    pixels = chunk(b"IDAT", zlib.compress(line * 6))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def exif(entries):
    """An EXIF block of (tag, type, count, four bytes)."""
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return b"Exif\0\0" + head + body + struct.pack("<I", 0)


TURN = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
INVALID = (0x0128, 2, 4, b"abc\0")  # the unit of resolution as text, which no writer can store
BEYOND = (0x010F, 2, 5000, struct.pack("<I", 10**6))  # a text outside the block


@pytest.mark.parametrize("name", sorted({"PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"}))
def test_each_format_is_read(tmp_path, name):
    assert name in FORMATS
    path = tmp_path / "a.any"
    Image.fromarray(gradient()).save(path, name)
    picture = read_picture(path, Form(channels=3))
    far = np.abs(picture.pixels.astype(int) - gradient()).mean()
    assert far < (40 if name in ("JPEG", "WEBP", "GIF") else 1e-9)
    assert picture.size == (8, 6)


def test_suffixes_are_those_of_the_formats():
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in SUFFIXES} == set(FORMATS)


def test_another_format_under_a_suffix_runs_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(EPS)
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("ran Ghostscript"))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("ran Ghostscript"))
    with pytest.raises(UnreadableError, match=r"a\.png cannot be read as an image \(damaged, or"):
        opened(path)


def damaged(folder):
    """Files whose decoders raise all sorts of errors, by name."""
    whole = png()
    Image.fromarray(gradient(99, 99)).save(folder / "whole.jpg")
    jpeg = (folder / "whole.jpg").read_bytes()
    Image.fromarray(gradient(99, 99)).save(folder / "whole.tif", compression="tiff_lzw")
    tiff = (folder / "whole.tif").read_bytes()
    Image.fromarray(gradient(99, 99)).save(folder / "whole.webp")
    return {
        "text bomb": png(chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2**21))),
        "international bomb": png(chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 2**21))),
        "short gAMA": png(chunk(b"gAMA", b"\0")),
        "short cHRM": png(chunk(b"cHRM", b"\0\0")),
        "short pHYs": png(chunk(b"pHYs", b"\0")),
        "short acTL": png(chunk(b"acTL", b"\0")),
        "short sRGB": png(chunk(b"sRGB", b"")),
        "short tRNS": png(chunk(b"tRNS", b"\0")),
        "short iCCP": png(chunk(b"iCCP", b"")),
        "no pixels": whole[:33],
        "cut": whole[:44],
        "cut jpeg": jpeg[: len(jpeg) // 2],
        "cut tiff": tiff[: len(tiff) // 2],
        "cut webp": (folder / "whole.webp").read_bytes()[:60],
        "empty": b"",
        "text": b"no image",
        "maxval": b"P5 8 6 99999 " + b"\0" * 96,
        "letters": b"P5 8 six 255 " + b"\0" * 48,
        "bmp": b"BM" + b"\xff" * 60,
        "gif": b"GIF89a\x08\0\x06\0\0\0\0,",
    }


def test_whatever_a_decoder_raises_names_the_file_and_can_be_skipped(tmp_path):
    for name, content in damaged(tmp_path).items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        whole = tmp_path / "whole.jpg"
        read = read_files([path, whole], Form(channels=3, image_size=(4, 4)), "skip")
        if name.startswith("short") and not read.failed:
            continue  # this version of Pillow reads it
        assert list(read.failed) == [path], name
        assert read.failed[path].startswith(str(path)), name
        assert "\n" not in read.failed[path]
        assert read.rows == [1]
        with pytest.raises(UnreadableError):
            read_files([path, whole], Form(channels=3))


def test_a_name_is_one_line_whatever_is_in_it(tmp_path):
    path = tmp_path / "a\n\x1b[2Jb.png"
    path.write_bytes(b"no image")
    with pytest.raises(UnreadableError, match=r"a\\n\\x1b\[2Jb\.png cannot be read") as error:
        opened(path)
    assert str(error.value).isprintable()


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    (tmp_path / "c.png").symlink_to("/dev/zero")
    (tmp_path / "d.png").symlink_to("gone")
    for name in "abc":
        with pytest.raises(UnreadableError, match=rf"{name}\.png .*: it is not a regular file"):
            opened(tmp_path / f"{name}.png")
    with pytest.raises(UnreadableError, match=r"d\.png cannot be read .*No such file"):
        opened(tmp_path / "d.png")


def test_a_pipe_that_replaces_a_file_meanwhile_does_not_block(tmp_path, monkeypatch):
    Image.new("L", (8, 6)).save(tmp_path / "file.png")
    usual, path = os.stat(tmp_path / "file.png"), tmp_path / "pipe.png"
    os.mkfifo(path)
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda one, **k: usual if one == path else real(one, **k))
    with pytest.raises(UnreadableError, match="cannot be read"):
        opened(path)


@pytest.mark.parametrize("code", ["EMFILE", "ENFILE", "EIO", "ENOMEM"])
@pytest.mark.parametrize("when", ["open", "read"])
def test_a_failing_machine_stops_also_where_files_may_be_skipped(tmp_path, monkeypatch, code, when):
    path = tmp_path / "a.png"
    Image.new("L", (8, 6)).save(path)
    number = getattr(errno, code)

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    if when == "open":
        monkeypatch.setattr(os, "open", fail)
    else:
        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load_prepare", fail)
    with pytest.raises(OSError, match=r"a\.png") as error:
        read_files([path], Form(), "skip")
    assert error.value.errno == number


def test_a_signal_is_not_taken_for_a_damaged_file(tmp_path):
    Image.new("L", (8, 6)).save(tmp_path / "a.png")
    with pytest.raises(InterruptionError), open_image(tmp_path / "a.png"):
        raise InterruptionError(None, 143)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(size=(13_000, 13_000)))
    (tmp_path / "b.png").write_bytes(png(size=(60_000, 60_000)))
    Image.new("L", (8, 6)).save(tmp_path / "c.png")
    monkeypatch.setattr(Image.core, "new", lambda *_: pytest.fail("decoded"))
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(
            UnreadableError,
            match=r"13,000 x 13,000 pixels; the limit is 89,478,485 \(data.max_pixels\)",
        ),
    ):
        opened(tmp_path / "a.png")
    with pytest.raises(UnreadableError, match=r"b\.png cannot be read"):
        opened(tmp_path / "b.png")
    with pytest.raises(UnreadableError, match="8 x 6 pixels; the limit is 47"):
        opened(tmp_path / "c.png", max_pixels=47)
    monkeypatch.undo()
    assert opened(tmp_path / "c.png", max_pixels=48) == (8, 6)


@pytest.mark.parametrize(("size", "most"), [(47, 1), (100, 2)])
@pytest.mark.parametrize("form", [Form(bits=16, channels=1), Form()], ids=["read", "look"])
def test_threads_decode_so_many_pixels_at_once(tmp_path, monkeypatch, form, size, most):
    files = [tmp_path / f"{row}.png" for row in range(80)]
    for path in files:
        Image.fromarray(np.full((6, 8), 999, np.uint16)).save(path)
    share, at_work, seen, values_of = Room(size), [], [], pixels.deep_values

    def deep_values(*arguments):
        at_work.append(1)
        time.sleep(0.002)
        seen.append(len(at_work))
        at_work.pop()
        return values_of(*arguments)

    monkeypatch.setattr(pixels, "room", lambda: share)
    monkeypatch.setattr(pixels, "deep_values", deep_values)
    read_files(files, form)
    assert max(seen) <= most
    assert share.left == size


def test_what_fails_leaves_its_room_to_others():
    share = Room(10)
    with pytest.raises(ZeroDivisionError), share.taken(99):
        _ = 1 / share.left
    assert share.left == 10


# ---------------------------------------------------------------- rotation


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_a_photo_is_turned_by_its_tag(tmp_path, suffix, tag):
    from PIL import ImageOps

    path = tmp_path / f"a.{suffix}"
    known = Image.Exif()
    known[0x0112] = tag
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(gradient()).save(path, exif=known, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    picture = read_picture(path, Form(channels=3))
    assert (picture.pixels == expected).all()
    assert picture.size == ((6, 8) if tag > 4 else (8, 6))
    assert glance(path, Form.of("auto")).size == expected.shape[:2]  # by its header alone


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_an_automatic_size_crops_no_tiff_that_is_turned(tmp_path, depth, compression):
    pixels = np.arange(48, dtype=depth).reshape(6, 8)
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).save(path, tiffinfo={0x0112: 6}, compression=compression)
    read = read_files([path], Form.of("auto", bits=8))
    assert (read.images[0, 0].numpy() == np.rot90(pixels, -1)).all()


@pytest.mark.parametrize("others", [[INVALID], [BEYOND], [INVALID, BEYOND]])
def test_other_tags_that_are_damaged_do_not_matter(tmp_path, others):
    path = tmp_path / "a.jpg"
    Image.fromarray(gradient()).save(path, exif=exif(sorted([TURN, *others])))
    assert read_picture(path, Form(channels=3)).pixels.shape == (8, 6, 3)


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0nonsense",
        b"Exif\0\0II*\0\x08\0",
        exif([TURN])[:12],
        exif([(0x0112, 2, 2, b"6\0\0\0")]),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_damaged_block_turns_nothing(tmp_path, suffix, block):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(gradient()).save(path, exif=block)
    assert read_picture(path, Form(channels=3)).pixels.shape == (6, 8, 3)


# ---------------------------------------------------------------- transparency


def line_art(mode):
    """A black bar on a transparent ground, 8 x 6: (image, options of saving)."""
    pixels = np.zeros((6, 8, 4), np.uint8)
    pixels[2:4, :, 3] = 255
    image = Image.fromarray(pixels)
    if mode == "P":
        return image.convert("RGBA").quantize(4, method=Image.Quantize.FASTOCTREE), {}
    if mode in ("L", "RGB", "1"):  # one transparent colour
        grey = Image.fromarray(np.where(pixels[..., 3] > 0, 0, 255).astype(np.uint8))
        return grey.convert(mode), {"transparency": (255,) * 3 if mode == "RGB" else 255}
    if mode == "I;16":
        deep = np.where(pixels[..., 3] > 0, 65535, 5).astype(np.uint16)
        return Image.fromarray(deep), {"transparency": 5}
    return image.convert(mode), {}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
@pytest.mark.parametrize(
    ("background", "behind"), [("white", 255), ("black", 0), ("rgb(51,51,51)", 51)]
)
def test_transparent_pixels_show_the_background(tmp_path, mode, background, behind):
    image, options = line_art(mode)
    image.save(tmp_path / "a.png", **options)
    for channels in (1, 3):
        form = Form(channels=channels, background=background)
        picture = read_picture(tmp_path / "a.png", form)
        assert (picture.pixels[2:4] == 0).all()
        assert (picture.pixels[:2] == behind).all()
        assert "transparent" in picture.changes


def test_half_transparent_is_half_way_and_16_bits_can_be_transparent(tmp_path):
    Image.new("RGBA", (8, 6), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png", Form(channels=1)).pixels == 127).all()
    image, options = line_art("I;16")
    image.save(tmp_path / "b.png", **options)
    pixels = read_picture(tmp_path / "b.png", Form(channels=1, background="black")).pixels
    assert (pixels[2:4] == 255).all()
    assert (pixels[:2] == 0).all()
    Image.new("RGBA", (8, 6), "red").save(tmp_path / "c.png")
    assert "transparent" not in read_picture(tmp_path / "c.png", Form(channels=3)).changes


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif"])
def test_transparency_of_other_formats(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    line_art("RGBA")[0].save(tmp_path / f"a.{suffix}", **options)
    pixels = read_picture(tmp_path / f"a.{suffix}", Form(channels=1)).pixels
    assert (pixels[2:4] == 0).all()
    assert (pixels[:2] == 255).all()


# ---------------------------------------------------------------- grey values of 16 bits


def deep(path, brightest, size=48):
    ramp = np.linspace(0, brightest, size).reshape(6, 8).astype(np.uint16)
    Image.fromarray(ramp).save(path)
    return ramp


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_brightest_of_all_images_tells_how_many_bits_are_used(tmp_path, bits, suffix):
    files = [tmp_path / f"{name}.{suffix}" for name in ("bright", "dark")]
    ramp, dark = deep(files[0], 2**bits - 1), deep(files[1], 100)
    read = read_files(files, Form())
    assert read.bits == bits
    assert (read.images[0, 0].numpy() == ramp.astype(int) * 255 // (2**bits - 1)).all()
    assert (read.images[1, 0].numpy() == dark.astype(int) * 255 // (2**bits - 1)).all()


def test_bits_can_be_given_and_must_hold_all_pixels(tmp_path):
    deep(tmp_path / "a.png", 1000)
    read = read_files([tmp_path / "a.png"], Form(bits=16))
    assert read.images.max() == 3
    with pytest.raises(UnreadableError, match=r"brightest pixel is 1,000, and 9 bits hold 511"):
        read_files([tmp_path / "a.png"], Form(bits=9))


def test_a_pgm_says_itself_what_is_white(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 8 6 4095\n" + np.full(48, 4095 // 5, ">u2").tobytes())
    read = read_files([path], Form())
    assert (read.images == 51).all()
    assert read.bits is None


@pytest.mark.parametrize("values", [np.float32(0.5), np.int32(70_000), np.int32(-1)])
def test_pixels_without_a_known_white_are_refused(tmp_path, values):
    Image.fromarray(np.full((6, 8), values)).save(tmp_path / "a.tif")
    for form in (Form(), Form(bits=16, channels=1)):
        with pytest.raises(UnreadableError, match="not whole numbers from 0 to 65535"):
            read_files([tmp_path / "a.tif"], form)


def test_what_reading_changes_is_told(tmp_path):
    frames = [Image.new("P", (8, 6), colour) for colour in (0, 1)]
    for suffix in ("gif", "png", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        frames[0].convert("RGB").save(
            path, save_all=True, append_images=[Image.new("RGB", (8, 6), "red")]
        )
        assert "frames" in read_picture(path, Form(channels=3)).changes, suffix
    Image.fromarray(gradient()).save(tmp_path / "c.png")
    plain = read_picture(tmp_path / "c.png", Form(channels=3))
    assert plain.changes == ()
    assert read_picture(tmp_path / "c.png", Form(channels=1)).changes == ("greyed",)


def test_16_bits_a_channel_are_told(tmp_path):
    header = struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x12\x34" * 24) * 6)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    (tmp_path / "a.png").write_bytes(start + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    picture = read_picture(tmp_path / "a.png", Form(channels=3))
    assert picture.changes == ("reduced",)
    assert (picture.pixels == 0x12).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "whit"}, r"data\.background: 'whit' is not a colour"),
        ({"background": ""}, r"data\.background: '' is not"),
        ({"bits": 7}, r"data\.bits: 7 is not from 8 to 16"),
        ({"bits": 17}, r"data\.bits: 17"),
        ({"max_pixels": 0}, r"data\.max_pixels: 0 is not from 1 to 178956970"),
        ({"max_pixels": 178_956_971}, r"data\.max_pixels"),
        ({"channels": 2}, r"data\.channels: 2 is neither"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UsageError, match=message):
        Form(**options)
