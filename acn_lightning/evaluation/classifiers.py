"""Figures for uses of codes: classification from all labels or a few, image retrieval, clustering.
Pure functions of features and labels, so pixels can be measured the same way."""

import statistics
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import one_hot

from acn_lightning.data.subsets import stratified
from acn_lightning.evaluation.components import principal_directions
from acn_lightning.evaluation.linear import LinearClassifiers
from acn_lightning.retrieval.exact import exact_neighbours

KNN = 5
"""The K of the KNN classifier."""

RETRIEVED = 10
"""Number of retrieved images that precision is measured on."""

LABELS = (10, 100, 1000)
"""Numbers of labels for the classifiers that learn from few."""

DRAWS = 5
"""Number of draws of these labels."""


class Labelled(NamedTuple):
    """Features of any scale, (N, F), and their classes, (N,), for training or testing; -1 for an
    image without a label, which is left out of all that needs one."""

    features: np.ndarray
    labels: np.ndarray

    def at(self, rows: np.ndarray) -> "Labelled":
        """Those in these rows."""
        return Labelled(self.features[rows], self.labels[rows])

    def known(self) -> "Labelled":
        """Those that have a label."""
        has = self.labels >= 0
        return self if has.all() else Labelled(self.features[has], self.labels[has])


def measure(
    train: Labelled, test: Labelled, classes: int, near: np.ndarray | None = None
) -> dict[str, Any]:
    """Computes everything that this module measures.

    Args:
        train: features and labels to learn from, and to search.
        test: features and labels to test on.
        classes: number of classes.
        near: as for `similarity`.

    Returns:
        Fractions: `linear`, `knn` (K = 5), `precision_at_10`, `nmi` and `cluster_accuracy`; and
        `labels_10`, `labels_100` and `labels_1000`, each {"mean", "spread"}, or None if that is
        fewer labels than classes or more than there are.
    """
    return {
        **linear_accuracies(train.known(), test.known(), classes),
        **similarity(train, test, classes, near),
        **clustering(test.known(), classes),
    }


def principal_components(
    train: Labelled, test: Labelled, components: int
) -> tuple[Labelled, Labelled]:
    """Projects both sets onto that many principal components of the training features, or onto all
    if there are fewer."""
    whole = train.features.astype(np.float32)
    mean = whole.mean(0)
    whole -= mean
    directions, _ = principal_directions(whole, min(components, *whole.shape))
    tested = test.features.astype(np.float32) - mean
    return (
        Labelled(whole @ directions.T, train.labels),
        Labelled(tested @ directions.T, test.labels),
    )


# ---------------------------------------------------------------- classifiers


def linear_accuracy(
    train: Labelled, test: Labelled, chosen: Int[Tensor, " n"] | slice = slice(None)
) -> float:
    """Accuracy of multinomial logistic regression, as a fraction of the test images.

    Features are standardised with the training images' statistics. The penalty is scikit-learn's
    default, L2 with C = 1.

    Args:
        train: features and labels to learn from.
        test: features and labels to test on.
        chosen: training images whose labels are known; the others only serve to standardise.
    """
    known = chosen if isinstance(chosen, slice) else chosen.numpy()
    classifiers = LinearClassifiers(train.features, test.features)
    return classifiers.accuracy(train.labels, test.labels, known)


def linear_accuracies(train: Labelled, test: Labelled, classes: int) -> dict[str, Any]:
    """`linear`, the `linear_accuracy` with all labels; and `labels_10`, `labels_100` and
    `labels_1000` with that many: see `few_labels`."""
    classifiers = LinearClassifiers(train.features, test.features)
    few = {f"labels_{count}": few_labels(classifiers, train.labels, test.labels, count, classes)
           for count in LABELS}  # fmt: skip
    return {"linear": classifiers.accuracy(train.labels, test.labels), **few}


