"""Draws `images/shapes.png`: codes without a shape, with a fixed variance only, and white.

python docs/make_shapes.py

Trains `digits` three times for 20 epochs: two minutes. Needs matplotlib.
"""

import json
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from acn_lightning import ACN
from acn_lightning.commands.fit import fit
from acn_lightning.config.compose import compose
from acn_lightning.evaluation.diagnostics import code_stats
from acn_lightning.experiment.build import read_data
from acn_lightning.inference.embedding import encode

OUT = Path(__file__).parent / "images/shapes.png"
LAWS = {
    "no shape: a collapse": ["model.shape.kind=free"],
    "variance only: a thread": ["model.shape.scale=4", "model.shape.decorrelation=0"],
    "white: all directions": [],
}
COMMON = [
    "data.augment=none",
    "data.binarisation=threshold",
    "model.likelihood.kind=bernoulli",
    "model.decoder.kind=pixelcnn",
    "model.decoder.channels=16",
    "model.decoder.layers=3",
    "trainer.max_epochs=20",
    "evaluation.linear=none",
    "pictures.every_n_epochs=0",
]


def main() -> None:
    """Trains the models and draws their codes."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained")
    data = read_data(compose("digits", COMMON))
    for axis, (name, words) in zip(axes, LAWS.items(), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            root = f"trainer.default_root_dir={folder}"
            outcome = fit("digits", [*COMMON, *words, root])
            acn = ACN.load(str(outcome.results["checkpoint"]))
        codes = encode(acn.module, data.fixed_set.images)
        said = code_stats(codes)
        print(name, json.dumps(said))
        _, _, directions = torch.linalg.svd(codes - codes.mean(0), full_matrices=False)
        places = (codes - codes.mean(0)) @ directions[:2].T
        axis.scatter(*places.T, c=data.labels, cmap="tab10", s=4)
        axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="black", linewidth=1))
        side = max(3.0, 1.1 * float(places.abs().max()))
        axis.set(xlim=(-side, side), ylim=(-side, side), aspect="equal")
        dimensions = said["codes/effective_dimensions"]
        axis.set_title(f"{name}\neffective dimensions {dimensions:.1f} of 16", fontsize=9)
    figure.supxlabel("main direction, in units of the posterior's noise (circle)", fontsize=9)
    figure.savefig(OUT, dpi=90)


if __name__ == "__main__":
    main()
