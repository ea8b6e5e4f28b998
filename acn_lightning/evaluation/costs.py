"""What a model's costs are: the paper's table, as pure functions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.distributions import Distribution

from acn_lightning import objective
from acn_lightning.networks.encoders import unit_normal
from acn_lightning.networks.priors import Prior
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.index import NeighbourIndex

NEIGHBOURS = (1, 5, 10)
"""The K whose costs the paper reports."""


class Coded(NamedTuple):
    """Test images after the encoder and the decoder.

    Attributes:
        index: row in the test set, (B,).
        mean: of the posterior q(z|x), (B, D).
        z: S samples of it, (S, B, D).
        distortion: -log r(x|z) in nats, the mean over the samples, (B,).
    """

    index: Int[Tensor, " batch"]  # type: ignore[assignment]  # hides tuple.index
    mean: Float[Tensor, "batch code"]
    z: Float[Tensor, "sample batch code"]
    distortion: Float[Tensor, " batch"]


# ---------------------------------------------------------------- costs


def bounds(
    coded: Coded,
    prior: Prior,
    bank: CodeBank,
    index: NeighbourIndex,
    nearest: int,
    orders: Sequence[Int[Tensor, " batch"]],
    freedom: float = 0.0,
) -> dict[str, float]:
    """The paper's costs of the test set, in nats per image.

    Each is an upper bound of what a sender would pay who has to make the test images known to a
    receiver with the same networks and training codes. Reconstruction + KL is the evidence bound,
    -log p(x|c) <= E_q[-log r(x|z)] + KL(q(z|x) || p(z|c)), whatever c the receiver can name:

    - `kl_k<K>`: the mean over the K training codes nearest to the posterior's mean. The receiver
      does not know which these are, so these are the costs *given a similar image*;
    - `kl_unconditional`: p(z) = 1/N sum_j p(z|c_j), the average over all training codes, known to
      both. Terms of the sum that are left out would lower the cost. So `unordered` bounds the
      negative log-likelihood, and compares with other models;
    - `kl_tour`: the images are sent in an order in which each is like the one before it; the first
      pays the unconditional cost. The receiver has decoded the image before, and so knows its code.
      The sender may choose the order, so the cheapest of several is a bound too. `ordered` bounds
      the cost of the images as a set, not of any one of them;
    - `set`: the same set without a tour. The receiver does not care for the order in which images
      come, so that the sender may choose it by other bits that have to be sent anyway, and has
      these for nothing (bits-back; Severo, Townsend et al., arXiv 2107.09202). Any model may do so:
      this is the figure that a tour's `ordered` competes with.

    With sampled z these are estimates of the bounds, without bias; but the least of several tours'
    estimates is low by a little of their noise.

    Args:
        coded: the test images.
        prior: of the model.
        bank: codes of the training images.
        index: built from it.
        nearest: terms of the unconditional sum for each image.
        orders: tours of the test images, each a permutation of the batch.
        freedom: nats per image that their order holds, `order_nats`.

    Returns:
        `reconstruction`, `kl_k1`, `kl_k5`, `kl_k10`, `kl_tour`, `kl_unconditional`, `ordered`,
        `unordered`, `set`.

    Raises:
        UsageError: fewer training codes than the largest K.
    """
    posterior = unit_normal(coded.mean)

    def rate(given: Distribution) -> Tensor:
        """Of each image, the mean over the samples of z."""
        return torch.stack([objective.rate(posterior, given, z) for z in coded.z]).mean(0)

    rows = index.search(coded.mean, k=max(NEIGHBOURS))
    by_rank = torch.stack([rate(prior(bank.codes[column])) for column in rows.T])
    unconditional = rate(prior.marginal(bank.codes[bank.rows], nearest))
    tours = []
    for order in orders:
        before = torch.empty_like(order)
        before[order] = order.roll(1)  # each image's predecessor
        costs = rate(prior(coded.mean[before]))
        costs[order[0]] = unconditional[order[0]]
        tours.append(costs.mean())
    figures = {"reconstruction": float(coded.distortion.mean())}
    figures |= {f"kl_k{k}": float(by_rank[:k].mean()) for k in NEIGHBOURS}
    figures |= {"kl_tour": float(min(tours)), "kl_unconditional": float(unconditional.mean())}
    unordered = figures["reconstruction"] + figures["kl_unconditional"]
    return figures | {
        "ordered": figures["reconstruction"] + figures["kl_tour"],
        "unordered": unordered,
        "set": unordered - freedom,
    }


def order_nats(images: UInt8[Tensor, "n channel height width"]) -> float:
    """What the order of N images holds: the logarithm of the number of orders, in nats per image,
    log(N! / prod_u m_u!) / N where the u-th different image comes m_u times.

    Example:
        >>> round(order_nats(torch.arange(4).byte().view(4, 1, 1, 1)), 4)  # log(24) / 4
        0.7945
        >>> order_nats(torch.zeros(4, 1, 1, 1, dtype=torch.uint8))
        0.0
    """
    _, times = np.unique(images.flatten(1).numpy(), axis=0, return_counts=True)
    orders = math.lgamma(len(images) + 1) - sum(math.lgamma(many + 1) for many in times.tolist())
    return orders / len(images)


def bits_per_dim(nats: float, dims: int) -> float:
    """Nats per image as bits for each of its `dims` values, C x H x W.

    Example:
        >>> round(bits_per_dim(784.0, 784), 4)  # one nat each
        1.4427
    """
    return nats / (dims * math.log(2))
