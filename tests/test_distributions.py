"""Distributions over pixel values: sums to one, naive second implementations, samples."""

import itertools

import pytest
import torch

from acn_lightning.networks import logistic_mixture
from acn_lightning.networks.distributions import CategoricalPixels, channel_pairs
from acn_lightning.networks.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Likelihood,
    LogisticMixtureLikelihood,
)
from acn_lightning.networks.logistic_mixture import LogisticMixturePixels

LEVELS = 4


def categorical(channels, levels=LEVELS, size=(1, 1)):
    tables = [torch.randn(levels, levels) for _ in channel_pairs(channels)]
    return CategoricalPixels(torch.randn(1, channels, levels, *size), tables)


def logistic(channels, levels=LEVELS, size=(1, 1), scale=-1.0):
    pairs = len(channel_pairs(channels))
    parts = [torch.randn(1, 3, count, *size) for count in (1, channels, channels, pairs)]
    parts[2] += scale
    return LogisticMixturePixels(torch.cat(parts, 2), channels, levels)


def repeated(distribution, times):
    """The same distribution for each image of a batch."""
    for name, value in vars(distribution).items():
        if torch.is_tensor(value):
            setattr(distribution, name, value.expand(times, *value.shape[1:]))
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
    distribution.parameters = distribution.parameters.double()
    logits, means, log_scales, slopes = distribution.parts()
    pairs = channel_pairs(3)
    image = torch.randint(0, 256, (1, 3, 2, 3)).double() / 255
    image[0, :, 0, 0], image[0, :, 0, 1] = 0, 1  # both ends
    total = 0.0
    for i, j in itertools.product(range(2), range(3)):
        x = (2 * image[0, :, i, j] - 1).tolist()
        pixel = 0.0
        for m in range(3):
            product = logits[0, :, i, j].softmax(0)[m].item()
            for channel in range(3):
                mean = means[0, m, channel, i, j].item()
                for earlier in range(channel):
                    slope = slopes[0, m, pairs.index((earlier, channel)), i, j]
                    mean += slope.item() * x[earlier]
                scale = log_scales[0, m, channel, i, j].exp().item()
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


PIXELS = [  # channels, components, height, width, components times pixels in a tile
    (1, 1, 4, 5, 10_000),
    (3, 2, 3, 4, 10_000),
    (3, 3, 4, 5, 120),  # two images a tile
    (2, 3, 4, 5, 21),  # a third of an image, and a rest
    (4, 2, 2, 3, 1),
]


def of_pixels(channels, components, height, width, dtype=torch.float64):
    """Parameters of six images, some out of bounds or far from the value, and the images."""
    parameters = LogisticMixtureLikelihood(channels, mixtures=components).per_pixel
    raw = 3 * torch.randn(6, parameters, height, width, dtype=dtype)
    raw = raw.unflatten(1, (components, -1))
    image = torch.randint(0, 256, (6, channels, height, width)).to(dtype) / 255
    image[0], image[1] = 0, 1
    raw[2, :, 1 : 1 + channels] = 40  # the means
    raw[3, :, 1 + channels : 1 + 2 * channels] *= 5  # the log scales
    return raw.requires_grad_(), image


@pytest.mark.parametrize(("channels", "components", "height", "width", "tile"), PIXELS)
def test_tiles_have_the_formulas_cost_and_gradient(
    channels, components, height, width, tile, monkeypatch
):
    monkeypatch.setattr(logistic_mixture, "TILE", tile)
    raw, image = of_pixels(channels, components, height, width)
    distribution = LogisticMixturePixels(raw, channels)
    weight = torch.rand(6, dtype=torch.float64)
    plain, tiled = distribution.plain_log_prob(image), distribution.log_prob(image)
    torch.testing.assert_close(tiled, plain)
    expected, found = (torch.autograd.grad((weight * one).sum(), raw)[0] for one in (plain, tiled))
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(distribution.log_prob(image), plain)


def test_gradient_of_tiles_by_differences():
    raw, image = of_pixels(3, 2, 1, 2)
    rows = [0, 1, 4, 5]  # the cost of the others is too steep for differences
    raw = (raw.detach()[rows] / 3).requires_grad_()
    tiled = logistic_mixture.TiledLogProb.apply
    assert torch.autograd.gradcheck(lambda raw: tiled(raw, image[rows], 256), (raw,))


def test_tiles_in_float32_differ_by_rounding_in_any_memory_format():
    raw, image = of_pixels(3, 2, 8, 8, torch.float32)
    double = raw.detach().double().requires_grad_()
    expected = LogisticMixturePixels(double, 3).plain_log_prob(image.double())
    (slope,) = torch.autograd.grad(expected.sum(), double)
    last = raw.detach().flatten(1, 2).contiguous(memory_format=torch.channels_last)
    for one in (raw.detach(), last.view(raw.shape)):
        one.requires_grad_()
        found = LogisticMixturePixels(one, 3).log_prob(image)
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-3)
        (gradient,) = torch.autograd.grad(found.sum(), one)
        torch.testing.assert_close(gradient, slope.float(), rtol=1e-3, atol=1e-3)


def test_tiles_are_for_float32_on_the_cpu_alone(monkeypatch):
    raw, image = of_pixels(1, 2, 3, 3, torch.float32)
    expected = LogisticMixturePixels(raw, 1).log_prob(image)
    monkeypatch.setattr(logistic_mixture.TiledLogProb, "apply", None)
    half = LogisticMixturePixels(raw.bfloat16(), 1).log_prob(image)
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=1)
    with monkeypatch.context() as patched:
        patched.setattr(torch.compiler, "is_compiling", lambda: True)
        found = LogisticMixturePixels(raw, 1).log_prob(image)
    torch.testing.assert_close(found, expected)
    image.requires_grad_()  # of which the formula has a gradient
    (slope,) = torch.autograd.grad(LogisticMixturePixels(raw, 1).log_prob(image).sum(), image)
    assert slope.abs().sum() > 0


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
    narrow.parameters[:, :, 1:4] *= 0.2  # away from the ends, where cutting moves the mean
    expected = narrow.mean[0, :, 0, 0]
    drawn = repeated(narrow, 20_000).sample()[..., 0, 0]
    assert ((drawn.mean(0) - expected).abs() < 4 * drawn.std(0) / 20_000**0.5 + 0.003).all()
    with pytest.raises(NotImplementedError):
        _ = categorical(3).mean


def test_bernoulli_says_nothing_of_grey():
    assert BernoulliLikelihood(1).binary
    assert not CategoricalLikelihood(1).binary
