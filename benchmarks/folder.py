"""Times a new user's way from `git clone` to explored codes of 5,000 images.

    python -m benchmarks.folder DIR FASHION_MNIST_ROOT [key=value ...]

DIR must be empty or missing. The benchmark writes the first 5,000 training images of Fashion-MNIST
to DIR/photos as PNG files, one folder per class. It clones this checkout as committed, sets it up
with `make`, trains `folder` on the photos and explores the codes. The run's own 500 test images are
few: one percent is five images. So codes, principal components and pixels of the same training
images are measured again on the 10,000 test images of Fashion-MNIST. DIR/folder.json then holds the
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

import acn_lightning
from acn_lightning.data.sources.idx import CLOTHES, read_idx
from acn_lightning.evaluation.classifiers import Labelled, measure, principal_components
from acn_lightning.utils.errors import UsageError
from benchmarks import codes
from benchmarks.measure import machine

IMAGES = 5000
PIXELS = 28 * 28


def write_photos(folder: Path, root: Path) -> None:
    """Writes the images as files, one folder per class."""
    images, labels, _ = read_idx(root).train
    for row in range(IMAGES):
        place = folder / CLOTHES[int(labels[row])].replace("/", " or ")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row, 0].numpy()).save(place / f"{row:05}.png")


def on_all_test_images(run: Path, root: Path) -> dict[str, dict[str, Any]]:
    """What `classifiers.measure` finds in codes, components and pixels of the run's training images
    and all test images of Fashion-MNIST.

    Args:
        run: the folder of a run on photos by `write_photos`.
        root: where Fashion-MNIST is.
    """
    parts, model = read_idx(root), acn_lightning.load(str(run))
    names = [str(model.files[row]) for row in model.bank.rows]
    photos = [int(Path(name).stem) for name in names]
    sides = (
        (parts.train.images[photos], parts.train.labels[photos].numpy()),
        (parts.test.images, parts.test.labels.numpy()),
    )
    codes_of = [Labelled(model.encode(images.numpy()), labels) for images, labels in sides]
    pixels = [Labelled(images.flatten(1).numpy(), labels) for images, labels in sides]
    code_size = model.bank.codes.shape[1]
    features = {
        "codes": codes_of,
        "pca": principal_components(pixels[0], pixels[1], code_size),
        "pixels": pixels,
    }
    return {name: measure(train, test, len(CLOTHES)) for name, (train, test) in features.items()}


def rows(
    results: Mapping[str, Any], precision: str, found: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of `docs/results/table.json`: the codes, and components and pixels beside them.

    Args:
        results: contents of the run's `results.json`, for the costs.
        precision: that the run trained in.
        found: from `on_all_test_images`.
    """
    trained, code_size = results["training"], results["code_size"]
    sizes = {"codes": code_size, "pca": code_size, "pixels": PIXELS}
    models = {"codes": "acn", "pca": "pca", "pixels": "pixels"}
    lines = []
    for name, figures in found.items():
        learnt = name == "codes"
        costs = results["nats_per_image"] if learnt else dict.fromkeys(codes.COSTS)
        lines.append(
            {
                "data": "folder",
                "model": models[name],
                "budget": "folder",
                "augment": learnt,
                "shape": learnt,
                "seeds": [results["seed"]] if learnt else [],
                "precision": precision if learnt else None,
                "minutes": trained["seconds"] / 60 if learnt else 0.0,
                "epochs": trained["epochs"] if learnt else 0,
                "code_size": sizes[name],
                "command": "python -m benchmarks.folder DIR FASHION_MNIST_ROOT",
                **{use: codes.spread([figures[use]]) for use in codes.USES},
                **{cost: codes.spread([costs[cost]]) for cost in codes.COSTS},
            }
        )
    return lines


def main(out: str, root: str, *words: str) -> None:
    """Runs the benchmark; prints and writes the figures."""
    folder = Path(out).resolve()
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty. Name a new folder.")
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
        "on 10,000 test images": on_all_test_images(run, Path(root)),
    }
    (folder / "folder.json").write_text(json.dumps(found, indent=1) + "\n")
    if not words:
        codes.write(rows(results, codes.precision_of(run), found["on 10,000 test images"]))
    for part, value in found["seconds"].items():
        print(f"{part:<16}{value:8.0f} s")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except UsageError as error:
        print(f"benchmarks.folder: {error}", file=sys.stderr)
        sys.exit(2)
