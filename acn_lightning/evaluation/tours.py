"""Orders of the test set in which each code is near the one before it."""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.utils.optional import require


def greedy_tour(codes: Float[Tensor, "n code"]) -> Int[Tensor, " n"]:
    """Begins with the first code and goes on to the nearest one not yet visited, again and again
    (arXiv 1804.02476).

    N distances a step, N^2 D in all: 10,000 codes take about a second.

    Returns:
        The rows in the order of the visit.
    """
    points = codes.detach().double().cpu().numpy()
    squares = (points**2).sum(1)
    left = np.arange(1, len(points))
    tour = np.zeros(len(points), np.int64)
    for step in range(1, len(points)):
        # Up to what all have in common, the squared distances.
        distances = squares[left] - 2 * points[left] @ points[tour[step - 1]]
        nearest = int(distances.argmin())
        tour[step] = left[nearest]
        left[nearest] = left[-1]
        left = left[:-1]
    return torch.from_numpy(tour).to(codes.device)


MOST = 20_000
"""Codes that the solver is given at most: it wants all N^2 distances in memory."""


def import_solver() -> Any:
    """`fast-tsp`.

    Raises:
        UsageError: it is not installed.
    """
    return require("evaluation.tour_seconds", "tour", "fast_tsp")[0]


def shortened_tour(codes: Float[Tensor, "n code"], seconds: float) -> Int[Tensor, " n"]:
    """A shorter one, by the solver `fast-tsp` (2-opt and Or-opt moves): of the closed tour that it
    finds the longest step is left out. Of very few codes, or very many, the greedy tour.

    Args:
        codes: to order.
        seconds: of search.

    Raises:
        UsageError: the solver is not installed.
    """
    solver = import_solver()
    if len(codes) > MOST:
        warnings.warn(f"No shorter tour of {len(codes):,} codes is sought: too many.", stacklevel=2)
    if not 4 <= len(codes) <= MOST:
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
