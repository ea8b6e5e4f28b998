"""File names may be any bytes, and may begin like a formula or hold a line break."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acn_lightning.config.compose import compose
from tests.conftest import QUICK

ROOT = os.fsdecode(b"caf\xe9 #1")
RUN = os.fsdecode(b"r\xe9\n<b>")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of images whose names are not UTF-8."""
    folder = tmp_path_factory.mktemp("odd")
    generator = np.random.default_rng(0)
    try:
        for name in (b"=a\xff", b"b\nc"):
            part = os.fsencode(folder / ROOT) + b"/" + name
            os.makedirs(part)
            for number in range(15):
                image = Image.fromarray(generator.integers(0, 256, (8, 8)).astype(np.uint8))
                with open(part + b"/@%d\xfe.png" % number, "wb") as file:
                    image.save(file, "PNG")
    except OSError:
        pytest.skip("this file system's names are Unicode")
    return folder


def test_names_that_are_not_unicode_survive_every_command(odd, acn, monkeypatch):
    monkeypatch.chdir(odd)
    status, out, err = acn(
        "fit", "folder", *QUICK, f"data.root={ROOT}", f"run={RUN}", "data.image_size=8",
        "data.batch_size=8", "trainer.max_epochs=1", "trainer.limit_train_batches=2",
        "trainer.accelerator=cpu",
    )  # fmt: skip
    assert status == 0, err
    assert "runs/folder/r\\udce9\\n<b>/results.json" in out
    run = Path("runs/folder") / RUN
    saved = compose(str(run / "config.yaml"))
    assert (saved["data"]["root"], saved["run"]) == (ROOT, RUN)
    assert json.loads((run / "results.json").read_text("utf-8"))["checkpoint"].startswith(str(run))
    checkpoint = run / "checkpoints/best.ckpt"

    image = min((odd / ROOT).rglob("@1*"))
    assert acn("neighbours", checkpoint, image, "k=2", "out=found", f"data.root={ROOT}")[0] == 0
    with open("found/neighbours.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} <= {"'=a\\udcff", "b\nc"}
    assert all(row["file"].endswith("\\udcfe.png") for row in rows)

    for command, out in [("export", "exported"), ("explore", "codes.html")]:
        status, _, err = acn(command, checkpoint, "projection=pca", "k=2", f"out={out}",
                             f"data.root={ROOT}")  # fmt: skip
        assert status == 0, err
    assert "r\\udce9" in Path("codes.html").read_text("utf-8")
    with np.load("exported/codes.npz") as arrays:
        assert len(arrays["files"]) == len(arrays["codes"])
    more = (f"resume={checkpoint}", f"data.root={ROOT}", "run=more", "trainer.max_epochs=2")
    assert acn("fit", *more)[0] == 0
