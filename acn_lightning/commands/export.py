"""`acn export`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acn_lightning.inference.collection import Collection
    from acn_lightning.inference.embedding import Embedding


def export(
    checkpoint: str,
    images: str | None,
    overrides: list[str],
    *,
    k: int = 8,
    part: str = "train",
    projection: str = "tsne",
    thumbnails: int = 64,
    unreadable: str = "stop",
    out: str | None = None,
) -> list[Path]:
    """Write codes, neighbours and map coordinates to files for other programs.

    Args:
        checkpoint: a checkpoint, a run's folder for its best one, or a pack.
        images: an experiment or a folder of images; by default the data of the checkpoint.
        overrides: changes to the checkpoint's config; if an experiment is named, those that begin
            with `data.` apply to its config instead.
        k: number of neighbours of each image, searched among the other images.
        part: "train" or "test" images, where there are both.
        projection: "tsne" or "pca".
        thumbnails: longest side of the stored images, in pixels; 0 stores none.
        unreadable: "stop" at a file that cannot be read as an image, or "skip" it.
        out: folder to write to; null for a new one under the run's `outputs`.

    Returns:
        The files written: `codes.parquet`, `codes.npz`, `index.faiss`, `about.json`.

    Raises:
        UsageError: an input cannot be read, pyarrow is not installed, or the folder `out` exists;
            nothing has been written then.
    """
    from acn_lightning.commands._inputs import collect, out_folder, trained_for
    from acn_lightning.inference.embedding import embed
    from acn_lightning.inference.parquet import require_pyarrow, write_parquet
    from acn_lightning.inference.projection import check_projection
    from acn_lightning.retrieval.faiss_backend import save_index
    from acn_lightning.utils.errors import UsageError

    require_pyarrow()
    check_projection(projection)
    if not 0 <= thumbnails <= 4096:
        raise UsageError(f"thumbnails: {thumbnails} is not from 0 to 4096.")
    acn, theirs = trained_for(checkpoint, images, overrides)
    with out_folder(out, acn, "export") as (folder, beside):
        collection = collect(acn, images, theirs, part, unreadable)
        embedding = embed(acn.module, collection, k, projection)
        write_parquet(beside / "codes.parquet", collection, embedding, thumbnails)
        write_npz(beside / "codes.npz", collection, embedding)
        save_index(embedding.searched.index, beside / "index.faiss")
        known_of = {"checkpoint": str(checkpoint)} | about(collection, embedding)
        text = json.dumps(known_of | {"projection": projection}, indent=2)
        (beside / "about.json").write_text(text + "\n", "utf-8")
    return sorted(folder.glob("*"))


def write_npz(path: Path, collection: "Collection", embedding: "Embedding") -> None:
    """Writes the numbers of the Parquet table as NumPy arrays."""
    import numpy as np

    np.savez(
        path,
        codes=embedding.codes.numpy(),
        labels=collection.labels.numpy(),
        classes=np.array(collection.classes, dtype=str),
        files=np.array(collection.files, dtype=str),
        neighbours=embedding.neighbours.numpy(),
        distances=embedding.distances.numpy(),
        places=embedding.places.numpy(),
    )


def about(collection: "Collection", embedding: "Embedding") -> dict[str, object]:
    """What was exported, and how its neighbours were searched."""
    return {
        "data": collection.name,
        "images": len(collection.images),
        "code_size": embedding.codes.shape[1],
        "neighbours": embedding.neighbours.shape[1],
        "index": embedding.searched.made,
        "recall": embedding.recall,
    }
