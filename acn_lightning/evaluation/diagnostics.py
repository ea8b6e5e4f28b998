"""Dashboard stats on codes and their neighbours during training."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution

from acn_lightning import objective
from acn_lightning.evaluation.classifiers import Labelled, measure, similarity
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.exact import distances_to

ACTIVE = 0.01
"""A dimension is active if the variance of the posterior means is above this (Burda, Grosse and
Salakhutdinov, arXiv 1509.00519); the posterior's own variance is 1."""

ACCURACIES = {"knn": "knn_accuracy", "linear": "linear_accuracy"}
"""Dashboard names of these stats of `classifiers.measure`."""


def code_stats(codes: Float[Tensor, "n code"]) -> dict[str, float]:
    """How codes are distributed in their space.

    Returns:
        - `norm`: the mean length of a code;
        - `variance_mean`, `variance_min`: mean and minimum of the dimensions' variances;
        - `active_dimensions`: number of dimensions with a variance above 0.01;
        - `eigenvalue_min`, `eigenvalue_max`: of the covariance, the variance along the directions
          in which codes vary least and most. In a collapse both are 0. If codes lie on a thread,
          the smallest is 0 and the largest far above the rest;
        - `effective_dimensions`: (sum of the eigenvalues)^2 / sum of their squares. D if all
          directions vary alike, 1 if codes lie on a line.
    """
    variance = codes.var(0, correction=0)
    size = codes.shape[1]
    covariance = torch.cov(codes.cpu().double().T, correction=0).view(1, size, size)
    finite = bool(covariance.isfinite().all())  # else the run ends soon, and says why
    eigenvalues = torch.linalg.eigvalsh(covariance if finite else torch.zeros_like(covariance))[0]
    eigenvalues = eigenvalues.clamp(min=0) if finite else torch.full_like(eigenvalues, math.nan)
    effective = eigenvalues.sum().square() / eigenvalues.square().sum().clamp(min=1e-30)
    return {
        "codes/norm": float(torch.linalg.vector_norm(codes, dim=1).mean()),
        "codes/variance_mean": float(variance.mean()),
        "codes/variance_min": float(variance.min()),
        "codes/active_dimensions": float((variance > ACTIVE).sum()),
        "codes/eigenvalue_min": float(eigenvalues[0]),
        "codes/eigenvalue_max": float(eigenvalues[-1]),
        "codes/effective_dimensions": float(effective),
    }


def neighbour_stats(
    bank: CodeBank, rows: Int[Tensor, " n"], before: Int[Tensor, "n k"] | None
) -> dict[str, float]:
    """Figures on some rows' neighbours in the table: `neighbour_distance`, the mean distance of the
    codes; `neighbour_agreement`, the fraction with the row's own class, if there are classes;
    `neighbours_changed`, the fraction that were not neighbours before.

    Args:
        bank: bank with a neighbour table.
        rows: rows of codes that are trained on.
        before: the same rows of the previous table; None if there was none.
    """
    table = bank.require_neighbours()[rows].long()
    stats = {
        "bank/neighbour_distance": float(distances_to(bank.codes[rows], bank.codes, table).mean())
    }
    labels = bank.labels[rows]
    if bool((labels >= 0).all()) and bool((labels != labels[0]).any()):
        same = bank.labels[table] == labels[:, None]
        stats["bank/neighbour_agreement"] = int(same.sum()) / same.numel()
    if before is not None:
        stayed = (table[:, :, None] == before[:, None, :]).any(2)
        stats["bank/neighbours_changed"] = 1 - int(stayed.sum()) / stayed.numel()
    return stats


def drift(
    stored: Float[Tensor, "n code"], fresh: Float[Tensor, "n code"], neighbour_distance: float
) -> float:
    """How far codes have moved since they were stored, divided by the mean distance of codes to
    their neighbours."""
    moved = float(torch.linalg.vector_norm(fresh - stored, dim=1).mean())
    return moved / max(neighbour_distance, 1e-12)


def gain(
    decoder: Callable[[Tensor], Distribution],
    z: Float[Tensor, "n code"],
    image: Float[Tensor, "n channel height width"],
) -> float:
    """Nats that an image costs more with another image's code than with its own.

    Args:
        decoder: maps codes to r(x|z).
        z: codes of at least two images.
        image: the images.
    """
    own, others = (objective.distortion(decoder(one), image) for one in (z, z.roll(1, 0)))
    return float((others - own).mean())


def probe(
    train: tuple[Float[Tensor, "n code"], Int[Tensor, " n"]],
    held_out: tuple[Float[Tensor, "m code"], Int[Tensor, " m"]],
    classes: int,
    linear: bool = True,
) -> dict[str, float]:
    """The results of `classifiers.measure` for codes, as dashboard stats.

    Args:
        train: codes and labels to learn from.
        held_out: codes and labels to test on.
        classes: number of classes.
        linear: whether to fit classifiers and clusters; if false, only neighbours are measured.
    """
    learnt, asked = (
        Labelled(codes.cpu().numpy(), labels.cpu().numpy()) for codes, labels in (train, held_out)
    )
    found = (measure if linear else similarity)(learnt, asked, classes)
    stats = {}
    for name, value in found.items():
        figure = value["mean"] if isinstance(value, dict) else value
        if figure is not None:
            stats[f"codes/{ACCURACIES.get(name, name)}"] = figure
    return stats
