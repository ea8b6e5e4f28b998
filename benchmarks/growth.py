"""Plots how an epoch boundary grows with the number of codes, from the benchmark `scale`.

    python -m benchmarks.growth FILE.json OUT.png

Needs matplotlib. Shows seconds of the boundary and of bare FAISS's exact search, and peak memory in
units of the codes' own size.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main(figures: str, out: str) -> None:
    """Draws the figures of `scale` that the file contains."""
    content = json.loads(Path(figures).read_text())
    sizes = {float(name.removeprefix("scale-")): found for name, found in content.items()
             if name.startswith("scale-") and "error" not in found}  # fmt: skip
    codes = sorted(sizes)

    def of(key: str) -> list[Any]:
        return [sizes[size].get(key) for size in codes]

    figure, (time, memory) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    time.plot(codes, of("ours_s"), marker="o", label="boundary, neighbours.factory=auto")
    time.plot(codes, of("reference_s"), color="C1", label="bare FAISS, exact")
    for size, found in sizes.items():
        filled = "white" if found["extrapolated"] else "C1"
        time.plot(size, found["reference_s"], "o", color="C1", markerfacecolor=filled)
        time.annotate(f"{found['index'].split(',')[0]}, recall {found['recall']:.3f}",
                      (size, found["ours_s"]), (5, -11), textcoords="offset points",
                      ha="left", fontsize=7)  # fmt: skip
    time.plot([], [], "o", color="C1", markerfacecolor="white", label="extrapolated in queries")
    time.set(xscale="log", yscale="log", xlabel="codes of 64 numbers", ylabel="seconds")
    time.set_xlim(codes[0] / 2, codes[-1] * 30)  # room for the labels
    low, high = time.get_ylim()
    time.set_ylim(low / 2, high)
    time.legend(fontsize=8)
    memory.plot(codes, of("peak_bytes_per_code_byte"), marker="o", label="peak of the boundary")
    memory.axhline(2.5, color="grey", linestyle="--", label="target from a million codes on")
    memory.set(
        xscale="log", xlabel="codes of 64 numbers", ylabel="memory / codes' own size", ylim=0
    )
    memory.legend(fontsize=8)
    for axis in (time, memory):
        axis.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
