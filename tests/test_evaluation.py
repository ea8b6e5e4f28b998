"""Votes against a naive count, and against scikit-learn."""

import torch
from sklearn.neighbors import KNeighborsClassifier

from acn_lightning.evaluation import knn_vote
from acn_lightning.neighbours import NeighbourIndex
from tests.conftest import naive_vote


def test_vote_is_the_most_frequent_class_and_the_nearest_among_equals():
    labels = torch.randint(0, 4, (500, 6))
    assert knn_vote(labels, 4).tolist() == [naive_vote(row) for row in labels.tolist()]


def test_accuracy_agrees_with_scikit_learn():
    centres = torch.randn(3, 5) * 1.2
    labels = torch.arange(600) % 3
    codes = centres[labels] + torch.randn(600, 5)
    index = NeighbourIndex(5, k=1)
    index.build(codes[:500], torch.arange(500))
    predicted = knn_vote(labels[index.search(codes[500:])], 3)
    reference = KNeighborsClassifier(1).fit(codes[:500], labels[:500])
    assert predicted.tolist() == reference.predict(codes[500:]).tolist()
