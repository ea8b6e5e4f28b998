"""Exact nearest codes, from all distances, in blocks that fit into memory: slow."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

DIFFERENCES = 2**24
"""Numbers in the differences of codes that are held at once, and in copies of these codes."""


def exact_neighbours(
    queries: Float[Tensor, "n code"],
    codes: Float[Tensor, "size code"],
    rows: Int[Tensor, " candidates"],
    k: int,
    exclude: Int[Tensor, " n"] | None = None,
    memory: int = 2**29,
) -> Int[Tensor, "n k"]:
    """The rows of the K codes nearest to each query in Euclidean distance, nearest first.

    Args:
        queries: codes on the same device as the table.
        codes: table of codes.
        rows: rows of the table that are candidates; more than K.
        k: K.
        exclude: for each query, a row that must not be among its answers.
        memory: bytes to hold at once.
    """
    # Per pair: a distance, a copy of it and whether it is excluded. Per candidate: its code.
    at_once = max(1, math.isqrt(memory // 9))
    answers = []
    for start in range(0, len(queries), at_once):
        some = queries[start : start + at_once]
        own = None if exclude is None else exclude[start : start + at_once, None]
        nearest = rows.new_empty(len(some), 0)
        distances = some.new_empty(len(some), 0)
        for block in rows.split(max(1, memory // (9 * len(some) + 4 * codes.shape[1]))):
            further = torch.cdist(some, codes[block])
            if own is not None:
                further[own == block] = torch.inf
            best = further.topk(min(k, len(block)), largest=False)
            distances = torch.cat([distances, best.values], dim=1)
            nearest = torch.cat([nearest, block[best.indices]], dim=1)
            best = distances.topk(min(k, distances.shape[1]), largest=False)
            distances, nearest = best.values, nearest.gather(1, best.indices)
        answers.append(nearest)
    return torch.cat(answers)


def distances_to(
    queries: Float[Tensor, "n code"], codes: Float[Tensor, "size code"], rows: Int[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    """Euclidean distances from each query to the codes at its rows. Holds the differences of some
    queries at once, `DIFFERENCES` numbers or those of one query if they are more."""
    at_once = max(1, DIFFERENCES // max(1, rows.shape[1] * codes.shape[1]))
    return torch.cat(
        [
            torch.linalg.vector_norm(codes[near] - some[:, None], dim=2)
            for some, near in zip(queries.split(at_once), rows.split(at_once), strict=True)
        ]
    )
