"""Distributions over pixel values: sums to one, naive second implementations, samples."""

import itertools

import pytest
import torch

from acn_lightning.networks.distributions import (
    CategoricalPixels,
    LogisticMixturePixels,
    channel_pairs,
)
from acn_lightning.networks.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Likelihood,
    LogisticMixtureLikelihood,
)

LEVELS = 4


def categorical(channels, levels=LEVELS, size=(1, 1)):
    tables = [torch.randn(levels, levels) for _ in channel_pairs(channels)]
    return CategoricalPixels(torch.randn(1, channels, levels, *size), tables)


def logistic(channels, levels=LEVELS, size=(1, 1), scale=-1.0):
    pairs = len(channel_pairs(channels))
    return LogisticMixturePixels(
        torch.randn(1, 3, *size),
        torch.randn(1, 3, channels, *size),
        torch.randn(1, 3, channels, *size) + scale,
        torch.randn(1, 3, pairs, *size),
        levels,
    )


def repeated(distribution, times):
    """The same distribution for each image of a batch."""
    for name, value in vars(distribution).items():
        if torch.is_tensor(value):
            setattr(distribution, name, value.expand(times, *value.shape[1:]))
        elif name == "pairs" and isinstance(distribution, LogisticMixturePixels):
            expanded = {k: v.expand(times, *v.shape[1:]) for k, v in value.items()}
            distribution.pairs = expanded
    distribution._batch_shape = torch.Size([times])
    return distribution


@pytest.mark.parametrize("make", [categorical, logistic])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_all_values_of_a_pixel_sum_to_one(make, channels):
    values = itertools.product(torch.linspace(0, 1, LEVELS), repeat=channels)
    images = torch.tensor([list(value) for value in values])[..., None, None]
    distribution = repeated(make(channels), len(images))
    torch.testing.assert_close(distribution.log_prob(images).exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize("kind", sorted(Likelihood.kinds))
def test_the_bytes_of_a_pixel_sum_to_one(kind):
    likelihood = Likelihood.kinds[kind](1)
    values = torch.linspace(0, 1, 2 if likelihood.binary else 256).view(-1, 1, 1, 1)
    parameters = (torch.randn(1, likelihood.per_pixel, 1, 1) * 2).expand(len(values), -1, 1, 1)
    torch.testing.assert_close(
        likelihood(parameters).log_prob(values).exp().sum(), torch.tensor(1.0)
    )


@pytest.mark.parametrize("make", [categorical, logistic])
def test_samples_follow_the_density(make):
    values = itertools.product(torch.linspace(0, 1, LEVELS), repeat=2)
    images = torch.tensor([list(value) for value in values])[..., None, None]
    torch.manual_seed(2)
    expected = repeated(make(2), len(images)).log_prob(images).exp()
    torch.manual_seed(2)
    drawn = repeated(make(2), 50_000).sample()
    number = (drawn[:, :, 0, 0] * (LEVELS - 1)).round().long() @ torch.tensor([LEVELS, 1])
    found = torch.bincount(number, minlength=LEVELS**2) / len(drawn)
    error = (expected * (1 - expected) / len(drawn)).sqrt()
    assert ((found - expected).abs() < 5 * error + 1e-4).all()


def test_logistic_mixture_equals_a_naive_difference_of_sigmoids():
    distribution = logistic(3, 256, (2, 3), scale=-2.0)
    distribution.__dict__.update(
        {k: v.double() for k, v in vars(distribution).items() if torch.is_tensor(v)}
    )
    distribution.pairs = {k: v.double() for k, v in distribution.pairs.items()}
    image = torch.randint(0, 256, (1, 3, 2, 3)).double() / 255
    image[0, :, 0, 0], image[0, :, 0, 1] = 0, 1  # both ends
    total = 0.0
    for i, j in itertools.product(range(2), range(3)):
        x = (2 * image[0, :, i, j] - 1).tolist()
        pixel = 0.0
        for m in range(3):
            product = distribution.logits[0, :, i, j].softmax(0)[m].item()
            for channel in range(3):
                mean = distribution.means[0, m, channel, i, j].item()
                for earlier in range(channel):
                    mean += distribution.pairs[earlier, channel][0, m, i, j].item() * x[earlier]
                scale = distribution.log_scales[0, m, channel, i, j].exp().item()
                high = 1.0 if x[channel] > 0.999 else sigmoid((x[channel] + 1 / 255 - mean) / scale)
                low = 0.0 if x[channel] < -0.999 else sigmoid((x[channel] - 1 / 255 - mean) / scale)
                product *= high - low
            pixel += product
        total += torch.tensor(pixel, dtype=torch.float64).log().item()
    assert distribution.log_prob(image).item() == pytest.approx(total, rel=1e-6)


def sigmoid(x):
    return torch.sigmoid(torch.tensor(x, dtype=torch.float64)).item()


@pytest.mark.parametrize("log_scale", [-200.0, -7.0, 3.0, 200.0])
def test_far_from_all_components_the_cost_is_finite_and_has_a_gradient(log_scale):
    likelihood = LogisticMixtureLikelihood(1, mixtures=1)
    parameters = torch.tensor([0.0, -60.0, log_scale]).view(1, 3, 1, 1).requires_grad_()
    cost = -likelihood(parameters).log_prob(torch.full((1, 1, 1, 1), 128 / 255))
    cost.backward()
    assert cost.isfinite()
    assert parameters.grad.isfinite().all()
    assert parameters.grad[0, 1].abs() > 0


@pytest.mark.parametrize("make", [categorical, logistic])
def test_earlier_channels_move_later_ones_only(make):
    distribution = make(3, 8)
    steps = torch.linspace(0, 1, 8)

    def given(channel, image):
        """The probabilities of a channel's values, those after it summed over."""
        later = itertools.product(steps, repeat=2 - channel)
        rows = [[*image[:channel], value, *rest] for rest in later for value in steps]
        costs = torch.cat(
            [distribution.log_prob(torch.tensor(row).view(1, 3, 1, 1)) for row in rows]
        )
        return costs.view(-1, 8).logsumexp(0).softmax(0)

    image = [steps[2], steps[5], steps[1]]
    for changed, channel in itertools.product(range(3), range(3)):
        other = list(image)
        other[changed] = steps[7]
        alike = torch.allclose(given(channel, image), given(channel, other), atol=1e-6)
        assert alike == (changed >= channel), (changed, channel)


def test_means_are_those_of_many_samples():
    torch.manual_seed(1)
    one = categorical(1, 16)
    expected = one.mean.item()
    drawn = repeated(one, 20_000).sample()
    assert abs(drawn.mean() - expected) < 4 * drawn.std() / 20_000**0.5
    narrow = logistic(3, 256, scale=-4.0)
    narrow.means = narrow.means * 0.2  # away from the ends, where cutting moves the mean
    expected = narrow.mean[0, :, 0, 0]
    drawn = repeated(narrow, 20_000).sample()[..., 0, 0]
    assert ((drawn.mean(0) - expected).abs() < 4 * drawn.std(0) / 20_000**0.5 + 0.003).all()
    with pytest.raises(NotImplementedError):
        _ = categorical(3).mean


def test_bernoulli_says_nothing_of_grey():
    assert BernoulliLikelihood(1).binary
    assert not CategoricalLikelihood(1).binary
