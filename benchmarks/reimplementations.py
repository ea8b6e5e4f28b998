"""Two public ACNs with their published networks, losses and hyper-parameters, for
`benchmarks.time_to_codes`.

Written from what the programs do, not from their text; both are under the MIT licence. Where they
search neighbours in a Python loop, one query at a time, all queries of a batch are searched at once
here, with the same results. They read images one by one; here all of them are in memory. So both
are faster here than as published.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, relu

from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.likelihoods import LogisticMixtureLikelihood
from acn_lightning.retrieval.exact import exact_neighbours

K = 5
"""Nearest stored codes, one of which the prior is given. Both have this number."""


class Reimplementation(nn.Module):
    """What `benchmarks.time_to_codes` trains with Adam.

    Args:
        images: number of training images, N.

    Attributes:
        codes: what neighbours are drawn from, (N, D).
        code_size: D.
        batch_size: images a step.
        learning_rate: Adam's.
    """

    codes: Tensor
    code_size: int
    batch_size: int
    learning_rate: float

    def __init__(self, images: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(images, self.code_size))

    def loss(self, index: Tensor, image: Tensor) -> Tensor:
        """KL + reconstruction in nats, summed over the batch.

        Args:
            index: rows of the images, (B,).
            image: in [0, 1], (B, 1, 28, 28).
        """
        raise NotImplementedError

    def code(self, image: Tensor) -> Tensor:
        """Posterior means, (B, D)."""
        raise NotImplementedError

    def end_epoch(self) -> None:
        """What happens between two epochs."""

    def near(self, code: Tensor) -> Tensor:
        """One of the K nearest stored codes for each code, at random, (B, D). An image's own stored
        code counts among them."""
        rows = torch.arange(len(self.codes), device=code.device)
        found = exact_neighbours(code, self.codes, rows, K)
        chosen = torch.randint(K, (len(code), 1), device=code.device)
        return self.codes[found.gather(1, chosen).squeeze(1)]


# ---------------------------------------------------------------- convolutional


class ConvACN(Reimplementation):
    """github.com/johannah/ACN, commit 8b138ad (2020): `train_acn.py` with its defaults, the network
    `ACNresMNIST` and the prior `tPTPriorNetwork` of `acn_models.py`. It reports 97 % KNN on MNIST.

    - Codes are 2 x 7 x 7, 98 numbers, with a posterior of variance 1.
    - Pixels are a mixture of 10 discretised logistics in [-1, 1], independent given the code.
    - A step stores its batch's codes before it searches all stored ones. They start as
      standard-normal noise.
    - Adam at 1e-4, batches of 256, losses summed. Gradients are clipped before they are computed,
      so never.

    Args:
        images: number of training images.
        width: channels of most layers.
    """

    shape = (2, 7, 7)
    code_size = 98
    batch_size = 256
    learning_rate = 1e-4

    def __init__(self, images: int, *, width: int = 256) -> None:
        super().__init__(images)
        self.likelihood = LogisticMixtureLikelihood(1, mixtures=10)
        self.prior = SkipPrior(self.code_size)
        half = width // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(1, half, 1), nn.BatchNorm2d(half), nn.ReLU(),
            nn.Conv2d(half, half, 1), nn.ReLU(),
            nn.Conv2d(half, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 4, 2, 1), Residual(width), Residual(width),
            nn.Conv2d(width, 16, 1), nn.Conv2d(16, self.shape[0], 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(self.shape[0], 16, 1), nn.ConvTranspose2d(16, width, 1),
            Residual(width), Residual(width),
            nn.ConvTranspose2d(width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.ConvTranspose2d(width, self.likelihood.per_pixel, 4, 2, 1),
        )  # fmt: skip
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def code(self, image: Tensor) -> Tensor:
        mean: Tensor = self.encoder(2 * image - 1)
        return mean.flatten(1)

    def loss(self, index: Tensor, image: Tensor) -> Tensor:
        mean = self.code(image)
        self.codes[index] = mean.detach()
        rate = kl_divergence(unit_normal(mean), self.prior(self.near(mean.detach())))
        z = mean + torch.randn_like(mean)
        pixels = self.likelihood(self.decoder(z.unflatten(1, self.shape)))
        return rate.sum() - pixels.log_prob(image).sum()


class Residual(nn.Module):
    """The block of `ConvACN`. Its first activation works in place, so it is on the shortcut too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 1), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = relu(x)
        return x + self.layers(x)


class SkipPrior(nn.Module):
    """The prior of `ConvACN`: an input layer and three hidden layers of tanh units. Shortcuts from
    the first hidden layer to the other two, and from the first two to the output, pass through a
    tanh layer each."""

    def __init__(self, code_size: int, width: int = 512) -> None:
        super().__init__()
        self.first = nn.Linear(code_size, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.inward = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.outward = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.last = nn.Linear(width, 2 * code_size)

    def forward(self, code: Tensor) -> Distribution:
        one = torch.tanh(self.hidden[0](torch.tanh(self.first(code))))
        to_two, to_three = (torch.tanh(layer(one)) for layer in self.inward)
        two = torch.tanh(self.hidden[1](one + to_two))
        three = torch.tanh(self.hidden[2](two + to_three))
        sums = torch.tanh(self.outward[0](one)) + torch.tanh(self.outward[1](two)) + three
        return normal(self.last(sums))


# ---------------------------------------------------------------- fully connected


class DenseACN(Reimplementation):
    """github.com/jalexvig/associative_compression_networks, commit 508ac19 (2018): `acn.py`.

    - Encoder, prior and decoder have one hidden layer of 512 units each, with ReLU. Codes have 20
      numbers. Posterior and prior are normal, each with learnt variances.
    - Grey pixels are probabilities of black in a cross-entropy.
    - A step searches the codes that the images had in the epoch before; in the first epoch,
      standard-normal noise. It asks for 10 to leave out codes that were given to the prior before,
      but never notes which were, so it draws from the nearest 5.
    - Adam at 1e-3, batches of 128, losses summed.

    Args:
        images: number of training images.
        width: hidden units.
    """

    fresh: Tensor
    code_size = 20
    batch_size = 128
    learning_rate = 1e-3

    def __init__(self, images: int, *, width: int = 512) -> None:
        super().__init__(images)
        pixels, size = 28 * 28, self.code_size
        self.encoder = hidden(pixels, width, 2 * size)
        self.prior = hidden(size, width, 2 * size)
        self.decoder = hidden(size, width, pixels)
        self.register_buffer("fresh", self.codes.clone())

    def code(self, image: Tensor) -> Tensor:
        mean: Tensor = self.encoder(image.flatten(1)).chunk(2, 1)[0]
        return mean

    def loss(self, index: Tensor, image: Tensor) -> Tensor:
        posterior = normal(self.encoder(image.flatten(1)))
        mean = posterior.mean.detach()
        self.fresh[index] = mean
        rate = kl_divergence(posterior, normal(self.prior(self.near(mean))))
        pixels = self.decoder(posterior.rsample())
        grey = image.flatten(1)
        return rate.sum() + binary_cross_entropy_with_logits(pixels, grey, reduction="sum")

    def end_epoch(self) -> None:
        self.codes.copy_(self.fresh)


def hidden(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """A network with one hidden layer."""
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))


def normal(parameters: Tensor) -> Distribution:
    """The distribution of codes that means and log standard deviations describe, (B, 2 D)."""
    mean, log_deviation = parameters.chunk(2, 1)
    return Independent(Normal(mean, log_deviation.exp(), validate_args=False), 1)
