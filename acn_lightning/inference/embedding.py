"""Images with their codes, neighbours and places on a map: what is exported and explored."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from acn_lightning.config.compose import Plain, compose, experiments
from acn_lightning.data import ImageData
from acn_lightning.data.convert import as_images
from acn_lightning.data.dataset import binarise, binarise_alike
from acn_lightning.data.sources.base import stratified
from acn_lightning.data.sources.folder import list_images, read_readable
from acn_lightning.experiment.build import read_data
from acn_lightning.module import ACN
from acn_lightning.retrieval.exact import distances_to
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import UsageError, check_choice

LANDMARKS = 10_000
"""Codes that t-SNE places, 40 seconds on a core; the others are placed among these."""

PROJECTIONS = ("tsne", "pca")


class Collection(NamedTuple):
    """Images to be looked at.

    Attributes:
        name: of the data set or folder.
        images: as a person knows them, uint8 (N, C, H, W).
        seen: as the encoder sees them, binarised where the training images were, uint8.
        labels: of each, (N,), -1 where it has none.
        classes: what the labels are called.
        files: of each; empty where they are rows of a larger file.
        rows: what these images are of the whole data, (N,).
    """

    name: str
    images: UInt8[Tensor, "size channel height width"]
    seen: UInt8[Tensor, "size channel height width"]
    labels: Int[Tensor, " size"]
    classes: tuple[str, ...]
    files: tuple[str, ...]
    rows: Int[Tensor, " size"]

    def at(self, rows: Int[Tensor, " n"]) -> "Collection":
        """Some of them."""
        files = tuple(self.files[row] for row in rows.tolist()) if self.files else ()
        return Collection(
            self.name,
            self.images[rows],
            self.seen[rows],
            self.labels[rows],
            self.classes,
            files,
            self.rows[rows],
        )


class Coded(NamedTuple):
    """What a model makes of a collection.

    Attributes:
        codes: the posterior's means, (N, D).
        neighbours: rows of the K images whose codes are nearest, nearest first, itself left out.
        distances: of their codes, (N, K).
        places: on a map in two dimensions, (N, 2).
        searched: the index of all codes; its answers are rows of the collection.
        recall: the part of the true neighbours that it finds.
    """

    codes: Float[Tensor, "size code"]
    neighbours: Int[Tensor, "size k"]
    distances: Float[Tensor, "size k"]
    places: Float[Tensor, "size 2"]
    searched: NeighbourIndex
    recall: float


# ---------------------------------------------------------------- which images


def collect(
    module: ACN,
    config: Plain,
    known: Plain,
    where: str | None,
    overrides: Sequence[str] = (),
    part: str = "train",
    unreadable: str = "stop",
) -> Collection:
    """Images to encode.

    Args:
        module: decides their form, (C, H, W).
        config: of the checkpoint, complete.
        known: what the checkpoint knows of its data, `ImageData.state_dict`.
        where: None for the images that the checkpoint was trained on; else the name of an
            experiment, or a folder with image files.
        overrides: of that experiment's config.
        part: "train" for its training images, those held out for validation included; or "test".
        unreadable: what to do about a file in the folder that is no image: "stop" or "skip".

    Raises:
        UsageError: they cannot be read, or are not those that the checkpoint was trained on.
    """
    check_choice("part", part, ("train", "test"))
    check_choice("unreadable", unreadable, ("stop", "skip"))
    shape = tuple(module.hparams["image_shape"])
    if where is None:
        data = read_data(config)
        data.load_state_dict(known)
        return of_data(data, config["experiment"], part, shape, data.binarisation, data.seed)
    how, seed = config["data"]["binarisation"], config["seed"]
    if Path(where).is_dir():
        files, labelled = list_images(part_of_folder(Path(where), part))
        images, kept = read_readable(files, shape, unreadable)
        return of_files(images, kept, labelled, Path(where).name, how, seed)
    if Path(where).exists() and Path(where).suffix not in (".yaml", ".yml"):
        raise UsageError(f"{where} is a file: give a folder of images, or acn neighbours for one.")
    if where.partition("+")[0] not in experiments() and not Path(where).is_file():
        raise UsageError(
            f"{where}: neither a folder nor an experiment. Experiments are "
            f"{', '.join(experiments())}."
        )
    other = compose(where, overrides)
    return of_data(read_data(other), other["experiment"], part, shape, how, seed)


def part_of_folder(root: Path, part: str) -> Path:
    """Its sub-folder `train` or `test`, where it has both."""
    both = all((root / name).is_dir() for name in ("train", "test"))
    return root / part if both else root


def of_data(
    data: ImageData, name: str, part: str, shape: tuple[int, ...], how: str, seed: int
) -> Collection:
    """The training or test images of a data set, in the model's form."""
    assert data.content is not None
    own = data.content.train if part == "train" else data.content.test
    drawn = data.fixed_set if part == "train" else data.test_set
    images = as_images(own.images, shape)
    # In the data's own form they are the very draw that figures are reported on.
    alike = images.shape == own.images.shape and (how, seed) == (data.binarisation, data.seed)
    seen = drawn.images if alike else binarise(images, how, seed)
    rows = torch.arange(len(images))
    return Collection(name, images, seen, own.labels, tuple(data.classes), own.names, rows)


