"""Tours against a naive walk."""

import time

import pytest
import torch

from acn_lightning.callbacks import MeasureTest
from acn_lightning.evaluation import tours
from acn_lightning.evaluation.tours import greedy_tour, shortened_tour
from acn_lightning.utils.errors import UsageError


def naive(codes):
    tour, left = [0], set(range(1, len(codes)))
    while left:
        distances = {i: float((codes[i] - codes[tour[-1]]).double().norm()) for i in left}
        tour.append(min(distances, key=distances.get))
        left.remove(tour[-1])
    return tour


def length(codes, tour):
    return float(torch.linalg.vector_norm(codes[tour[1:]] - codes[tour[:-1]], dim=1).sum())


@pytest.mark.parametrize("size", [1, 2, 3, 60])
def test_greedy_goes_to_the_nearest_unvisited(size):
    codes = torch.randn(size, 3)
    assert greedy_tour(codes).tolist() == naive(codes)


def test_duplicates_are_visited_each():
    codes = torch.randn(5, 2).repeat(4, 1)
    tour = greedy_tour(codes)
    assert sorted(tour.tolist()) == list(range(20))
    assert length(codes, tour) == pytest.approx(length(codes[:5], greedy_tour(codes[:5])), rel=1e-5)


def test_ten_thousand_codes_take_seconds():
    codes = torch.randn(10_000, 16)
    start = time.perf_counter()
    assert sorted(greedy_tour(codes).tolist()) == list(range(10_000))
    assert time.perf_counter() - start < 20  # about one on an idle core


def test_the_solver_visits_each_and_is_shorter():
    pytest.importorskip("fast_tsp")
    codes = torch.randn(300, 4)
    tour = shortened_tour(codes, seconds=1.0)
    assert sorted(tour.tolist()) == list(range(300))
    assert length(codes, tour) < length(codes, greedy_tour(codes))


def test_without_the_solver_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fast_tsp", None)
    message = r"evaluation\.tour_seconds needs fast_tsp: pip install '?fast-tsp"
    with pytest.raises(UsageError, match=message):
        shortened_tour(torch.randn(9, 2), seconds=1.0)
    with pytest.raises(UsageError, match=message):  # before a run, and not at its end
        MeasureTest(tour_seconds=1.0)


def test_too_many_codes_for_the_solver_are_toured_greedily(monkeypatch):
    monkeypatch.setattr(tours, "import_solver", lambda: None)
    monkeypatch.setattr(tours, "MAX_CODES", 30)
    codes = torch.randn(31, 2)
    with pytest.warns(UserWarning, match="31 codes"):
        assert torch.equal(shortened_tour(codes, seconds=1.0), greedy_tour(codes))
