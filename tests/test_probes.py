"""What codes are good for: against scikit-learn, loops and cases done by hand."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_info, threadpool_limits

from acn_lightning.evaluation import linear
from acn_lightning.evaluation.classifiers import (
    Labelled,
    clustering,
    few_labels,
    knn_vote,
    linear_accuracy,
    measure,
    neighbour_labels,
    precision,
    principal_components,
    similarity,
)
from acn_lightning.evaluation.components import principal_directions
from acn_lightning.evaluation.linear import LinearClassifiers
from acn_lightning.retrieval.index import NeighbourIndex
from tests.conftest import naive_vote


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    return Labelled(x[:1200], y[:1200]), Labelled(x[1200:], y[1200:])


def by_hand(train, test):
    mean, scale = train.features.mean(0), train.features.std(0)
    scale[scale == 0] = 1
    model = LogisticRegression(max_iter=1000).fit((train.features - mean) / scale, train.labels)
    return model.score((test.features - mean) / scale, test.labels)


def test_vote_is_the_most_frequent_class_and_the_nearest_among_equals():
    labels = torch.randint(0, 4, (500, 6))
    assert knn_vote(labels, 4).tolist() == [naive_vote(row) for row in labels.tolist()]


def test_a_neighbour_without_a_label_has_no_vote():
    labels = torch.tensor([[-1, 2, 2], [1, -1, 0], [-1, -1, -1], [-1, 0, 1]])
    assert knn_vote(labels, 3).tolist() == [2, 1, -1, 0]


@pytest.mark.parametrize("gaps", ["train", "test", "both"])
def test_images_without_a_label_might_as_well_not_be_there(digits, gaps):
    train, test = digits
    kept = [Labelled(part.features[::2], part.labels[::2]) for part in digits]
    partly = [Labelled(part.features, part.labels.copy()) for part in digits]
    for part in partly:
        part.labels[1::2] = -1
    if gaps == "train":
        kept[1], partly[1] = test, test
    if gaps == "test":
        kept[0], partly[0] = train, train
    expected = measure(*kept, 10)
    assert measure(*partly, 10) == expected
    near = neighbour_labels(partly[0].known(), test)  # as an index would find them
    assert measure(*partly, 10, near) == expected


def test_accuracy_agrees_with_scikit_learn():
    centres = torch.randn(3, 5) * 1.2
    labels = torch.arange(600) % 3
    codes = centres[labels] + torch.randn(600, 5)
    index = NeighbourIndex(5, k=1)
    index.build(codes, torch.arange(500))
    predicted = knn_vote(labels[index.search(codes[500:])], 3)
    reference = KNeighborsClassifier(1).fit(codes[:500], labels[:500])
    assert predicted.tolist() == reference.predict(codes[500:]).tolist()


def test_linear_accuracy_by_hand(digits):
    train, test = digits
    within = pytest.approx(by_hand(train, test), abs=2 / len(test.labels))
    assert linear_accuracy(train, test) == within
    # bytes, as pixels are stored
    in_bytes = [Labelled((part.features * 16).astype(np.uint8), part.labels) for part in digits]
    assert linear_accuracy(*in_bytes) == within


@pytest.mark.parametrize("count", [10, 100, 1200])
def test_the_linear_classifier_is_scikit_learns(digits, count):
    """The same minimum: where theirs is found exactly, ours is no more than 1 % above it."""
    train, test = (part.features.repeat(3, axis=1) for part in digits)  # as alike as pixels are
    labels = digits[0].labels[:count]
    classifiers = LinearClassifiers(train, test)
    features = classifiers.train[:count]
    weights, offsets = classifiers._fit(features, np.eye(10)[labels])
    exact = LogisticRegression(tol=1e-8, max_iter=10_000).fit(features.astype(float), labels)

    def loss(weights, offsets):
        logits = features @ weights.T + offsets
        chosen = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
        return np.sum(logsumexp(logits, axis=1) - chosen) + np.square(weights).sum() / 2

    least = loss(exact.coef_, exact.intercept_)
    assert least <= loss(weights, offsets) < 1.01 * least
    agreed = (classifiers.test @ weights.T + offsets).argmax(1) == exact.predict(classifiers.test)
    assert agreed.mean() > 0.99


@pytest.mark.parametrize("count", [50, 500])
def test_with_two_classes_too(digits, count):
    """scikit-learn has one vector for them, the difference of ours."""
    train, test = (part.features for part in digits)
    labels = digits[0].labels[:count] % 2
    classifiers = LinearClassifiers(train, test)
    features = classifiers.train[:count]
    weights, offsets = classifiers._fit(features, np.eye(2)[labels])
    exact = LogisticRegression(tol=1e-8, max_iter=10_000).fit(features.astype(float), labels)
    apart = np.linalg.norm(weights[1] - weights[0] - exact.coef_[0])
    assert apart < 0.05 * np.linalg.norm(exact.coef_)
    agreed = (classifiers.test @ weights.T + offsets).argmax(1) == exact.predict(classifiers.test)
    assert agreed.mean() > 0.99


@pytest.mark.parametrize(("many", "threads"), [(10**9, 1), (1, 2)])
def test_threads_multiply_only_many_numbers(many, threads, digits, monkeypatch):
    """Two threads on a few numbers take up to ten times as long as one."""

    def in_use():
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    seen = []

    def watched(*arguments, **options):
        seen.append(in_use())
        return original(*arguments, **options)

    original = scipy.optimize.minimize
    monkeypatch.setattr(scipy.optimize, "minimize", watched)
    monkeypatch.setattr(linear, "MANY", many)
    with threadpool_limits(2, user_api="blas"):
        linear_accuracy(*digits)
        assert seen == [{threads}]
        assert in_use() == {2}


def test_principal_components_by_a_singular_value_decomposition(digits):
    train, test = digits
    mean = train.features.mean(0)
    _, _, directions = np.linalg.svd(train.features - mean, full_matrices=False)
    found = principal_components(train, test, 5)
    for part, reduced in zip(digits, found, strict=True):
        expected = (part.features - mean) @ directions[:5].T
        np.testing.assert_allclose(np.abs(reduced.features), np.abs(expected), atol=2e-3)
    assert principal_components(train, test, 1000)[0].features.shape == (1200, 64)


def test_principal_directions_of_many_features():
    """Too many to decompose their covariance."""
    random = np.random.default_rng(0)
    features = random.normal(size=(600, 400)) * np.arange(1, 401) ** -0.7
    features = (features - features.mean(0)).astype(np.float32)
    _, lengths, expected = np.linalg.svd(features, full_matrices=False)
    directions, variances = principal_directions(features, 10)
    assert variances.dtype == directions.dtype == np.float32
    np.testing.assert_allclose(variances, lengths[:10] ** 2 / 600, rtol=1e-3)
    np.testing.assert_allclose(directions @ directions.T, np.eye(10), atol=1e-5)
    assert np.linalg.svd(directions @ expected[:10].T)[1].min() > 0.999


@pytest.mark.parametrize(("images", "rank"), [(40, 40), (100, 100), (600, 30)])
def test_principal_directions_of_features_of_low_rank(images, rank):
    """Fewer images, or directions, than the method's basis has."""
    random = np.random.default_rng(0)
    features = random.normal(size=(images, rank)) @ random.normal(size=(rank, 700))
    features = (features - features.mean(0)).astype(np.float32)
    lengths = np.linalg.svd(features, compute_uv=False)
    directions, variances = principal_directions(features, 30)
    np.testing.assert_allclose(variances, lengths[:30] ** 2 / images, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(directions @ directions.T, np.eye(30), atol=1e-4)


def test_one_class_to_learn_from_is_what_is_guessed():
    train = Labelled(np.random.default_rng(0).normal(size=(20, 3)), np.ones(20, int))
    test = Labelled(np.zeros((4, 3)), np.array([1, 1, 0, 1]))
    assert linear_accuracy(train, test) == 0.75


def test_few_labels_are_of_each_class_and_say_how_far_draws_lie_apart(digits):
    train, test = digits
    learn = LinearClassifiers(train.features, test.features)
    found = few_labels(learn, train.labels, test.labels, 100, 10)
    assert 0.7 < found["mean"] < linear_accuracy(*digits)
    assert 0 < found["spread"] < 0.2
    assert few_labels(learn, train.labels, test.labels, 100, 10) == found
    assert few_labels(learn, train.labels, test.labels, 1000, 10)["mean"] > found["mean"]
    # Only the labels of those that were drawn are looked at.
    chosen = torch.tensor([int(np.flatnonzero(train.labels == label)[0]) for label in range(10)])
    hidden = train.labels.copy()
    hidden[np.setdiff1d(np.arange(1200), chosen)] = 0
    one = linear_accuracy(train, test, chosen)
    assert one == linear_accuracy(Labelled(train.features, hidden), test, chosen)


@pytest.mark.parametrize(("count", "classes"), [(10, 11), (1201, 10)])
def test_too_few_labels_or_images_are_not_measured(digits, count, classes):
    train, test = digits
    learn = LinearClassifiers(train.features, test.features)
    assert few_labels(learn, train.labels, test.labels, count, classes) is None


def test_neighbours_and_precision_by_loops(digits):
    train, test = digits
    test = Labelled(test.features[:40], test.labels[:40])
    near = neighbour_labels(train, test)
    votes, right = [], []
    for query, label in zip(test.features, test.labels, strict=True):
        order = np.linalg.norm(train.features - query, axis=1).argsort(kind="stable")
        labels = train.labels[order[:10]].tolist()
        votes.append(naive_vote(labels[:5]) == label)
        right += [one == label for one in labels]
    found = similarity(train, test, 10)
    assert found == similarity(train, test, 10, near)
    assert found == {"knn": np.mean(votes), "precision_at_10": pytest.approx(np.mean(right))}
    assert precision(near, test.labels) == found["precision_at_10"]


def test_clusters_are_given_the_best_classes():
    """Two far clusters and a class that is split: each assignment, by trial."""
    generator = np.random.default_rng(0)
    places = np.array([[0, 0], [50, 0], [0, 50]])
    found = generator.integers(0, 3, 300)
    labels = np.where(generator.random(300) < 0.8, (found + 1) % 3, found)
    features = places[found] + generator.normal(size=(300, 2))
    result = clustering(Labelled(features, labels), 3)
    best = max(
        np.mean(np.array(order)[found] == labels) for order in itertools.permutations(range(3))
    )
    assert result["cluster_accuracy"] == pytest.approx(best)
    assert 0 < result["nmi"] < 1
    perfect = clustering(Labelled(features, found), 3)
    assert perfect == {"nmi": pytest.approx(1.0), "cluster_accuracy": 1.0}


def test_all_measures_at_once_and_by_an_indexs_answers(digits):
    train, test = digits
    reduced = [Labelled(PCA(8, random_state=0).fit(train.features).transform(part.features),
                        part.labels) for part in digits]  # fmt: skip
    found = measure(*reduced, 10)
    assert set(found) == {
        "linear", "knn", "precision_at_10", "labels_10", "labels_100", "labels_1000", "nmi",
        "cluster_accuracy",
    }  # fmt: skip
    near = np.zeros((len(test.labels), 10), np.int64)
    told = measure(*reduced, 10, near)
    assert told["linear"] == found["linear"]
    assert told["knn"] == np.mean(test.labels == 0)
