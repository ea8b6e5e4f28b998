"""What codes and their neighbours look like while they are learned: figures for a dashboard."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.code_bank import CodeBank
from acn_lightning.evaluation import KNN, Labelled, knn_vote, linear_accuracy
from acn_lightning.exact import distances_to, exact_neighbours

ACTIVE = 0.01
"""A dimension is active where the posterior means vary by more than this (Burda, Grosse and
Salakhutdinov, arXiv 1509.00519); the posterior's own variance is 1."""


def code_figures(codes: Float[Tensor, "n code"]) -> dict[str, float]:
    """`norm`, the mean length of a code; `variance_mean` and `variance_min` over its dimensions;
    `active_dimensions`, how many of these vary by more than 0.01."""
    variance = codes.var(0, correction=0)
    return {
        "codes/norm": float(torch.linalg.vector_norm(codes, dim=1).mean()),
        "codes/variance_mean": float(variance.mean()),
        "codes/variance_min": float(variance.min()),
        "codes/active_dimensions": float((variance > ACTIVE).sum()),
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
    """Accuracies, as fractions, of classifiers that learn from the codes and labels of some images
    and are asked for those of others: the majority of the 5 nearest, and logistic regression.

    Args:
        train: codes and labels to learn from.
        held_out: to be asked for.
        classes: how many there are.
        linear: whether to fit the logistic regression.
    """
    codes, labels = train
    queries, truth = held_out
    rows = torch.arange(len(codes), device=codes.device)
    near = exact_neighbours(queries, codes, rows, min(KNN, len(codes)))
    voted = knn_vote(labels.to(near.device)[near], classes)
    figures = {"codes/knn_accuracy": float((voted.cpu() == truth.cpu()).double().mean())}
    if linear:
        learnt = Labelled(codes.cpu().numpy(), labels.cpu().numpy())
        asked = Labelled(queries.cpu().numpy(), truth.cpu().numpy())
        figures["codes/linear_accuracy"] = linear_accuracy(learnt, asked)
    return figures
