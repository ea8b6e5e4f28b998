"""Parquet files for other programs, such as embedding-atlas."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from acn_lightning.inference.collection import Collection
from acn_lightning.inference.embedding import Embedding
from acn_lightning.inference.pictures import thumbnails as thumbs
from acn_lightning.utils.optional import require_packages
from acn_lightning.utils.text import as_text

ROWS = 4096
"""Rows written at a time, which are held in memory in addition to codes and images."""


def require_pyarrow() -> list[Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        UsageError: pyarrow is not installed.
    """
    return require_packages("acn export", "explore", "pyarrow", "pyarrow.parquet")


def write_parquet(
    path: Path, collection: Collection, embedding: Embedding, thumbnails: int
) -> None:
    """Writes a row for each image, in the collection's order, in pieces. The columns are:

    `id`, its number from 0; `file`, null if it has no file of its own; `label`, null if it has
    none; `x` and `y` on the map; `code`, D float32; `neighbors`, a struct of `ids` (nearest first)
    and `distances`; `image`, a struct of `bytes` (a PNG) and `path`, null without thumbnails.

    Args:
        thumbnails: longest side of the stored images, in pixels; 0 for none.
    """
    pyarrow, parquet = require_pyarrow()
    schema = make_schema(embedding.codes.shape[1])
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in torch.arange(len(collection.images)).split(ROWS):
            columns = make_columns(collection, embedding, rows, thumbnails)
            writer.write_table(pyarrow.table(columns, schema=schema))


def make_schema(code_size: int) -> Any:
    """The types of the columns."""
    pyarrow, _ = require_pyarrow()
    near = {
        "ids": pyarrow.list_(pyarrow.int64()),
        "distances": pyarrow.list_(pyarrow.float32()),
    }
    return pyarrow.schema(
        {
            "id": pyarrow.int64(),
            "file": pyarrow.string(),
            "label": pyarrow.string(),
            "x": pyarrow.float32(),
            "y": pyarrow.float32(),
            "code": pyarrow.list_(pyarrow.float32(), code_size),
            "neighbors": pyarrow.struct(near),
            "image": pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        }
    )


def make_columns(
    collection: Collection, embedding: Embedding, rows: Tensor, thumbnails: int
) -> dict[str, Any]:
    """The columns for these rows."""
    classes = [*map(as_text, collection.classes), None]  # the last is for label -1
    files: list[str | None] = [None] * len(rows)
    if collection.files:
        files = [as_text(collection.files[row]) for row in rows.tolist()]
    near, far = embedding.neighbours[rows].tolist(), embedding.distances[rows].tolist()
    return {
        "id": rows.numpy(),
        "file": files,
        "label": [classes[label] for label in collection.labels[rows].tolist()],
        "x": embedding.places[rows, 0].numpy(),
        "y": embedding.places[rows, 1].numpy(),
        "code": list(embedding.codes[rows].numpy()),
        "neighbors": [
            {"ids": ids, "distances": distances} for ids, distances in zip(near, far, strict=True)
        ],
        "image": make_thumbnails(collection, rows, files, thumbnails),
    }


def make_thumbnails(
    collection: Collection, rows: Tensor, files: Sequence[str | None], side: int
) -> list[dict[str, Any] | None]:
    """The `image` column; all null without thumbnails."""
    if not side:
        return [None] * len(rows)
    pngs = map(png, thumbs(collection.images[rows], side))
    return [
        {"bytes": content, "path": file or f"{row}.png"}
        for content, file, row in zip(pngs, files, rows.tolist(), strict=True)
    ]


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
