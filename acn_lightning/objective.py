"""The ACN's cost of an image, as pure functions of distributions. All costs are in nats per image.

Source: Graves, Menick and van den Oord, *Associative Compression Networks for Representation
Learning*, arXiv 1804.02476. With one sample `z ~ q(z|x)` and a code `c` of a neighbouring image,

    L(x) = KL( q(z|x) || p(z|c) ) - log r(x|z)  =  rate + distortion
"""

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, kl_divergence


def rate(posterior: Distribution, prior: Distribution, z: Float[Tensor, "..."]) -> Tensor:
    """Cost of the code: KL(q(z|x) || p(z|c)), in nats.

    Uses the closed form if torch has one for the pair of distributions. A Gaussian mixture has
    none; the cost is then the log-ratio `log q(z|x) - log p(z|c)` at `z`, whose expectation over
    `z ~ q(z|x)` is the KL. A single estimate may therefore be negative.

    Args:
        posterior: q(z|x), batch shape (B,), event shape (D,).
        prior: p(z|c), batch shape (B,), or (K, B) for K neighbours each.
        z: a sample of the posterior, (B, D). With its mean instead, the cost would not be a bound.

    Returns:
        (B,), or (K, B).

    Example:
        >>> import torch
        >>> from acn_lightning.networks.encoders import unit_normal
        >>> z = torch.tensor([[3.0, 4.0]])
        >>> rate(unit_normal(z), unit_normal(torch.zeros(1, 2)), z)  # half the squared distance
        tensor([12.5000])
    """
    try:
        return kl_divergence(posterior, prior)
    except NotImplementedError:
        return posterior.log_prob(z) - prior.log_prob(z)


def distortion(
    likelihood: Distribution, image: Float[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """Cost of the image given its code: -log r(x|z), in nats, summed over pixels.

    Summed, not averaged, so that it has the same unit as the rate.
    """
    return -likelihood.log_prob(image)