def of_files(
    images: Tensor, files: Sequence[Path], labelled: bool, name: str, how: str, seed: int
) -> Collection:
    """Images of a folder, whose sub-folders may be classes."""
    classes = sorted({path.parent.name for path in files}) if labelled else []
    number = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([number.get(path.parent.name, -1) for path in files])
    seen = binarise_alike(images, how, seed)
    names, rows = tuple(map(str, files)), torch.arange(len(images))
    return Collection(name, images, seen, labels, tuple(classes), names, rows)


def read_queries(
    paths: Sequence[str], shape: tuple[int, ...], unreadable: str
) -> tuple[Tensor, list[Path]]:
    """(images, files) of files and of folders with files, in the model's form; says so where they
    had another.

    Raises:
        UsageError: there is no such file, or one is no image.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += list_images(path)[0]
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"there is no image {path}.")
    return read_readable(files, shape, unreadable)


# ---------------------------------------------------------------- what the model makes of them


def encode(
    module: ACN, collection: Collection, k: int, config: Plain, projection: str = "tsne"
) -> Coded:
    """Codes by the weights as they are, each one's K nearest among the others, and a map.

    Args:
        module: trained.
        collection: in the module's form.
        k: K.
        config: complete; `neighbours` says how to search.
        projection: see `project`.

    Raises:
        UsageError: K is below 1, or there are no more than K images.
    """
    if not 1 <= k < len(collection.images):
        raise UsageError(f"k: {k} is not from 1 to {len(collection.images) - 1}, the other images.")
    codes = module.encode_stored(collection.seen, show=True)
    options = config["neighbours"] | {"k": k}
    index = NeighbourIndex(codes.shape[1], config["seed"], **options)
    rows = torch.arange(len(codes))
    codes = codes.to(module.device)
    index.build(codes, rows.to(codes.device), show=True)
    recall = index.tune(show=True)
    table = rows.new_empty(len(codes), k).to(codes.device)
    index.write_neighbours(table, rows.to(codes.device), show=True)
    distances = torch.cat(
        [distances_to(codes[some], codes, table[some]) for some in rows.split(2**14)]
    )
    places = project(codes.cpu(), projection, config["seed"])
    return Coded(codes.cpu(), table.cpu(), distances.cpu(), places, index, recall)


def project(
    codes: Float[Tensor, "size code"], how: str = "tsne", seed: int = 0, landmarks: int = LANDMARKS
) -> Float[Tensor, "size 2"]:
    """Places in two dimensions.

    Args:
        codes: of the images.
        how: "tsne" (van der Maaten and Hinton 2008): near codes come to lie near, distances of far
            ones mean little. Of more than `landmarks` codes it places so many, and each other one
            at the mean of its three nearest of these. "pca": the two principal components.
        seed: of the landmarks, and of t-SNE.
        landmarks: how many.

    Raises:
        UsageError: `how` is none of these.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    check_choice("projection", how, PROJECTIONS)
    if len(codes) < 2 or codes.shape[1] < 2:
        return torch.nn.functional.pad(codes[:, :1], (0, 1))
    chosen = stratified(torch.zeros(len(codes), dtype=torch.long), landmarks, seed)
    array = codes[chosen].double().numpy()
    if how == "pca" or len(chosen) < 5 or bool((codes == codes[0]).all()):
        basis = PCA(2, random_state=seed).fit(array)
        return torch.from_numpy(basis.transform(codes.double().numpy())).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numerics that do not matter to a picture
        perplexity = min(30.0, (len(chosen) - 1) / 3)
        placed = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=seed)
        places = torch.from_numpy(placed.fit_transform(array)).float()
    if len(chosen) == len(codes):
        return places
    index = NeighbourIndex(codes.shape[1], seed, k=3, factory="Flat", device="cpu")
    index.build(codes[chosen], torch.arange(len(chosen)))
    everyones = torch.cat([places[index.search(some)].mean(1) for some in codes.split(2**14)])
    everyones[chosen] = places
    return everyones
