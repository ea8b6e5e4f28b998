"""The notebook's cells run, in order, on small data that lies where it looks for its own."""

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tests.conftest import QUICK, write_idx

NOTEBOOK = Path(__file__).parents[1] / "docs/few_labels.ipynb"


def test_the_notebook_runs(acn, capsys):
    digits = load_digits()
    images = (digits.images * (255 / 16)).astype(np.uint8)
    folder = Path("data/fashion_mnist")
    folder.mkdir(parents=True)
    for prefix, rows in [("train", slice(400)), ("t10k", slice(400, 500))]:
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images[rows])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", digits.target[rows])
    status, _, err = acn(
        "fit", "fashion_mnist+small", *QUICK, "data.download=false", "run=first",
        "model.decoder.kind=conv", "trainer.max_epochs=2",
        "data.binarisation=threshold", "data.validation=40", "evaluation.linear=none",
        "pictures.every_n_epochs=0",
    )  # fmt: skip
    assert status == 0, err
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) > 5
    assert all(cell["outputs"] for cell in cells[3:] if cell["cell_type"] == "code")
    names: dict[str, object] = {}
    for source in sources:
        exec(compile(source, str(NOTEBOOK), "exec"), names)
    assert len(names["chosen"]) == 100
    assert (names["spread"][names["chosen"]] == names["labels"]).all()
    printed = capsys.readouterr().out
    assert "right for " in printed
    assert printed.count("representatives") == 2
