"""Measures whether a checkpoint's weights help on a thousand images of other data.

    python -m benchmarks.finetuning OUT.json NAME ROOT [CHECKPOINT] [key=value ...]

Trains the experiment NAME on 1,000 images of the data in ROOT; 200 more are held out to select an
epoch. Starts from the checkpoint or, without one, from scratch, for the same number of steps, and
tests on the whole test set. Repeats this for three seeds, which also choose the images. Linear
classifiers learn from the 1,200 labels. Adds one entry per run to OUT.json and prints the means of
all entries. Resumes after an interruption.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
EPOCHS = 20
"""Of 1,000 images each; 32 steps with batches of 32."""


def run(name: str, root: str, checkpoint: str | None, more: list[str], seed: int) -> dict[str, Any]:
    """Trains one run and returns its figures.

    Raises:
        CalledProcessError: the run fails.
    """
    folder = Path("runs") / "finetuning"
    command = ["finetune", checkpoint, name] if checkpoint else ["fit", name]
    label = "-".join([name, "fine" if checkpoint else "scratch", *more, str(seed)])
    label = "".join(letter if letter.isalnum() or letter in "-+." else "_" for letter in label)
    words = [
        f"data.root={root}", "data.download=false", "data.subset=1200", "data.validation=200",
        f"trainer.max_epochs={EPOCHS}", f"model.warmup_epochs={0.7 * EPOCHS}", f"seed={seed}",
        "evaluation.linear=codes", "pictures.every_n_epochs=0", f"run={label}", "resume=auto",
        f"trainer.default_root_dir={folder}", *more,
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "acn_lightning", *command, *words], check=True)
    results = json.loads((folder / name / label / "results.json").read_text())
    costs = results["nats_per_image"]
    return {
        "name": name, "checkpoint": checkpoint, "more": more, "seed": seed,
        "parent": results["parent"] and results["parent"]["run"],
        "ordered": costs["ordered"], "unordered": costs["unordered"],
        "reconstruction": costs["reconstruction"],
        "linear": results["accuracy"]["linear"], "knn": results["accuracy"]["knn"],
        "seconds": results["seconds"],
    }  # fmt: skip


def table(runs: list[dict[str, Any]]) -> list[str]:
    """Returns a Markdown row per setting: mean over the seeds, with the range."""
    ways: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in runs:
        ways.setdefault((one["name"], one["parent"], " ".join(one["more"])), []).append(one)
    rows = ["| data | weights | options | runs | ordered | unordered | linear % | KNN % |",
            "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for (name, parent, more), found in ways.items():
        cells = [name, f"of {parent}" if parent else "random", more, str(len(found))]
        for key, factor in [("ordered", 1), ("unordered", 1), ("linear", 100), ("knn", 100)]:
            values = [factor * one[key] for one in found]
            spread = max(values) - min(values)
            cells.append(f"{statistics.mean(values):.1f} ({spread:.1f})")
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def main(out: str, name: str, root: str, *words: str) -> None:
    """Trains the missing runs and prints the table."""
    path = Path(out)
    runs = json.loads(path.read_text()) if path.is_file() else []
    checkpoint = next((word for word in words if "=" not in word), None)
    more = [word for word in words if "=" in word]
    for seed in SEEDS:
        way = (name, checkpoint, more, seed)
        if way not in [(one["name"], one["checkpoint"], one["more"], one["seed"]) for one in runs]:
            runs.append(run(name, root, checkpoint, more, seed))
            path.write_text(json.dumps(runs, indent=1) + "\n")
    print("\n".join(table(runs)))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
