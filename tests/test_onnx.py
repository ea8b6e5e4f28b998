"""The encoder in ONNX Runtime."""

import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from acn_lightning import ACN
from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.encoders import Encoder
from acn_lightning.utils import optional


def test_codes_are_those_of_the_checkpoint_whatever_the_batch(acn, checkpoint):
    status, out, err = acn("onnx", checkpoint, "out=sub/mine.onnx")
    assert status == 0, err
    assert out.startswith("sub/mine.onnx: codes match PyTorch's within ")
    session = onnxruntime.InferenceSession("sub/mine.onnx", providers=["CPUExecutionProvider"])
    loaded = ACN.load(checkpoint)
    for size in (1, 9):
        images = np.random.default_rng(0).integers(0, 256, (size, 1, 12, 12)).astype(np.uint8)
        (codes,) = session.run(None, {"image": images.astype(np.float32) / 255})
        np.testing.assert_allclose(codes, loaded.encode(images[:, 0]), atol=1e-4)
    known = {one.key: one.value for one in onnx.load("sub/mine.onnx").metadata_props}
    assert json.loads(known["image_shape"]) == [1, 12, 12]
    assert known["binarisation"] == "none"
    assert (known["background"], known["bits"], known["seed"]) == ("white", "16", "0")
    assert "EXIF" in known["orientation"]
    assert "cover" in known["resize"]
    assert [path.name for path in Path("sub").iterdir()] == ["mine.onnx"]
    status, _, err = acn("onnx", checkpoint, "out=sub/mine.onnx")
    assert status == 2
    assert "out: sub/mine.onnx already exists." in err


def test_the_code_in_the_docs_prepares_a_photograph_as_encode_does(acn, checkpoint):
    page = (Path(__file__).parents[1] / "docs/model.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(import json.*?)^```", page, re.M | re.S)
    assert acn("onnx", checkpoint, "out=encoder.onnx")[0] == 0
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: to be turned by 90 degrees
    Image.fromarray(pixels).save("one.jpg", exif=turned)
    names: dict[str, Any] = {}
    exec(code, names)
    np.testing.assert_allclose(names["codes"], ACN.load(checkpoint).encode("one.jpg"), atol=1e-4)


class Drifting(Encoder):
    """Gives other codes when it is exported."""

    def forward(self, image):
        return unit_normal(image.flatten(1)[:, :4] + torch.compiler.is_compiling())


class ForTwo(Encoder):
    """Is exported for the number of images that torch is given."""

    def forward(self, image):
        return unit_normal(image.flatten(1)[:, :4] + torch.zeros(len(image), 1))


@pytest.mark.parametrize(
    ("encoder", "line"),
    [
        (Drifting, "out: ONNX Runtime's codes differ from PyTorch's by"),
        (ForTwo, "model.encoder: ONNX Runtime rejects it "),
    ],
)
def test_what_the_runtime_makes_otherwise_is_not_written(checkpoint, monkeypatch, encoder, line):
    from acn_lightning.commands.onnx import onnx
    from acn_lightning.experiment import restore
    from acn_lightning.utils.errors import UsageError

    module = ACN.load(checkpoint).module
    module.encoder = encoder()
    monkeypatch.setattr(restore, "restore", lambda *_: module)
    with pytest.raises(UsageError, match=line):
        onnx(str(checkpoint), [], out="mine.onnx")
    assert not list(Path().iterdir())


def test_what_is_missing_is_named(acn, checkpoint, monkeypatch):
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    listed = [f'{one}; extra == "{name}"' for name in extras for one in extras[name]]
    monkeypatch.setattr(optional, "requires", lambda _: listed)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = acn("onnx", checkpoint)
    assert status == 2
    assert err == (f"acn: acn onnx needs onnxruntime: pip install {shlex.join(extras['onnx'])}\n")
