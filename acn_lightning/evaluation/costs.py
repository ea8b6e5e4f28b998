"""A model's costs, as in the paper's table: pure functions."""

import math
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.distributions import Distribution

from acn_lightning import objective
from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.priors import Prior
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.index import NeighbourIndex

NEIGHBOURS = (1, 5, 10)
"""Values of K for which the paper reports costs."""


class Encoded(NamedTuple):
    """Test images after the encoder and the decoder.

    Attributes:
        index: row in the test set, (B,).
        mean: mean of the posterior q(z|x), (B, D).
        z: S samples of the posterior, (S, B, D).
        distortion: -log r(x|z) in nats, averaged over the samples, (B,).
    """

    index: Int[Tensor, " batch"]  # type: ignore[assignment]  # hides tuple.index
    mean: Float[Tensor, "batch code"]
    z: Float[Tensor, "sample batch code"]
    distortion: Float[Tensor, " batch"]


# ---------------------------------------------------------------- costs


def bounds(
    coded: Encoded,
    prior: Prior,
    bank: CodeBank,
    index: NeighbourIndex,
    nearest: int,
    orders: Sequence[Int[Tensor, " batch"]],
    freedom: float = 0.0,
) -> dict[str, float]:
    """The paper's costs of the test set, in nats per image.

    Each is an upper bound on what a sender pays to transmit the test images to a receiver that has
    the same networks and training codes. Reconstruction + KL is the evidence bound,
    -log p(x|c) <= E_q[-log r(x|z)] + KL(q(z|x) || p(z|c)), for any c that the receiver knows:

    - `kl_k<K>`: the mean over the K training codes nearest to the posterior's mean. The receiver
      does not know which ones these are, so these are costs *given a similar image*;
    - `kl_unconditional`: p(z) = 1/N sum_j p(z|c_j), the average over all training codes, which both
      sides know. Adding the terms that are left out of the sum would only lower the cost. So
      `unordered` bounds the negative log-likelihood, and can be compared with other models;
    - `kl_tour`: the images are sent in an order in which each is like the one before it; the first
      pays the unconditional cost. The receiver has decoded the previous image, so it knows that
      image's code. The sender may choose the order, so the cheapest of several is a bound too.
      `ordered` bounds the cost of the images as a set, not of any one of them;
    - `set`: the same set without a tour. The order of the images does not matter to the receiver.
      So the sender can choose it by other bits that must be sent anyway, which then cost nothing
      (bits-back; Severo, Townsend et al., arXiv 2107.09202). Any model can do this, so it is the
      figure that a tour's `ordered` competes with.

    With sampled z, these are unbiased estimates of the bounds, with one exception: the smallest of
    several tours' estimates is low by a little of their noise.

    Args:
        coded: the test images, encoded.
        prior: the model's prior.
        bank: codes of the training images.
        index: index built from the bank.
        nearest: number of terms in the unconditional sum for each image.
        orders: tours of the test images, each a permutation of the batch.
        freedom: nats per image that the order of the images holds, from `order_nats`.

    Returns:
        `reconstruction`, `kl_k1`, `kl_k5`, `kl_k10`, `kl_tour`, `kl_unconditional`, `ordered`,
        `unordered`, `set`.

    Raises:
        UsageError: there are fewer training codes than the largest K.
    """
    posterior = unit_normal(coded.mean)

    def rate(given: Distribution) -> Tensor:
        """The rate of each image, averaged over the samples of z."""
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
    stats = {"reconstruction": float(coded.distortion.mean())}
    stats |= {f"kl_k{k}": float(by_rank[:k].mean()) for k in NEIGHBOURS}
    stats |= {"kl_tour": float(min(tours)), "kl_unconditional": float(unconditional.mean())}
    unordered = stats["reconstruction"] + stats["kl_unconditional"]
    return stats | {
        "ordered": stats["reconstruction"] + stats["kl_tour"],
        "unordered": unordered,
        "set": unordered - freedom,
    }


def order_nats(images: UInt8[Tensor, "n channel height width"]) -> float:
    """Information in the order of N images, in nats per image: the log of the number of orders,
    log(N! / prod_u m_u!) / N, where the u-th distinct image occurs m_u times.

    Example:
        >>> round(order_nats(torch.arange(4).byte().view(4, 1, 1, 1)), 4)  # log(24) / 4
        0.7945
        >>> order_nats(torch.zeros(4, 1, 1, 1, dtype=torch.uint8))
        0.0
    """
    # By digests, because sorting the images would copy them.
    times = Counter(blake2b(image.numpy().tobytes()).digest() for image in images)
    orders = math.lgamma(len(images) + 1) - sum(math.lgamma(many + 1) for many in times.values())
    return orders / len(images)


def bits_per_dim(nats: float, dims: int) -> float:
    """Converts nats per image to bits for each of its `dims` values, C x H x W.

    Example:
        >>> round(bits_per_dim(784.0, 784), 4)  # one nat each
        1.4427
    """
    return nats / (dims * math.log(2))
