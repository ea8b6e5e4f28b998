"""Orders of the test set in which each code is near the one before it."""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.utils.optional import require_packages


def greedy_tour(codes: Float[Tensor, "n code"]) -> Int[Tensor, " n"]:
    """Starts at the first code and repeatedly moves to the nearest one not yet visited (arXiv
    1804.02476).

    A step takes up to N distances, a tour O(N^2 D) operations: 10,000 codes take about a second.

    Returns:
        The rows in the order of the tour.
    """
    points = codes.detach().cpu().double().numpy()
    squares = (points**2).sum(1)
    left = np.arange(1, len(points))
    tour = np.zeros(len(points), np.int64)
    for step in range(1, len(points)):
        # The squared distances, up to a constant that all share.
        distances = squares[left] - 2 * points[left] @ points[tour[step - 1]]
        nearest = int(distances.argmin())
        tour[step] = left[nearest]
        left[nearest] = left[-1]
        left = left[:-1]
    return torch.from_numpy(tour).to(codes.device)


MAX_CODES = 20_000
"""Largest number of codes for the solver, which needs all N^2 distances in memory."""


def import_solver() -> Any:
    """Imports the solver, `fast-tsp`.

    Raises:
        UsageError: it is not installed.
    """
    return require_packages("evaluation.tour_seconds", "tour", "fast_tsp")[0]


def shortened_tour(codes: Float[Tensor, "n code"], seconds: float) -> Int[Tensor, " n"]:
    """A shorter tour, by the solver `fast-tsp` (2-opt and Or-opt moves). The solver finds a closed
    tour, whose longest step is left out. For very few or very many codes, the greedy tour.

    Args:
        codes: codes to order.
        seconds: duration of the search.

    Raises:
        UsageError: the solver is not installed.
    """
    solver = import_solver()
    if len(codes) > MAX_CODES:
        warnings.warn(
            f"evaluation.tour_seconds: {len(codes):,} codes are too many to search for a shorter "
            f"tour; the limit is {MAX_CODES:,}. Using the greedy tour.",
            stacklevel=2,
        )
    if not 4 <= len(codes) <= MAX_CODES:
        return greedy_tour(codes)
    points = codes.detach().cpu()
    # The solver takes integers.
    scale = 60_000 / (2 * float((points - points.mean(0)).norm(dim=1).max()) + 1e-30)
    steps = np.empty((len(points), len(points)), np.int32)
    for row, piece in enumerate(points.split(1)):
        steps[row] = (torch.cdist(piece, points)[0] * scale).round().int().numpy()
    closed = np.array(solver.find_tour(steps, duration_seconds=seconds))
    longest = int(steps[closed, np.roll(closed, -1)].argmax())
    return torch.from_numpy(np.roll(closed, -longest - 1)).to(codes.device)
