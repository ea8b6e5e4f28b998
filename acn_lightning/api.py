"""A trained model in three lines.

acn = acn_lightning.load("runs/mnist/RUN")
codes = acn.encode(images)
found = acn.neighbours(images, k=5)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acn_lightning.experiment.restore import load_model
from acn_lightning.inference.trained_model import TrainedACN
from acn_lightning.module import ACN
from acn_lightning.training import train

__all__ = ["ACN", "TrainedACN", "fit", "load"]


def fit(
    images: Any,
    labels: Any = None,
    *,
    experiment: str = "folder",
    test: Any = None,
    classes: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    **sections: Any,
) -> TrainedACN:
    """Trains on images that are at hand in Python, as `acn fit` does on files, with a run folder of
    the same content. Ctrl-C saves a checkpoint and raises `KeyboardInterrupt`; the same call with
    `run=NAME, resume="auto"` goes on.

        acn = acn_lightning.fit(images, labels, model={"code_size": 8}, seed=1)
        codes = acn.encode(images)

    Args:
        images: arrays or tensors (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 from 0 to 255 or
            floats from 0 to 1, C being 1 or 3; a list of PIL images, of arrays or of paths; a
            map-style torch `Dataset` of images, or of (image, label); a `Dataset` of Hugging
            Face's; or the path of a folder, which is read as by `acn fit folder`.
        labels: the class of each image, a number or a name; None or -1 for none. The model's labels
            are places in its `classes`: the same numbers only if these go from 0 without a gap.
        experiment: as for `acn fit`; `folder` trains for about six minutes, or as long as `budget`
            says. The size of arrays is their own, unless `data` names one;
            other images get the experiment's.
        test: (images, labels) to test on, or images alone; None holds out a fixed tenth.
        classes: names of the classes, to which numbers refer; None takes those of a Hugging Face
            data set, in its order, else the labels, sorted.
        overrides: changes to the experiment's config, such as "model.code_size=8".
        sections: the same as keywords: a section's keys as a dictionary, other keys by themselves.

    Returns:
        The model of the best checkpoint, on the CPU.

    Raises:
        UsageError: the images, labels or config are wrong; nothing has been written.
        TrainingError: the loss is no longer finite.
    """
    return load(*train(images, labels, experiment, test, classes, overrides, sections))


def load(path: Path | str, overrides: Sequence[str] = ()) -> TrainedACN:
    """Loads a trained model on the CPU. Its training images are not needed.

    Args:
        path: a run's folder, for its best checkpoint, or else its last; a checkpoint that `acn fit`
            wrote; or a folder that `acn pack` wrote.
        overrides: changes to its config, such as "neighbours.factory=Flat";
            "model.encoder.path=..." is required if its encoder is code outside this package.

    Raises:
        UsageError: there is no such model, it cannot be read, or this package did not write it.
    """
    return load_model(Path(path).expanduser(), overrides)


ACN.load = staticmethod(load)  # the name it had before this file existed
