"""Draws accuracies over seconds of training, as `benchmarks.time_to_codes` has measured them.

    python -m benchmarks.time_to_codes_figure docs/images/time_to_codes.png OUT.json [OUT.json ...]

Needs matplotlib. If several files have the same name, the last one counts.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter, PercentFormatter, ScalarFormatter

LABELS = {
    "acn": "ACN, mnist+small",
    "pixelvae": "PixelVAE, the same networks",
    "conv": "johannah/ACN, convolutional",
    "dense": "jalexvig's ACN, fully connected",
}
PANELS = {"knn": "KNN", "linear": "linear classifier"}
WANTED = 0.95
LOWEST = 0.6
"""Accuracy at the bottom of the figure."""


def read(paths: list[str]) -> dict[str, Any]:
    """The results in the files, by name, in the order of `LABELS`."""
    found: dict[str, Any] = {}
    for path in paths:
        found |= json.loads(Path(path).read_text())
    return {name: found[name] for name in LABELS if name in found}


def main(out: str, *paths: str) -> None:
    """Draws the results in the files to the file `out`."""
    found = read(list(paths))
    figure, axes = plt.subplots(
        1, len(PANELS), figsize=(10, 3.8), layout="constrained", sharey=True
    )
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        axis.axhline(WANTED, color="grey", linestyle="--", linewidth=1)
        for name, one in found.items():
            seconds = [point["seconds"] for point in one["points"]]
            values = [point[key] for point in one["points"]]
            axis.plot(seconds, values, marker="o", markersize=3, label=LABELS[name])
        axis.set(title=title, xlabel="seconds of training", xscale="log", ylim=(LOWEST, 1))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy on MNIST's test set")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(found)
    )
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
