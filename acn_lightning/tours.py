"""Orders of the test set in which each code is near the one before it."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.errors import UsageError


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


def shortened_tour(codes: Float[Tensor, "n code"], seconds: float) -> Int[Tensor, " n"]:
    """A shorter one, by the solver `fast-tsp` (2-opt and Or-opt moves): of the closed tour that it
    finds the longest step is left out.

    Args:
        codes: to order.
        seconds: of search.

    Raises:
        UsageError: the solver is not installed.
    """
    try:
        import fast_tsp
    except ImportError as error:
        raise UsageError(
            "evaluation.tour_seconds: the tour solver is not installed: "
            "pip install 'acn-lightning[tour]', or leave it out for the greedy tour."
        ) from error
    if len(codes) < 4:  # where all tours are greedy ones
        return greedy_tour(codes)
    distances = torch.cdist(codes, codes).double().cpu().numpy()
    # The solver takes integers.
    steps = np.rint(distances * (60_000 / max(distances.max(), 1e-30))).astype(np.int64)
    closed = np.array(fast_tsp.find_tour(steps, duration_seconds=seconds))
    longest = int(steps[closed, np.roll(closed, -1)].argmax())
    return torch.from_numpy(np.roll(closed, -longest - 1)).to(codes.device)
