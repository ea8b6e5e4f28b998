"""Pictures of a run, to be put into a page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from acn_lightning.runs.reading import Run
from acn_lightning.utils.errors import foreign
from acn_lightning.utils.files import is_plain
from acn_lightning.utils.text import as_text

CAPTIONS = {
    "reconstructions": "Held-out images above; below each, what the decoder makes of its code.",
    "neighbours": "A held-out image on the left of each row, and its nearest training images.",
    "samples": "Images drawn from the model, without any image to start from.",
    "projection": "A map of codes: a dot is an image, coloured by its class. t-SNE of the test "
    "images after training; before, principal components of the training images.",
    "augmented": "Training images on the left, and transformed copies as the encoder sees them.",
}
"""What the pictures that runs draw show, in the order shown."""

MOST = 24
"""Most pictures of a run in a page."""

LARGEST = 1 << 25
"""Most bytes of a picture's file, and most pixels."""

WHOLE = 300_000
"""Bytes up to which a file is taken as it is; a larger one is made smaller."""

SIDE = 1600
"""Longest side of a picture that is made smaller."""


class Picture(NamedTuple):
    """A picture of a run.

    Attributes:
        name: the file's, without a suffix.
        caption: what it shows.
        address: a data: URL; empty if the file cannot be read.
        fault: why it cannot be read.
        size: (width, height) in pixels.
    """

    name: str
    caption: str
    address: str
    fault: str = ""
    size: tuple[int, int] = (0, 0)


def pictures(run: Run) -> list[Picture]:
    """The pictures in a run's `images/`; those that runs draw come first."""
    paths = {path.stem: path for path in run.images}
    names = [*(name for name in CAPTIONS if name in paths), *(paths.keys() - CAPTIONS.keys())]
    return [picture(paths[name]) for name in names[:MOST]]


def picture(path: Path) -> Picture:
    """A picture, as small as can be in a page."""
    name = as_text(path.stem)
    caption = CAPTIONS.get(name, "")
    try:
        with foreign("it cannot be read", path):
            if not is_plain(path) or path.stat().st_size > LARGEST:
                raise ValueError("it is no file, or too large")
            content = path.read_bytes()
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                if image.width * image.height > LARGEST:
                    raise ValueError("it has too many pixels")
                image.load()
                size, kind = image.size, "png"
                if len(content) > WHOLE:
                    content, size, kind = smaller(image)
    except Exception as error:  # one damaged picture is no reason to show nothing
        return Picture(name, caption, "", as_text(str(error)))
    encoded = base64.b64encode(content).decode()
    return Picture(name, caption, f"data:image/{kind};base64,{encoded}", size=size)


def smaller(image: Image.Image) -> tuple[bytes, tuple[int, int], str]:
    """(a picture's bytes, its size and its format) with fewer pixels and bytes."""
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    return file.getvalue(), image.size, "webp"


def rows(runs: Sequence[Run]) -> list[tuple[str, str, list[Picture | None]]]:
    """(name, caption, the picture of each run or None), of pictures that any of the runs has."""
    of_runs = [{one.name: one for one in pictures(run)} for run in runs]
    names = dict.fromkeys(name for known in of_runs for name in known)
    ordered = sorted(names, key=[*CAPTIONS, *names].index)
    return [
        (name, CAPTIONS.get(name, ""), [known.get(name) for known in of_runs]) for name in ordered
    ]
