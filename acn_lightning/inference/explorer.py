"""One HTML file to explore codes, without a server or a network."""

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from acn_lightning.inference.collection import Collection
from acn_lightning.inference.embedding import Embedding
from acn_lightning.inference.pictures import colour, thumbnails
from acn_lightning.utils.optional import require_packages
from acn_lightning.utils.text import as_text, counted

SHEET = 4096
"""Side of a sheet of thumbnails, in pixels. All browsers and GPUs support this size."""


def require_plotly() -> Any:
    """The module plotly.offline.

    Raises:
        UsageError: plotly is not installed.
    """
    return require_packages("acn explore", "explore", "plotly.offline")[0]


def page(collection: Collection, embedding: Embedding, title: str, total: int, side: int) -> str:
    """The explorer: a map of the codes, coloured by label. It shows the image of the point under
    the mouse; a click shows that image and its neighbours in the collection, with distances.

    Args:
        collection: images, all of which are drawn.
        embedding: their codes, neighbours and places.
        title: title of the page.
        total: number of images that the collection is a sample of.
        side: longest side of a thumbnail, in pixels.

    Returns:
        HTML that loads nothing from elsewhere.
    """
    size = len(collection.images)
    used = sorted(set(collection.labels.tolist()))
    order = {label: i for i, label in enumerate(used)}
    names = [*collection.classes, "no label"]  # the last is for label -1
    sheets, columns, each, shape = sprite(collection, side)
    data = {
        "k": embedding.neighbours.shape[1],
        "size": shape,
        "columns": columns,
        "each": each,
        "sheets": sheets,
        "labels": [{"name": names[label], "colour": colour(label)} for label in used],
        "label": [order[label] for label in collection.labels.tolist()],
        "names": list(collection.files) or [f"image {row}" for row in collection.rows.tolist()],
        "x": rounded(embedding.places[:, 0]),
        "y": rounded(embedding.places[:, 1]),
        "neighbours": embedding.neighbours.flatten().tolist(),
        "distances": rounded(embedding.distances.flatten()),
    }
    note = f"{counted(size, 'image')}, codes of {embedding.codes.shape[1]} numbers."
    if size < total:
        note = (
            f"A sample of {size:,} of {total:,} images, stratified by class; neighbours are the "
            f"nearest within the sample. Codes of {embedding.codes.shape[1]} numbers."
        )
    known = {
        "title": html.escape(as_text(title)),
        "note": html.escape(note),
        "rendering": "pixelated" if max(collection.images.shape[2:]) <= 64 else "auto",
        "plotly": require_plotly().get_plotlyjs(),
        # Escaped, so that no text in it can end the surrounding script.
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    text = Path(__file__).with_suffix(".html").read_text("utf-8")
    return re.sub(f"@({'|'.join(known)})@", lambda mark: known[mark[1]], text)


def rounded(numbers: torch.Tensor) -> list[float]:
    """Numbers to five digits, which halves the bytes."""
    return [float(f"{number:.5g}") for number in numbers.tolist()]


def sprite(
    collection: Collection, side: int
) -> tuple[list[dict[str, Any]], int, int, Sequence[int]]:
    """Thumbnails of all images, on a few large sheets.

    Returns:
        (the sheets, thumbnails per row, thumbnails per sheet, (width, height) of a thumbnail).
    """
    pictures = thumbnails(collection.images, side)
    first = next(pictures)
    pictures = chain([first], pictures)
    wide, tall = first.size
    square = round((len(collection.images) * tall / wide) ** 0.5)
    columns = max(1, min(SHEET // wide, square))
    each = columns * (SHEET // tall)
    sheets = []
    for start in range(0, len(collection.images), each):
        count = min(each, len(collection.images) - start)
        sheet = Image.new(first.mode, (columns * wide, -(-count // columns) * tall))
        for place in range(count):
            sheet.paste(next(pictures), (place % columns * wide, place // columns * tall))
        file = io.BytesIO()
        kind = "png" if first.mode == "L" else "jpeg"
        sheet.save(file, kind.upper(), **({"optimize": True} if kind == "png" else {"quality": 85}))
        sheets.append(
            {
                "width": sheet.width,
                "height": sheet.height,
                "type": f"image/{kind}",
                "base64": base64.b64encode(file.getvalue()).decode(),
            }
        )
    return sheets, columns, each, (wide, tall)
