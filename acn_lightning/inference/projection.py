"""Places codes on a two-dimensional map."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from acn_lightning.data.subsets import stratified
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import check_choice

LANDMARKS = 10_000
"""Codes that t-SNE places, in half a minute on a core. The others are placed among these."""


PROJECTIONS = ("tsne", "pca")


def project(
    codes: Float[Tensor, "size code"], how: str = "tsne", seed: int = 0, landmarks: int = LANDMARKS
) -> Float[Tensor, "size 2"]:
    """Coordinates of codes on a map.

    Args:
        codes: the codes to place.
        how: "tsne" (van der Maaten and Hinton 2008) or "pca". "tsne" keeps near codes near;
            distances between far ones mean little. With more than `landmarks` codes it places a
            random choice of that many, and every other code at the mean of its three nearest
            landmarks. "pca" takes the first two principal components.
        seed: seed for choosing the landmarks and for t-SNE.
        landmarks: maximum number of codes that t-SNE places.

    Raises:
        UsageError: `how` is neither of these.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    check_projection(how)
    if len(codes) < 2 or codes.shape[1] < 2:
        return torch.nn.functional.pad(codes[:, :1], (0, 1))
    chosen = stratified(torch.zeros(len(codes), dtype=torch.long), landmarks, seed)
    array = codes[chosen].double().numpy()
    if how == "pca" or len(chosen) < 5 or bool((codes == codes[0]).all()):
        basis = PCA(2, random_state=seed).fit(array)
        return torch.from_numpy(basis.transform(codes.double().numpy())).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numerical warnings that do not matter for a picture
        perplexity = min(30.0, (len(chosen) - 1) / 3)
        # Far points seen within this angle count as one. 0.5, the default, takes half as long again
        # and keeps 45.5 % of the ten nearest codes near on the map; this keeps 45.2 %.
        placed = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=seed, angle=0.8)
        places = torch.from_numpy(placed.fit_transform(array)).float()
    if len(chosen) == len(codes):
        return places
    index = NeighbourIndex(codes.shape[1], seed, k=3, factory="Flat", device="cpu")
    index.build(codes[chosen], torch.arange(len(chosen)))
    everyones = torch.cat([places[index.search(some)].mean(1) for some in codes.split(2**14)])
    everyones[chosen] = places
    return everyones


def check_projection(how: str) -> None:
    """Checks that there is a projection of that name.

    Raises:
        UsageError: there is none.
    """
    check_choice("projection", how, PROJECTIONS)
