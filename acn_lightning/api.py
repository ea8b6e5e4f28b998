"""A trained model in three lines.

acn = acn_lightning.load("runs/mnist/RUN")
codes = acn.encode(images)
found = acn.neighbours(images, k=5)
"""

from collections.abc import Sequence
from pathlib import Path

from acn_lightning.checkpoint import find_model, read_checkpoint
from acn_lightning.experiment.restore import restore
from acn_lightning.inference.trained_model import TrainedACN
from acn_lightning.module import ACN

__all__ = ["ACN", "TrainedACN", "load"]


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
    found = find_model(Path(path).expanduser())
    content = read_checkpoint(found)
    return TrainedACN(restore(content, overrides), content.get("ImageData"), found)


ACN.load = staticmethod(load)  # the name it had before this file existed
