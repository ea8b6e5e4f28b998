"""Parquet for other programs, embedding-atlas among them."""

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from acn_lightning.inference.embedding import Coded, Collection
from acn_lightning.inference.figures import thumbnails as thumbs
from acn_lightning.utils.optional import require

ROWS = 4096
"""Rows written at a time: what is held in memory besides codes and images."""


def require_pyarrow() -> list[Any]:
    """pyarrow and pyarrow.parquet.

    Raises:
        UsageError: they are not installed.
    """
    return require("acn export", "explore", "pyarrow", "pyarrow.parquet")


def write_parquet(path: Path, collection: Collection, coded: Coded, thumbnails: int) -> None:
    """A row for each image, in the collection's order, written piece by piece:

    `id` its number, from 0; `file`, null where it is none of its own; `label`, null where it has
    none; `x`, `y` on the map; `code`, D float32; `neighbors`, a struct of `ids` (nearest first) and
    `distances`; `image`, a struct of `bytes` (a PNG) and `path`, null without thumbnails.

    Args:
        thumbnails: the longest side of the images, in pixels; 0 for none.
    """
    pyarrow, parquet = require_pyarrow()
    size = coded.codes.shape[1]
    schema = pyarrow.schema(
        {
            "id": pyarrow.int64(),
            "file": pyarrow.string(),
            "label": pyarrow.string(),
            "x": pyarrow.float32(),
            "y": pyarrow.float32(),
            "code": pyarrow.list_(pyarrow.float32(), size),
            "neighbors": pyarrow.struct(
                {
                    "ids": pyarrow.list_(pyarrow.int64()),
                    "distances": pyarrow.list_(pyarrow.float32()),
                }
            ),
            "image": pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        }
    )
    classes: list[str | None] = [*collection.classes, None]  # the last is that of label -1
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in torch.arange(len(collection.images)).split(ROWS):
            files: list[str | None] = [None] * len(rows)
            if collection.files:
                files = [collection.files[row] for row in rows.tolist()]
            images: list[dict[str, Any] | None] = [None] * len(rows)
            if thumbnails:
                pngs = map(png, thumbs(collection.images[rows], thumbnails))
                images = [
                    {"bytes": content, "path": file or f"{row}.png"}
                    for content, file, row in zip(pngs, files, rows.tolist(), strict=True)
                ]
            near = [
                {"ids": ids, "distances": distances}
                for ids, distances in zip(
                    coded.neighbours[rows].tolist(), coded.distances[rows].tolist(), strict=True
                )
            ]
            columns = {
                "id": rows.numpy(),
                "file": files,
                "label": [classes[label] for label in collection.labels[rows].tolist()],
                "x": coded.places[rows, 0].numpy(),
                "y": coded.places[rows, 1].numpy(),
                "code": list(coded.codes[rows].numpy()),
                "neighbors": near,
                "image": images,
            }
            writer.write_table(pyarrow.table(columns, schema=schema))


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
