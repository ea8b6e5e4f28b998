"""A trained model at work: `acn neighbours`, `acn export`, `acn explore`."""

import csv
import json
import shutil
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acn_lightning.checkpoint import KEY, read_checkpoint
from acn_lightning.config.compose import Plain, to_yaml
from acn_lightning.data import ImageData
from acn_lightning.data.dataset import binarise_alike
from acn_lightning.data.sources.base import stratified
from acn_lightning.experiment.build import read_data, restore
from acn_lightning.experiment.folder import device_of, run_folder
from acn_lightning.inference.embedding import PROJECTIONS, collect, encode, read_queries
from acn_lightning.inference.figures import grid
from acn_lightning.module import ACN
from acn_lightning.retrieval.exact import distances_to
from acn_lightning.retrieval.faiss_backend import save_index
from acn_lightning.utils.errors import UsageError, check_choice

SHOWN = 64
"""Queries in the picture of `acn neighbours`."""


# ---------------------------------------------------------------- the commands


def neighbours(
    checkpoint: str,
    images: list[str],
    overrides: list[str],
    *,
    k: int = 8,
    encode: bool = True,
    unreadable: str = "stop",
    out: str | None = None,
) -> list[Path]:
    """`acn neighbours CHECKPOINT IMAGE...`: the training images most like these, as a picture and a
    table.

    Args:
        checkpoint: its path.
        images: files, or folders of files.
        overrides: of the checkpoint's config, `section.key=value`.
        k: neighbours of each image.
        encode: whether to encode the training images anew by the checkpoint's weights; else the
            codes in the checkpoint count, which were stored along its last epoch.
        unreadable: "stop" at a file that is no image, or "skip" it with a warning.
        out: the folder to write to; null for a new one beside the runs.

    Returns:
        The files written: `neighbours.png` (the first 64 images), `neighbours.csv`.

    Raises:
        UsageError: something cannot be read, or the folder `out` exists; nothing has been written.
    """
    module, config, known = trained(checkpoint, overrides)
    if not 1 <= k <= len(module.bank.rows):
        raise UsageError(f"k: {k} is not from 1 to {len(module.bank.rows)}, the stored codes.")
    folder = Path(out) if out else run_folder(config)
    with writing_to(folder, config) as beside:
        shape = tuple(module.hparams["image_shape"])
        queries, files = read_queries(images, shape, unreadable)
        data = read_data(config)
        data.load_state_dict(known)
        if encode:
            renew(module, data)
        seen = binarise_alike(queries, config["data"]["binarisation"], config["seed"])
        codes = module.encode_stored(seen, show=True).to(module.bank.codes.device)
        rows = module.index.search(codes, k=k)
        distances = distances_to(codes, module.bank.codes, rows).cpu()
        rows = rows.cpu()
        assert data.content is not None
        pictures = torch.cat([queries[:SHOWN, None], data.content.train.images[rows[:SHOWN]]], 1)
        grid(pictures.float() / 255, apart=1).save(beside / "neighbours.png")
        write_table(beside / "neighbours.csv", files, rows, distances, data)
    return sorted(folder.glob("neighbours.*"))


def write_table(
    path: Path, files: list[Path], rows: Tensor, distances: Tensor, data: ImageData
) -> None:
    """A line for each query and neighbour, nearest first."""
    assert data.content is not None
    names, labels = data.content.train.names, data.labels
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "rank", "row", "file", "label", "distance"])
        for query, own, far in zip(files, rows.tolist(), distances.tolist(), strict=True):
            for rank, (row, distance) in enumerate(zip(own, far, strict=True), start=1):
                label = int(labels[row])
                name = data.classes[label] if label >= 0 else ""
                where = names[row] if names else ""
                writer.writerow([query, rank, row, where, name, f"{distance:.6g}"])


