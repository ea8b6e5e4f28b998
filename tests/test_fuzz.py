"""Inputs changed at random, a fixed number of them with fixed seeds: each is read, or refused in
one line, in a moment, and nothing is left behind. `test_strangers.py` does the same to checkpoints.
"""

import gzip
import io
import random
import signal
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import ExifTags, Image, PngImagePlugin
from safetensors.torch import save_file

from acn_lightning.cli import main
from acn_lightning.config.compose import FOLDER, compose
from acn_lightning.config.schema import is_section, make_schema, schema_keys
from acn_lightning.data.sources.cifar10 import load, python_batch
from acn_lightning.data.sources.folder import FolderSource
from acn_lightning.data.sources.idx import read_idx_file
from acn_lightning.data.sources.npz import read_npz
from acn_lightning.networks.weights import read_weights
from acn_lightning.utils.errors import UsageError
from tests.mutations import TIMES, changed_bytes, changed_text

SECONDS = 10
"""After which a case counts as one that hangs."""


def attempt(read, seed):
    """Whether an input is read; it may also be refused in one line, but nothing else.

    Args:
        read: reads the input.
        seed: names the case if it fails.
    """

    def give_up(*_):
        raise TimeoutError(f"seed {seed} hangs")

    before = sorted(Path().rglob("*"))
    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        read()
    except UsageError as error:
        if "\n" in str(error):
            raise AssertionError(f"seed {seed}: several lines") from error
        return False
    except Exception as error:
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert sorted(Path().rglob("*")) == before, seed
    return True


def counted(read, cases):
    """Tries cases 0, 1, ...: some of them are read, and some refused."""
    cases *= TIMES
    passed = sum(attempt(lambda: read(random.Random(case)), case) for case in range(cases))  # noqa: B023
    assert 0 < passed < cases


# ---------------------------------------------------------------- images


def with_metadata(kind):
    """An image file with tags, texts and a profile."""
    image = Image.linear_gradient("L").resize((24, 16))
    image = image.convert("P" if kind == "GIF" else "RGB")
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation], tags[ExifTags.Base.Make] = 6, "maker"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("title", "a text", zip=True)
    texts.add_itxt("author", "another")
    more = {
        "PNG": {"pnginfo": texts, "exif": tags, "icc_profile": b"profile", "dpi": (72, 72)},
        "JPEG": {"exif": tags, "icc_profile": b"profile", "comment": b"a comment"},
        "WEBP": {"exif": tags, "lossless": True},
        "TIFF": {"exif": tags, "compression": "tiff_lzw"},
        "GIF": {"comment": b"a comment", "transparency": 3},
    }
    file = io.BytesIO()
    image.save(file, kind, **more.get(kind, {}))
    return file.getvalue()


def with_sums(png):
    """The PNG with the checksums that its chunks ought to have, so that a decoder reads them."""
    fixed, at = png[:8], 8
    while at + 12 <= len(png):
        size = min(struct.unpack(">I", png[at : at + 4])[0], len(png) - at - 12)
        chunk = png[at + 4 : at + 8 + size]
        fixed += struct.pack(">I", size) + chunk + struct.pack(">I", zlib.crc32(chunk))
        at += 12 + size
    return fixed


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_image_files(kind):
    original = with_metadata(kind)
    folder = Path("photos")
    folder.mkdir()
    for name in range(12):
        (folder / f"{name:02}.png").write_bytes(with_metadata("PNG"))
    source = FolderSource(root=str(folder), image_size=8)

    def read(draw):
        content = changed_bytes(original, draw)
        if kind == "PNG" and draw.random() < 0.8:
            content = with_sums(content)
        (folder / "00.png").write_bytes(content)
        splits = source.read()
        assert len(splits.train.images) + len(splits.test.images) == 12

    counted(read, 25)


# ---------------------------------------------------------------- arrays


def zipped(members):
    """A zip file of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_npz_files():
    path = Path("some.npz")
    images = np.zeros((20, 4, 4), np.uint8)
    parts = {"images.npy": npy(images), "labels.npy": npy(np.arange(20) % 3)}
    path.write_bytes(b"")

    def read(draw):
        own = dict(parts)
        if draw.random() < 0.7:  # a header that a checksum covers
            name = draw.choice(list(own))
            own[name] = changed_bytes(own[name][:100], draw) + own[name][100:]
            path.write_bytes(zipped(own))
        else:
            path.write_bytes(changed_bytes(zipped(own), draw))
        read_npz(path)

    counted(read, 60)


def test_idx_files():
    path = Path("train-images-idx3-ubyte")
    plain = bytes([0, 0, 8, 3]) + struct.pack(">3I", 5, 4, 4) + bytes(80)
    path.write_bytes(b"")

    def read(draw):
        packed = draw.random() < 0.5
        content = gzip.compress(plain) if packed and draw.random() < 0.5 else None
        content = changed_bytes(content or plain, draw)
        if packed and content[:2] != b"\x1f\x8b":
            content = gzip.compress(content)
        path.write_bytes(content)
        assert read_idx_file(path, 3).ndim == 3

    counted(read, 60)


def test_pickles_of_cifar():
    import pickle

    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}
    plain = pickle.dumps(batch, protocol=2)

    def read(draw):
        planes, labels = python_batch(changed_bytes(plain, draw), Path("data_batch_1"))
        assert planes.nbytes < 10**6
        assert labels.nbytes < 10**6

    def whole(draw):
        return load(plain, Path("x")) if draw.random() < 0.1 else read(draw)

    counted(whole, 55)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_files(suffix):
    path = Path(f"some.{suffix}")
    weights = {"body.weight": torch.zeros(4, 3), "body.bias": torch.ones(4)}
    (torch.save if suffix == "pt" else save_file)(weights, path)
    plain = path.read_bytes()

    def read(draw):
        path.write_bytes(changed_bytes(plain, draw) if draw.random() < 0.95 else plain)
        assert read_weights(path)

    counted(read, 600)


# ---------------------------------------------------------------- configs


def test_yaml_files():
    texts = [path.read_text("utf-8") for path in sorted(FOLDER.glob("*.yaml"))]
    path = Path("some.yaml")
    path.write_bytes(b"")

    def read(draw):
        text = changed_text(draw.choice(texts), draw)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert compose(str(path))["experiment"] == "some"

    counted(read, 60)


KEYS = [key for key, kind in schema_keys(make_schema(OmegaConf.create()))
        if not is_section(kind)]  # fmt: skip


VALUES = ("1", "0.5", "true", "null", "text", "[1, 2]", "{a: 1}", "${seed}", "1e3", "'quoted'")


def odd_word(draw):
    """An override that is odd somewhere, mostly in its value."""
    key, value = draw.choice(KEYS), draw.choice(VALUES)
    if draw.random() < 0.2:
        return changed_text(f"{key}={value}", draw)
    return f"{key}={changed_text(value, draw)}"


def test_overrides():
    def read(draw):
        words = [f"{draw.choice(KEYS)}={draw.choice(VALUES)}" for _ in range(2)]
        compose("digits", [*words, odd_word(draw)])

    counted(read, 90)


def test_command_lines(capsys):
    """The same through the command: one line, exit status 2, and no traceback."""

    def read(draw):
        capsys.readouterr()
        if main(["show", "digits", odd_word(draw)]) == 2:
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert error.isprintable() or error[:-1].isprintable()
            raise UsageError("refused")

    counted(read, 30)
