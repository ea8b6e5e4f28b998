"""What a model and its codes are worth: the paper's two tables, as pure functions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import one_hot

from acn_lightning import objective
from acn_lightning.code_bank import CodeBank
from acn_lightning.encoders import unit_normal
from acn_lightning.neighbours import NeighbourIndex
from acn_lightning.priors import Prior

NEIGHBOURS = (1, 5, 10)
"""The K whose costs the paper reports."""

KNN = 5
"""The K of the KNN classifier."""


class Coded(NamedTuple):
    """Test images after the encoder and the decoder.

    Attributes:
        index: row in the test set, (B,).
        mean: of the posterior q(z|x), (B, D).
        z: S samples of it, (S, B, D).
        distortion: -log r(x|z) in nats, the mean over the samples, (B,).
    """

    index: Int[Tensor, " batch"]  # type: ignore[assignment]  # hides tuple.index
    mean: Float[Tensor, "batch code"]
    z: Float[Tensor, "sample batch code"]
    distortion: Float[Tensor, " batch"]


# ---------------------------------------------------------------- costs


def bounds(
    coded: Coded,
    prior: Prior,
    bank: CodeBank,
    index: NeighbourIndex,
    nearest: int,
    orders: Sequence[Int[Tensor, " batch"]],
) -> dict[str, float]:
    """The paper's costs of the test set, in nats per image.

    Each is an upper bound of what a sender would pay who has to make the test images known to a
    receiver with the same networks and training codes. Reconstruction + KL is the evidence bound,
    -log p(x|c) <= E_q[-log r(x|z)] + KL(q(z|x) || p(z|c)), whatever c the receiver can name:

    - `kl_k<K>`: the mean over the K training codes nearest to the posterior's mean. The receiver
      does not know which these are, so these are the costs *given a similar image*;
    - `kl_unconditional`: p(z) = 1/N sum_j p(z|c_j), the average over all training codes, known to
      both. Terms of the sum that are left out would lower the cost. So `unordered` bounds the
      negative log-likelihood, and compares with other models;
    - `kl_tour`: the images are sent in an order in which each is like the one before it; the first
      pays the unconditional cost. The receiver has decoded the image before, and so knows its code.
      The sender may choose the order, so the cheapest of several is a bound too. `ordered` bounds
      the cost of the images as a set, not of any one of them.

    With sampled z these are estimates of the bounds, without bias; but the least of several tours'
    estimates is low by a little of their noise.

    Args:
        coded: the test images.
        prior: of the model.
        bank: codes of the training images.
        index: built from it.
        nearest: terms of the unconditional sum for each image.
        orders: tours of the test images, each a permutation of the batch.

    Returns:
        `reconstruction`, `kl_k1`, `kl_k5`, `kl_k10`, `kl_tour`, `kl_unconditional`, `ordered`,
        `unordered`.

    Raises:
        UsageError: fewer training codes than the largest K.
    """
    posterior = unit_normal(coded.mean)

    def rate(given: Distribution) -> Tensor:
        """Of each image, the mean over the samples of z."""
        return torch.stack([objective.rate(posterior, given, z) for z in coded.z]).mean(0)

    rows = index.search(coded.mean, k=max(NEIGHBOURS))
    by_rank = torch.stack([rate(prior(bank.codes[column])) for column in rows.T])
    unconditional = rate(prior.marginal(bank.codes[bank.rows], nearest))
    tours = []
    for order in orders:
        before = torch.empty_like(order)
        before[order] = order.roll(1)  # each image's predecessor
        costs = rate(prior(coded.mean[before]))
        costs[order[0]] = unconditional[order[0]]
        tours.append(costs.mean())
    figures = {"reconstruction": float(coded.distortion.mean())}
    figures |= {f"kl_k{k}": float(by_rank[:k].mean()) for k in NEIGHBOURS}
    figures |= {"kl_tour": float(min(tours)), "kl_unconditional": float(unconditional.mean())}
    return figures | {
        "ordered": figures["reconstruction"] + figures["kl_tour"],
        "unordered": figures["reconstruction"] + figures["kl_unconditional"],
    }


def bits_per_dim(nats: float, dims: int) -> float:
    """Nats per image as bits for each of its `dims` values, C x H x W.

    Example:
        >>> round(bits_per_dim(784.0, 784), 4)  # one nat each
        1.4427
    """
    return nats / (dims * math.log(2))


# ---------------------------------------------------------------- accuracies


def knn_vote(labels: Int[Tensor, "batch k"], classes: int) -> Int[Tensor, " batch"]:
    """The class that most of the K nearest neighbours have.

    Args:
        labels: of each query's neighbours, nearest first, 0 to `classes` - 1.
        classes: how many there are.

    Returns:
        A class for each query. Among equally frequent ones that of the nearest neighbour.

    Example:
        >>> import torch
        >>> knn_vote(torch.tensor([[0, 2, 2], [1, 0, 2]]), classes=3)
        tensor([2, 1])
    """
    votes = one_hot(labels, classes)
    most = votes.sum(dim=1).gather(1, labels)  # votes for each neighbour's own class
    # argmax takes the first of equals, which is the nearest.
    return labels.gather(1, most.argmax(dim=1, keepdim=True)).squeeze(1)


class Labelled(NamedTuple):
    """What a classifier learns from, or is asked: (N, F) features of any scale, (N,) classes."""

    features: np.ndarray
    labels: np.ndarray


def linear_accuracy(train: Labelled, test: Labelled, components: int | None = None) -> float:
    """Of multinomial logistic regression, as a fraction of the test images.

    Features are standardised by the training images. scikit-learn's defaults otherwise: an L2
    penalty with C = 1.

    Args:
        components: how many principal components to take in place of the features.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    reduce = [PCA(components, random_state=0)] if components else []
    single = FunctionTransformer(np.float32)  # bytes of pixels; twice the memory would buy nothing
    model = make_pipeline(single, *reduce, StandardScaler(), LogisticRegression(max_iter=1000))
    if len(np.unique(train.labels)) < 2:  # which the library refuses
        return float((test.labels == train.labels[0]).mean())
    model.fit(train.features, train.labels)
    return float(model.score(test.features, test.labels))


def accuracies(
    codes: tuple[Labelled, Labelled] | None, pixels: tuple[Labelled, Labelled] | None
) -> dict[str, float | None]:
    """How much of the class a linear classifier finds in the codes, and in the pixels without any
    model.

    Args:
        codes: (training, test), by the same weights; None leaves them out.
        pixels: (training, test) images, flat; None leaves them out.

    Returns:
        `linear`, `linear_pca` (as many principal components of the pixels as a code has numbers)
        and `linear_pixels`, as fractions.
    """
    found: dict[str, float | None] = dict.fromkeys(("linear", "linear_pca", "linear_pixels"))
    if codes:
        found["linear"] = linear_accuracy(*codes)
    if codes and pixels:
        components = min(codes[0].features.shape[1], *pixels[0].features.shape)
        found["linear_pca"] = linear_accuracy(*pixels, components=components)
        found["linear_pixels"] = linear_accuracy(*pixels)
    return found