def export(
    checkpoint: str,
    where: str | None,
    overrides: list[str],
    *,
    k: int = 8,
    part: str = "train",
    projection: str = "tsne",
    thumbnails: int = 64,
    unreadable: str = "stop",
    out: str | None = None,
) -> list[Path]:
    """`acn export CHECKPOINT [NAME|DIR]`: codes and what goes with them, for other programs.

    Args:
        checkpoint: its path.
        where: None for the images that it was trained on; else an experiment or a folder.
        overrides: `section.key=value` of the checkpoint's config; where an experiment is named,
            what begins with `data.` is of that.
        k: neighbours of each image, among the others.
        part: "train" or "test" images, where there are both.
        projection: "tsne" or "pca".
        thumbnails: the longest side of the images stored, in pixels; 0 for none.
        unreadable: "stop" at a file that is no image, or "skip" it with a warning.
        out: the folder to write to; null for a new one beside the runs.

    Returns:
        The files written: `codes.parquet`, `codes.npz`, `index.faiss`, `about.json`.

    Raises:
        UsageError: something cannot be read, pyarrow is not installed, or the folder `out` exists;
            nothing has been written then.
    """
    from acn_lightning.inference.parquet import require_pyarrow, write_parquet

    require_pyarrow()
    check_choice("projection", projection, PROJECTIONS)
    if not 0 <= thumbnails <= 4096:
        raise UsageError(f"thumbnails: {thumbnails} is not from 0 to 4096.")
    module, config, known, theirs = asked(checkpoint, where, overrides)
    folder = Path(out) if out else run_folder(config)
    with writing_to(folder, config) as beside:
        collection = collect(module, config, known, where, theirs, part, unreadable)
        coded = encode(module, collection, k, config, projection)
        write_parquet(beside / "codes.parquet", collection, coded, thumbnails)
        np.savez(
            beside / "codes.npz",
            codes=coded.codes.numpy(),
            labels=collection.labels.numpy(),
            classes=np.array(collection.classes, dtype=str),
            files=np.array(collection.files, dtype=str),
            neighbours=coded.neighbours.numpy(),
            distances=coded.distances.numpy(),
            places=coded.places.numpy(),
        )
        save_index(coded.searched.index, beside / "index.faiss")
        about = {
            "checkpoint": str(checkpoint),
            "data": collection.name,
            "images": len(collection.images),
            "code_size": coded.codes.shape[1],
            "neighbours": k,
            "index": coded.searched.made,
            "recall": coded.recall,
            "projection": projection,
        }
        (beside / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    return sorted(folder.glob("*"))


def explore(
    checkpoint: str,
    where: str | None,
    overrides: list[str],
    *,
    k: int = 8,
    points: int = 10_000,
    part: str = "train",
    projection: str = "tsne",
    thumbnails: int = 48,
    unreadable: str = "stop",
    out: str | None = None,
    open: bool = False,
) -> Path:
    """`acn explore CHECKPOINT [NAME|DIR]`: one HTML file to look at codes with.

    Args:
        checkpoint, where, overrides, part, projection, unreadable: as for `export`.
        k: neighbours shown at a click.
        points: images shown at most. Of more a sample is taken, of each class its share, and
            neighbours are the nearest within it.
        thumbnails: the longest side of an image in the file, in pixels.
        out: the file to write; null for `explorer.html` in a new folder beside the runs.
        open: whether to open it in a browser.

    Returns:
        The file.

    Raises:
        UsageError: something cannot be read, plotly is not installed, or the file `out` exists;
            nothing has been written then. Or there is no browser to open it.
    """
    from acn_lightning.inference.explorer import page, require_plotly

    require_plotly()
    check_choice("projection", projection, PROJECTIONS)
    if not 2 <= points <= 100_000:
        raise UsageError(f"points: {points} is not from 2 to 100000.")
    if not 8 <= thumbnails <= 256:
        raise UsageError(f"thumbnails: {thumbnails} is not from 8 to 256.")
    if out and Path(out).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"out: {out} is no .html file.")
    module, config, known, theirs = asked(checkpoint, where, overrides)
    path = Path(out) if out else run_folder(config) / "explorer.html"
    with new_file(path) as beside:
        whole = collect(module, config, known, where, theirs, part, unreadable)
        some = whole.at(stratified(whole.labels, points, config["seed"]))
        coded = encode(module, some, k, config, projection)
        title = f"{some.name}: {checkpoint}"
        beside.write_text(page(some, coded, title, len(whole.images), thumbnails), "utf-8")
    if open and not webbrowser.open(path.resolve().as_uri()):
        raise UsageError(f"open: there is no browser here. {path} can be opened in any.")
    return path


