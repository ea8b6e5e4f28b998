"""`acn neighbours`."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from acn_lightning.data import ImageData

SHOWN = 64
"""Maximum number of queries in the picture."""


def neighbours(
    checkpoint: str,
    image: list[str],
    overrides: list[str],
    *,
    k: int = 8,
    encode: bool = True,
    unreadable: str = "stop",
    out: str | None = None,
) -> list[Path]:
    """Find the training images most similar to given images; write a picture and a table.

    Args:
        checkpoint: a checkpoint, a run's folder for its best one, or a pack.
        image: image files, or folders of them.
        overrides: changes to the checkpoint's config.
        k: number of neighbours of each image.
        encode: whether to encode the training images again with the checkpoint's weights; false
            uses the codes in the checkpoint.
        unreadable: "stop" at a file that cannot be read as an image, or "skip" it.
        out: folder to write to; null for a new one under the run's `outputs`.

    Returns:
        The files written: `neighbours.png` (the first 64 images), `neighbours.csv`.

    Raises:
        UsageError: an input cannot be read, or the folder `out` exists; nothing has been written.
    """
    import torch

    from acn_lightning.commands._inputs import out_folder, read_queries, reencode, trained
    from acn_lightning.experiment.build import read_data
    from acn_lightning.inference.embedding import encode as encode_images
    from acn_lightning.inference.pictures import grid
    from acn_lightning.retrieval.exact import distances_to
    from acn_lightning.utils.errors import UsageError

    acn = trained(checkpoint, overrides)
    if not 1 <= k <= len(acn.bank.rows):
        raise UsageError(f"k: {k} is not from 1 to {len(acn.bank.rows)}, the stored codes.")
    with out_folder(out, acn, "neighbours") as (folder, beside):
        queries, files, report = read_queries(acn, image, unreadable)
        data = read_data(acn.config)
        data.load_state_dict(acn.known)
        print(report, file=sys.stderr)
        if encode:
            reencode(acn, data)
        codes = encode_images(acn.module, acn.as_seen(queries), show=True)
        codes = codes.to(acn.bank.codes.device)
        rows = acn.index.search(codes, k=k)
        distances = distances_to(codes, acn.bank.codes, rows).cpu()
        rows = rows.cpu()
        stored = data.stored_images[rows[:SHOWN]]
        pictures = torch.cat([queries[:SHOWN, None], stored], 1)
        grid(pictures.float() / 255, apart=1).save(beside / "neighbours.png")
        write_csv(beside / "neighbours.csv", files, rows, distances, data)
    return sorted(folder.glob("neighbours.*"))


def write_csv(
    path: Path, files: Sequence[str], rows: "Tensor", distances: "Tensor", data: "ImageData"
) -> None:
    """Writes a line for each query and neighbour, nearest first."""
    from acn_lightning.utils.text import as_text, cell

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "rank", "row", "file", "label", "distance"])
        for query, own, far in zip(files, rows.tolist(), distances.tolist(), strict=True):
            for rank, (row, distance) in enumerate(zip(own, far, strict=True), start=1):
                label = int(data.labels[row])
                name = data.classes[label] if label >= 0 else ""
                where = data.stored_names[row] if data.stored_names else ""
                image, file_name, class_name = (cell(as_text(one)) for one in (query, where, name))
                writer.writerow([image, rank, row, file_name, class_name, f"{distance:.6g}"])
