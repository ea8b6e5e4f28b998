"""Times a new user's way from `git clone` to explored codes of 5,000 images.

    python -m benchmarks.folder DIR FASHION_MNIST_ROOT [key=value ...]

DIR must be empty or missing. The benchmark writes the first 5,000 training images of Fashion-MNIST
to DIR/photos as PNG files, one folder per class. It clones this checkout as committed, sets it up
with `make`, trains `folder` on the photos and explores the codes. DIR/folder.json then holds the
seconds of each part, the results and the machine. Without further keys, the rows of
`docs/results/table.json` are rewritten.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from acn_lightning.data.sources.idx import CLOTHES, read_idx
from benchmarks import codes
from benchmarks.measure import machine

IMAGES = 5000


def write_photos(folder: Path, root: Path) -> None:
    """Writes the images as files, one folder per class."""
    images, labels, _ = read_idx(root).train
    for row in range(IMAGES):
        place = folder / CLOTHES[int(labels[row])].replace("/", " or ")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row, 0].numpy()).save(place / f"{row:05}.png")


def rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `docs/results/table.json`: the codes, and components and pixels beside them.

    Args:
        results: contents of the run's `results.json`.
    """
    trained = results["training"]
    lines = []
    for model, features in (("acn", "codes"), ("pca", "pca"), ("pixels", "pixels")):
        figures, learnt = results["representations"][features], model == "acn"
        lines.append(
            {
                "data": "folder",
                "model": model,
                "budget": "folder",
                "augment": learnt,
                "shape": learnt,
                "seeds": [results["seed"]] if learnt else [],
                "minutes": trained["seconds"] / 60 if learnt else 0.0,
                "epochs": trained["epochs"] if learnt else 0,
                "code_size": None if model == "pixels" else results["code_size"],
                "command": "python -m benchmarks.folder DIR FASHION_MNIST_ROOT",
                **{use: codes.spread([figures[use]]) for use in codes.USES},
                **{
                    cost: codes.spread([results["nats_per_image"][cost] if learnt else None])
                    for cost in codes.COSTS
                },
            }
        )
    return lines


def main(out: str, root: str, *words: str) -> None:
    """Runs the benchmark; prints and writes the figures."""
    folder = Path(out).resolve()
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"benchmarks.folder: {folder} is not empty.")
    write_photos(folder / "photos", Path(root))
    clone, seconds = folder / "clone", {}

    def timed(part: str, *command: str, cwd: Path = clone) -> None:
        start = time.perf_counter()
        subprocess.run(command, check=True, cwd=cwd)
        seconds[part] = time.perf_counter() - start

    here = Path(__file__).resolve().parents[1]
    photos = "data.root=../photos"
    timed("clone", "git", "clone", "--quiet", str(here), str(clone), cwd=folder)
    timed("set-up", "make", "setup")
    timed("train and test", "make", "train", f"ARGS={' '.join(['folder', photos, *words])}")
    (run,) = (clone / "runs/folder").iterdir()
    timed("explore", ".venv/bin/acn", "explore", str(run), photos, "out=codes.html")
    results: dict[str, Any] = json.loads((run / "results.json").read_text())
    found = {
        "machine": machine(),
        "images": IMAGES,
        "options": list(words),
        "seconds": seconds | {"all": sum(seconds.values())},
        **{key: results[key] for key in ("training", "nats_per_image", "representations")},
    }
    (folder / "folder.json").write_text(json.dumps(found, indent=1) + "\n")
    if not words:
        codes.write(rows(results))
    for part, value in found["seconds"].items():
        print(f"{part:<16}{value:8.0f} s")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