def few_labels(
    classifiers: LinearClassifiers,
    labels: np.ndarray,
    test_labels: np.ndarray,
    count: int,
    classes: int,
) -> dict[str, float] | None:
    """`linear_accuracy` if only `count` training images have labels, each class getting its share.

    Args:
        classifiers: features to learn from and to test on.
        labels: labels to choose from.
        test_labels: labels to test on.
        count: total number of labels.
        classes: number of classes.

    Returns:
        {"mean", "spread"} over five draws, the spread being the largest minus the smallest; None if
        `count` is below the number of classes, or above that of training images.
    """
    if not classes <= count <= len(labels):
        return None
    draws = [stratified(torch.from_numpy(labels), count, seed).numpy() for seed in range(DRAWS)]
    found = [classifiers.accuracy(labels, test_labels, chosen) for chosen in draws]
    return {"mean": statistics.mean(found), "spread": max(found) - min(found)}


def knn_vote(labels: Int[Tensor, "batch k"], classes: int) -> Int[Tensor, " batch"]:
    """The most frequent class among the K nearest neighbours.

    Args:
        labels: labels of each query's neighbours, nearest first, 0 to `classes` - 1; -1 has no
            vote.
        classes: number of classes.

    Returns:
        A class for each query. Among equally frequent classes, the one with the nearest neighbour;
        -1 if no neighbour has a label.

    Example:
        >>> import torch
        >>> knn_vote(torch.tensor([[0, 2, 2], [1, 0, 2]]), classes=3)
        tensor([2, 1])
    """
    known, own = labels >= 0, labels.clamp(min=0)
    votes = one_hot(own, classes) * known[..., None]
    most = votes.sum(dim=1).gather(1, own)  # votes for each neighbour's own class
    most = most.masked_fill(~known, -1)
    # argmax takes the first of equals, which is the nearest.
    return labels.gather(1, most.argmax(dim=1, keepdim=True)).squeeze(1)


# ---------------------------------------------------------------- retrieval and clustering


def neighbour_labels(train: Labelled, test: Labelled) -> np.ndarray:
    """Labels of the 10 training images with a label that are nearest to each test image, nearest
    first, (N, 10)."""
    train = train.known()
    stored = torch.from_numpy(train.features).float().flatten(1)
    queries = torch.from_numpy(test.features).float().flatten(1)
    rows = torch.arange(len(stored))
    near = exact_neighbours(queries, stored, rows, min(RETRIEVED, len(stored)))
    return train.labels[near.numpy()]


def similarity(
    train: Labelled, test: Labelled, classes: int, near: np.ndarray | None = None
) -> dict[str, float]:
    """`knn`, the accuracy of a vote of the 5 nearest, and `precision_at_10`.

    Args:
        train: features and labels to search.
        test: the queries.
        classes: number of classes.
        near: labels of the 10 training images nearest to each query, (N, 10), nearest first, if
            they have been found: images without a label have to be left out. None searches.
    """
    near = neighbour_labels(train, test) if near is None else near
    near, labels = near[test.labels >= 0], test.known().labels
    voted = knn_vote(torch.from_numpy(near[:, :KNN]), classes).numpy()
    return {"knn": float((voted == labels).mean()), "precision_at_10": precision(near, labels)}


def precision(near: np.ndarray, labels: np.ndarray) -> float:
    """The fraction of retrieved images that have the class of their query.

    Args:
        near: labels of the retrieved images, (N, K).
        labels: labels of the queries, (N,).

    Example:
        >>> precision(np.array([[1, 1, 0, 0], [2, 2, 2, 2]]), np.array([1, 2]))
        0.75
    """
    return float((near == labels[:, None]).mean())


def clustering(test: Labelled, classes: int) -> dict[str, float]:
    """Compares k-means, with as many clusters as classes, to the classes.

    Returns:
        `nmi`, the normalised mutual information of cluster and class; `cluster_accuracy`, the
        fraction of images in the right class under the best one-to-one match of clusters and
        classes.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score

    count = min(classes, len(test.labels))
    model = KMeans(count, n_init=10, random_state=0)
    found = model.fit_predict(test.features.astype(np.float32))
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (found, test.labels), 1)
    matched = table[linear_sum_assignment(table, maximize=True)].sum()
    return {
        "nmi": float(normalized_mutual_info_score(test.labels, found)),
        "cluster_accuracy": float(matched / len(test.labels)),
    }
