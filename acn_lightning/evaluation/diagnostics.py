"""What codes and their neighbours look like while they are learned: figures for a dashboard."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.evaluation.classifiers import Labelled, measure, neighbour_labels, similarity
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.exact import distances_to

ACTIVE = 0.01
"""A dimension is active where the posterior means vary by more than this (Burda, Grosse and
Salakhutdinov, arXiv 1509.00519); the posterior's own variance is 1."""

ACCURACIES = {"knn": "knn_accuracy", "linear": "linear_accuracy"}
"""What a dashboard calls these of `probes.measure`."""


def code_figures(codes: Float[Tensor, "n code"]) -> dict[str, float]:
    """How codes lie in their space.

    Returns:
        - `norm`: the mean length of a code;
        - `variance_mean`, `variance_min`: over its dimensions;
        - `active_dimensions`: how many of these vary by more than 0.01;
        - `eigenvalue_min`, `eigenvalue_max`: of the covariance, the variance along the direction in
          which codes vary least and most. A collapse has both at 0, a thread the least at 0 and the
          largest far above the rest;
        - `effective_dimensions`: (sum of the eigenvalues)^2 / sum of their squares. D where all
          directions vary alike, 1 where codes lie on a line.
    """
    variance = codes.var(0, correction=0)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(codes.double().cpu().T, correction=0)[None])[0]
    eigenvalues = eigenvalues.clamp(min=0)
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


def neighbour_figures(
    bank: CodeBank, rows: Int[Tensor, " n"], before: Int[Tensor, "n k"] | None
) -> dict[str, float]:
    """Of some rows' neighbours in the table: `neighbour_distance`, the mean distance of the codes;
    `neighbour_agreement`, the fraction that have the row's own class, where there are classes;
    `neighbours_changed`, the fraction that were none before.

    Args:
        bank: with its table.
        rows: of codes that are trained on.
        before: the same rows of the table before; None where there was none.
    """
    table = bank.require_neighbours()[rows].long()
    figures = {
        "bank/neighbour_distance": float(distances_to(bank.codes[rows], bank.codes, table).mean())
    }
    labels = bank.labels[rows]
    if bool((labels >= 0).all()) and bool((labels != labels[0]).any()):
        same = bank.labels[table] == labels[:, None]
        figures["bank/neighbour_agreement"] = float(same.double().mean())
    if before is not None:
        stayed = (table[:, :, None] == before[:, None, :]).any(2)
        figures["bank/neighbours_changed"] = 1 - float(stayed.double().mean())
    return figures


def probe(
    train: tuple[Float[Tensor, "n code"], Int[Tensor, " n"]],
    held_out: tuple[Float[Tensor, "m code"], Int[Tensor, " m"]],
    classes: int,
    linear: bool = True,
) -> dict[str, float]:
    """What `probes.measure` says of codes, as figures for a dashboard.

    Args:
        train: codes and labels to learn from.
        held_out: to be asked for.
        classes: how many there are.
        linear: whether to fit classifiers and clusters; else only neighbours are looked at.
    """
    learnt, asked = (
        Labelled(codes.cpu().numpy(), labels.cpu().numpy()) for codes, labels in (train, held_out)
    )
    if linear:
        found = measure(learnt, asked, classes)
    else:
        found = similarity(neighbour_labels(learnt, asked), asked.labels, classes)
    figures = {}
    for name, value in found.items():
        figure = value["mean"] if isinstance(value, dict) else value
        if figure is not None:
            figures[f"codes/{ACCURACIES.get(name, name)}"] = figure
    return figures
