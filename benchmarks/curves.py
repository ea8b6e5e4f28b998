"""Draws the learning curves of several runs in one picture: held-out cost by epoch.

    python benchmarks/curves.py OUT.png NAME=RUN_FOLDER [NAME=RUN_FOLDER ...]

Needs matplotlib. Costs come from `metrics.csv`: `val/total` (rate at the training K plus
distortion), then `val/rate` and `val/distortion`.
"""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COSTS = {"val/total": "rate + distortion", "val/rate": "rate", "val/distortion": "distortion"}


def costs_by_epoch(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns (epoch counted from 1, nats per image) pairs for each cost."""
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in COSTS}
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, points in found.items():
                if row.get(name):
                    points.append((int(row["epoch"]) + 1, float(row[name])))
    return found


def main(out: str, *runs: str) -> None:
    """Draws the runs, given as NAME=FOLDER, to the file `out`."""
    figure, axes = plt.subplots(1, len(COSTS), figsize=(10, 3.2), layout="constrained")
    for run in runs:
        name, _, folder = run.partition("=")
        found = costs_by_epoch(Path(folder))
        for axis, cost in zip(axes, COSTS, strict=True):
            axis.plot(*zip(*found[cost], strict=True), marker="o", markersize=3, label=name)
    for axis, (cost, words) in zip(axes, COSTS.items(), strict=True):
        axis.set(
            title=words, xlabel="epoch", ylabel="nats per image" if cost == "val/total" else ""
        )
        axis.grid(alpha=0.3)
    axes[1].legend()  # rates fall, so the upper right is free
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) < 3 or not all("=" in run for run in sys.argv[2:]):
        sys.exit(__doc__)
    main(*sys.argv[1:])
