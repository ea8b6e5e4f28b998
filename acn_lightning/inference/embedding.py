"""Codes of images with their neighbours and places on a map, to export or explore."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from acn_lightning.inference.collection import Collection
from acn_lightning.inference.projection import project
from acn_lightning.module import ACN
from acn_lightning.networks.layers import eval_mode
from acn_lightning.retrieval.exact import distances_to
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import UsageError, check_range
from acn_lightning.utils.progress import progress_bar


class Embedding(NamedTuple):
    """A model's codes of a collection, with neighbours and a map.

    Attributes:
        codes: posterior means, (N, D).
        neighbours: rows of the K other images with the nearest codes, nearest first, (N, K).
        distances: distances to their codes, (N, K).
        places: coordinates on a two-dimensional map, (N, 2).
        searched: the index of all codes; its results are rows of the collection.
        recall: fraction of the true neighbours that the index finds.
    """

    codes: Float[Tensor, "size code"]
    neighbours: Int[Tensor, "size k"]
    distances: Float[Tensor, "size k"]
    places: Float[Tensor, "size 2"]
    searched: NeighbourIndex
    recall: float


def encode(
    module: ACN,
    images: UInt8[Tensor, "size channel height width"],
    batch_size: int = 256,
    show: bool = False,
) -> Float[Tensor, "size code"]:
    """The codes, on the CPU, of images in the form of the training data.

    Args:
        module: a trained module.
        images: binarised if the training images were.
        batch_size: number of images encoded at once.
        show: whether to show progress if it takes more than a few seconds.

    Raises:
        UsageError: the batch size is out of range.
    """
    check_batch_size(batch_size)
    codes = torch.empty(len(images), module.bank.codes.shape[1])
    rows = torch.arange(len(images)).split(batch_size)
    with (
        eval_mode(module),
        progress_bar("encoding", "image", total=len(images), show=show) as shown,
    ):
        for some in rows:
            batch = images[some].to(module.device).float() / 255
            codes[some] = module(batch).mean.float().cpu()
            shown.update(len(some))
    return codes


def check_batch_size(batch_size: int) -> None:
    """Checks the number of images that are encoded or decoded at once.

    Raises:
        UsageError: it is out of range.
    """
    check_range("batch_size", batch_size, 1, 10_000_000)


def embed(module: ACN, collection: Collection, k: int, projection: str = "tsne") -> Embedding:
    """Encodes a collection with the current weights, finds each code's K nearest among the others,
    and places all codes on a map.

    Args:
        module: a trained module; its index sets how to search.
        collection: images in the module's shape.
        k: K.
        projection: see `project`.

    Raises:
        UsageError: K is below 1, or there are not more than K images.
    """
    if not 1 <= k < len(collection.images):
        raise UsageError(f"k: {k} is not from 1 to {len(collection.images) - 1}, the other images.")
    codes = encode(module, collection.seen, show=True).to(module.device)
    index = module.index.like(k)
    rows = torch.arange(len(codes))
    index.build(codes, rows.to(codes.device))
    recall = index.tune()
    table = rows.new_empty(len(codes), k).to(codes.device)
    index.write_neighbours(table, rows.to(codes.device))
    distances = distances_to(codes, codes, table)
    places = project(codes.cpu(), projection, index.seed)
    return Embedding(codes.cpu(), table.cpu(), distances.cpu(), places, index, recall)
