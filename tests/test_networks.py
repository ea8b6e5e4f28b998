"""Shapes of all image sizes, densities that are densities, independence from the batch."""

import pytest
import torch
from sklearn.datasets import load_digits

from acn_lightning.networks.decoders import ConvDecoder, Decoder, PixelCNNDecoder
from acn_lightning.networks.encoders import ConvEncoder, Encoder
from acn_lightning.networks.imported_encoder import ImportedEncoder
from acn_lightning.networks.likelihoods import BernoulliLikelihood, Likelihood
from acn_lightning.networks.priors import MixturePrior, Prior, StandardNormalPrior
from acn_lightning.utils.errors import UsageError

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 17, 9), (1, 3, 40), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_any_image_size_encodes_and_decodes(shape):
    image = torch.rand(2, *shape)
    posterior = ConvEncoder(shape, 5, channels=8)(image)
    assert posterior.batch_shape == (2,)
    assert posterior.event_shape == (5,)
    likelihood = BernoulliLikelihood(shape[0])
    decoded = ConvDecoder(shape, 5, likelihood, channels=8)(posterior.rsample())
    assert decoded.batch_shape == (2,)
    assert decoded.event_shape == shape
    assert decoded.log_prob(image.round()).shape == (2,)


def test_posterior_has_unit_variance():
    posterior = ConvEncoder((1, 8, 8), 5, channels=8)(torch.rand(3, 1, 8, 8))
    torch.testing.assert_close(posterior.variance, torch.ones(3, 5))


def test_a_code_depends_on_its_own_image_alone():
    encoder = ConvEncoder((1, 8, 8), 5, channels=8).train()
    images = torch.rand(6, 1, 8, 8)
    alone = torch.cat([encoder(image[None]).mean for image in images])
    torch.testing.assert_close(encoder(images).mean, alone)


@torch.no_grad()
def test_codes_begin_about_as_far_apart_as_the_posteriors_noise_is_wide():
    images = torch.from_numpy(load_digits().images[:300, None]).float() / 16
    codes = ConvEncoder((1, 8, 8), 50, channels=32)(images).mean
    assert 0.6 < codes.std(0).mean() < 1.6


@pytest.mark.parametrize("network", ["encoder", "prior", "decoder", "pixelcnn"])
def test_autocast_leaves_what_is_summed_in_float32(network):
    likelihood = BernoulliLikelihood(1)
    image, z = torch.rand(4, 1, 8, 8).round(), torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        numbers = {
            "encoder": lambda: ConvEncoder((1, 8, 8), 5, channels=8)(image).mean,
            "prior": lambda: MixturePrior(5, width=16).describe(z),
            "decoder": lambda: ConvDecoder((1, 8, 8), 5, likelihood, channels=8)(z).mean,
            "pixelcnn": lambda: PixelCNNDecoder((1, 8, 8), 5, likelihood, channels=8)(z).log_prob(
                image
            ),
        }[network]()
    assert numbers.dtype == torch.float32
    # and not rounded to the eight bits of bfloat16 before
    assert not torch.equal(numbers, numbers.bfloat16().float())


BODY = """
from torch import nn

def body():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
"""


@pytest.mark.parametrize("kind", ["conv", "import", "import, in 16 bits"])
def test_16_bits_leave_an_encoders_small_differences(kind, tmp_path):
    (tmp_path / "body_of_ones_own.py").write_text(BODY)
    encoder: Encoder = ConvEncoder((1, 8, 8), 5, channels=8)
    if kind != "conv":
        path = "body_of_ones_own:body"
        encoder = ImportedEncoder((1, 8, 8), 5, path=path, float32=kind == "import")
    images = torch.rand(1, 1, 8, 8) + 1e-4 * torch.randn(6, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        codes = encoder(images).mean
    # In 16 bits what differs would be rounding errors, which a shape enlarges to codes.
    assert torch.equal(codes, encoder(images).mean) is (kind != "import, in 16 bits")


def test_each_dimension_of_the_mixture_integrates_to_one():
    prior = MixturePrior(2, mixtures=5, width=16)(torch.randn(2) * 3)
    grid = torch.linspace(-80, 80, 160_001, dtype=torch.float32)
    densities = prior.base_dist.log_prob(grid[:, None]).exp()
    torch.testing.assert_close(
        torch.trapezoid(densities, grid, dim=0), torch.ones(2), rtol=1e-3, atol=0
    )


def test_mixture_equals_a_naive_sum_of_gaussians():
    network = MixturePrior(3, mixtures=4, width=16, depth=3)
    code, z = torch.randn(7, 3), torch.randn(7, 3)
    one = torch.tanh(network.hidden[0](code))
    two = torch.tanh(network.hidden[1](torch.cat([code, one], 1)))
    three = torch.tanh(network.hidden[2](torch.cat([code, two], 1)))
    raw = network.output(torch.cat([one, two, three], 1)).reshape(7, 3, 4, 3)
    weights, means = raw[..., 0].softmax(-1), raw[..., 1]
    variances = 1 + (2 * raw[..., 2]).exp()
    parts = weights * (-((z[..., None] - means) ** 2) / (2 * variances)).exp()
    naive = (parts / (2 * torch.pi * variances).sqrt()).sum(-1).log().sum(-1)
    torch.testing.assert_close(network(code).log_prob(z), naive)


def test_no_component_of_the_prior_is_narrower_than_the_posterior():
    network = MixturePrior(3, mixtures=4, width=16)
    torch.nn.init.constant_(network.output.bias, -50.0)
    assert (network(torch.randn(5, 3)).base_dist.component_distribution.scale >= 1).all()


def test_standard_normal_prior_ignores_the_code():
    prior = StandardNormalPrior(3)
    z = torch.randn(4, 3)
    torch.testing.assert_close(
        prior(torch.randn(4, 3)).log_prob(z), prior(torch.randn(4, 3)).log_prob(z)
    )


def test_families_know_their_kinds():
    families = (Encoder, Prior, Decoder, Likelihood)
    assert {family: sorted(family.kinds) for family in families} == {
        Encoder: ["conv", "import", "none"],
        Prior: ["mixture", "standard_normal"],
        Decoder: ["conv", "pixelcnn"],
        Likelihood: ["bernoulli", "categorical", "logistic_mixture"],
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConvEncoder((1, 8, 8), 5, channels=12),
        lambda: ConvDecoder((1, 8, 8), 5, BernoulliLikelihood(1), channels=0),
        lambda: MixturePrior(3, mixtures=0),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(UsageError):
        make()
