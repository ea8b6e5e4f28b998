"""What a file should cost by the model's own estimate, computed apart from the coder."""

import math

import torch
from jaxtyping import UInt8
from torch import Tensor

from acn_lightning import objective
from acn_lightning.compression.files import Options
from acn_lightning.evaluation.costs import order_nats
from acn_lightning.evaluation.tours import greedy_tour
from acn_lightning.inference.embedding import encode
from acn_lightning.module import ACN
from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.layers import eval_mode

DRAWS = 16
"""Most draws of z for each image: few images need many for a precise mean."""


def bound(module: ACN, images: UInt8[Tensor, "n channel height width"], options: Options) -> float:
    """The bound on the images' cost in nats per image, as `evaluation.costs.bounds` defines it:
    `unordered` if their order is kept, `set` if it is free, `ordered` for a tour.

    Args:
        module: a trained module.
        images: in its form.
        options: order, block and nearest.
    """
    mean = encode(module, images, show=True)
    order = torch.arange(len(mean))
    if options.order == "tour":
        order = greedy_tour(mean)
    mean = mean[order]
    draws = max(1, min(DRAWS, 4096 // len(images)))
    z = mean + torch.randn(draws, *mean.shape, generator=torch.Generator().manual_seed(0))
    with eval_mode(module):
        cost = rate(module, mean, z, options)
        cost += sum(distortion(module, images[order], one) for one in z) / draws
    return cost - freedom(images, options)


def freedom(images: Tensor, options: Options) -> float:
    """What the order of the images would cost if it is free, block by block."""
    if options.order != "free":
        return 0.0
    blocks = images.split(options.block_of(len(images)))
    return sum(order_nats(block) * len(block) for block in blocks) / len(images)


def distortion(module: ACN, images: Tensor, z: Tensor) -> float:
    """The mean reconstruction cost."""
    total = 0.0
    for some, codes in zip(images.split(256), z.split(256), strict=True):
        pixels = some.to(module.device).float() / 255
        costs = objective.distortion(module.decoder(codes.to(module.device)), pixels)
        total += float(costs.cpu().double().sum())
    return total / len(images)


def rate(module: ACN, mean: Tensor, z: Tensor, options: Options) -> float:
    """The mean cost of the codes z (S, N, D). In a tour, all but the first know the one before."""
    mean, z = mean.to(module.device), z.to(module.device)
    marginal = module.prior.marginal(module.bank.codes[module.bank.rows], options.nearest)
    if options.order != "tour":
        return float(objective.rate(unit_normal(mean), marginal, z).mean())
    rates = objective.rate(unit_normal(mean), module.prior(mean.roll(1, 0)), z)
    first = objective.rate(unit_normal(mean[:1]), marginal, z[:, :1])
    others = float(rates[..., 1:].mean()) * (len(mean) - 1) if len(mean) > 1 else 0.0
    return (others + float(first.mean())) / len(mean)


def nats_per_image(size: int, count: int) -> float:
    """Bytes as nats per image."""
    return 8 * size * math.log(2) / count
