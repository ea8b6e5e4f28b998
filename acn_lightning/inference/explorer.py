"""One HTML file to look at codes with: no server, no network."""

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

from acn_lightning.inference.embedding import Coded, Collection
from acn_lightning.inference.figures import colour, thumbnails
from acn_lightning.utils.optional import require

SHEET = 4096
"""Pixels a side of a sheet of thumbnails: browsers and GPUs take that everywhere."""


def require_plotly() -> Any:
    """plotly.offline.

    Raises:
        UsageError: it is not installed.
    """
    return require("acn explore", "explore", "plotly.offline")[0]


def page(collection: Collection, coded: Coded, title: str, total: int, side: int) -> str:
    """The explorer: a map of the codes coloured by label; the image of the point that the mouse is
    at; at a click the image and its neighbours in the collection, with their distances.

    Args:
        collection: all of it is drawn.
        coded: what a model makes of it.
        title: of the page.
        total: images that the collection is a sample of.
        side: the longest side of a thumbnail, in pixels.

    Returns:
        HTML that asks for nothing from elsewhere.
    """
    size = len(collection.images)
    used = sorted(set(collection.labels.tolist()))
    order = {label: i for i, label in enumerate(used)}
    names = [*collection.classes, "no label"]  # the last is that of label -1
    sheets, columns, each, shape = sprite(collection, side)
    data = {
        "k": coded.neighbours.shape[1],
        "size": shape,
        "columns": columns,
        "each": each,
        "sheets": sheets,
        "labels": [{"name": names[label], "colour": colour(label)} for label in used],
        "label": [order[label] for label in collection.labels.tolist()],
        "names": list(collection.files) or [f"image {row}" for row in collection.rows.tolist()],
        "x": rounded(coded.places[:, 0]),
        "y": rounded(coded.places[:, 1]),
        "neighbours": coded.neighbours.flatten().tolist(),
        "distances": rounded(coded.distances.flatten()),
    }
    note = f"{size:,} images, codes of {coded.codes.shape[1]} numbers."
    if size < total:
        note = (
            f"A sample of {size:,} of {total:,} images, of each class its share; neighbours are "
            f"the nearest within it. Codes of {coded.codes.shape[1]} numbers."
        )
    known = {
        "title": html.escape(title),
        "note": html.escape(note),
        "rendering": "pixelated" if max(collection.images.shape[2:]) <= 64 else "auto",
        "plotly": require_plotly().get_plotlyjs(),
        # No text in it can end the script that it stands in.
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    text = Path(__file__).with_suffix(".html").read_text("utf-8")
    return re.sub(f"@({'|'.join(known)})@", lambda mark: known[mark[1]], text)


def rounded(numbers: torch.Tensor) -> list[float]:
    """To five digits, which is half of the bytes."""
    return [float(f"{number:.5g}") for number in numbers.tolist()]


def sprite(
    collection: Collection, side: int
) -> tuple[list[dict[str, Any]], int, int, Sequence[int]]:
    """All images in a few large ones.

    Returns:
        (the sheets, thumbnails in a row, thumbnails in a sheet, (width, height) of one).
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