def onnx(checkpoint: str, overrides: list[str], *, out: str = "encoder.onnx") -> tuple[Path, float]:
    """`acn onnx CHECKPOINT`: the encoder as an ONNX file, checked with ONNX Runtime.

    Args:
        checkpoint: its path.
        overrides: of the checkpoint's config, `section.key=value`.
        out: the file to write.

    Returns:
        (the file, the largest difference of its codes from PyTorch's).

    Raises:
        UsageError: as for `write_onnx`; or the file exists. Nothing has been written then.
    """
    from acn_lightning.inference.onnx import require_onnx, write_onnx

    require_onnx()
    with new_file(Path(out)) as beside:
        difference = write_onnx(restore(read_checkpoint(checkpoint), overrides), beside)
    return Path(out), difference


# ---------------------------------------------------------------- what they share


def asked(
    checkpoint: str, where: str | None, overrides: list[str]
) -> tuple[ACN, Plain, Plain, list[str]]:
    """(as `trained` has it, overrides of the experiment that is named)."""
    theirs = [word for word in overrides if where is not None and word.startswith("data.")]
    return *trained(checkpoint, [word for word in overrides if word not in theirs]), theirs


def trained(checkpoint: str, overrides: list[str]) -> tuple[ACN, Plain, Plain]:
    """(the module on the device that the config asks for, the config, what the checkpoint knows of
    its data).

    Raises:
        UsageError: as for `restore`; or it has no codes.
    """
    content = read_checkpoint(checkpoint)
    module = restore(content, overrides)
    config: Plain = module.hparams[KEY]
    if config["model"]["encoder"]["kind"] == "none":
        raise UsageError(f"{checkpoint}: this model has no codes (model.encoder.kind=none).")
    device = device_of(config)
    module.to(device)
    module.bank.to(device)
    return module, config, content.get("ImageData", {})


def renew(module: ACN, data: ImageData) -> None:
    """Has the bank and its index hold the training images' codes by the weights as they are."""
    codes = module.encode_stored(data.fixed_set.images, show=True)
    module.bank.codes = codes.to(module.bank.codes.device)
    module.bank.written.clamp_(min=0)
    module.bank.rebuild(module.index, show=True)


@contextmanager
def writing_to(folder: Path, config: Plain) -> Iterator[Path]:
    """A folder to write to, that gets its name when all is written, and is gone on an error. It
    holds `config.yaml`.

    Raises:
        UsageError: there is one of that name, or it cannot be made.
    """
    if folder.exists():
        raise UsageError(f"out: there is {folder} already. Remove it, or choose another name.")
    beside = folder.with_name(f".{folder.name}.partial")
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
        beside.mkdir(parents=True)
        (beside / "config.yaml").write_text(to_yaml(config))
    except OSError as error:
        raise UsageError(f"out: cannot write {folder} ({error}).") from error
    try:
        yield beside
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        remove_empty(made)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to write that gets its name when all is written, and is gone on an error.

    Raises:
        UsageError: there is one of that name, or it cannot be written.
    """
    if path.exists():
        raise UsageError(f"out: there is {path} already. Remove it, or choose another name.")
    beside = path.with_name(f".{path.name}.partial")
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
    except OSError as error:
        remove_empty(made)
        raise UsageError(f"out: cannot write {path} ({error}).") from error
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
        remove_empty(made)


def remove_empty(folders: list[Path]) -> None:
    """Those of them that hold nothing, the innermost first."""
    for folder in folders:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
