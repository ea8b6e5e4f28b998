"""Costs against closed forms and naive sums."""

import math

import torch
from torch.distributions import Bernoulli, Independent, Normal

from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.priors import MixturePrior, StandardNormalPrior
from acn_lightning.objective import distortion, rate


def test_rate_to_standard_normal_is_half_the_squared_length_of_the_mean():
    mean = torch.randn(7, 4)
    prior = StandardNormalPrior(4)(torch.randn(7, 4))
    expected = mean.square().sum(1) / 2  # KL(N(m, I) || N(0, I))
    torch.testing.assert_close(rate(unit_normal(mean), prior, mean), expected)


def test_rate_by_samples_agrees_with_the_closed_form_within_monte_carlo_error():
    mean, other, scale = torch.randn(3), torch.randn(3), torch.tensor([1.5, 0.7, 2.0])
    posterior = unit_normal(mean)
    closed_form = Independent(Normal(other, scale), 1)
    network = MixturePrior(3, mixtures=2, width=4)

    class Sampled(torch.distributions.Distribution):
        """The same density, of a kind for which torch knows no KL."""

        def log_prob(self, value):
            return closed_form.log_prob(value)

    z = posterior.sample((200_000,))
    estimates = rate(posterior, Sampled(validate_args=False), z)
    error = estimates.std() / math.sqrt(len(estimates))
    expected = rate(posterior, closed_form, z[0])
    assert abs(estimates.mean() - expected) < 4 * error
    # and the mixture, which has no closed form, takes the sampled way
    assert rate(posterior, network(other), z).shape == (200_000,)


def test_one_gaussian_has_a_closed_form_and_the_sampled_rate_agrees_with_it():
    prior = MixturePrior(3, mixtures=1, width=8)
    posterior, given = unit_normal(torch.randn(3)), prior(torch.randn(3) * 2)
    m, s = given.base_dist.loc, given.base_dist.scale
    # KL(N(mu, 1) || N(m, s^2)) in each dimension
    expected = (s.log() + (1 + (posterior.mean - m) ** 2) / (2 * s**2) - 0.5).sum()
    z = posterior.sample((200_000,))
    torch.testing.assert_close(rate(posterior, given, z), expected)
    estimates = posterior.log_prob(z) - given.log_prob(z)
    assert abs(estimates.mean() - expected) < 4 * estimates.std() / math.sqrt(len(z))
    # and as a mixture of that Gaussian with itself, which has no closed form
    twice = MixturePrior(3, mixtures=2, width=8)
    description = prior.describe(torch.randn(3)).expand(3, 2, 3)
    one, two = prior.distribution(description[:, :1]), twice.distribution(description)
    torch.testing.assert_close(two.log_prob(z), one.log_prob(z))
    sampled = rate(posterior, two, z)
    assert sampled.shape == (200_000,)
    error = sampled.std() / math.sqrt(len(z))
    assert abs(sampled.mean() - rate(posterior, one, z)) < 4 * error


def test_rate_of_several_neighbours_is_that_of_each_alone():
    posterior, prior = unit_normal(torch.randn(5, 4)), MixturePrior(4, mixtures=3, width=8)
    z, codes = posterior.sample(), torch.randn(6, 5, 4)
    together = rate(posterior, prior(codes), z)
    for k in range(6):
        torch.testing.assert_close(together[k], rate(posterior, prior(codes[k]), z))


def test_distortion_is_summed_over_pixels_in_nats():
    logits, image = torch.randn(3, 1, 4, 5), torch.rand(3, 1, 4, 5).round()
    p = torch.sigmoid(logits)
    naive = [
        -sum(math.log(q if x else 1 - q) for q, x in zip(ps, xs, strict=True))
        for ps, xs in zip(p.flatten(1).tolist(), image.flatten(1).tolist(), strict=True)
    ]
    result = distortion(Independent(Bernoulli(logits=logits), 3), image)
    torch.testing.assert_close(result, torch.tensor(naive))
