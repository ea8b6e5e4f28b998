"""Networks in exact arithmetic: near to the float networks, and the same whatever the batch, the
order of sums, the number of threads, or the path through the pixels."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from acn_lightning.networks import exact
from acn_lightning.networks.decoders import ConvDecoder, PixelCNNDecoder
from acn_lightning.networks.encoders import ConvEncoder
from acn_lightning.networks.exact import exactly, mean_square, settle
from acn_lightning.networks.likelihoods import BernoulliLikelihood, LogisticMixtureLikelihood
from acn_lightning.networks.pixelcnn.network import GatedActivation
from acn_lightning.networks.priors import MixturePrior
from acn_lightning.utils.errors import UsageError

TABLES = {
    "tanh": (exact.tanh, np.tanh),
    "gate": (exact.gate, lambda x: 1 / (1 + np.exp(-x))),
    "sigmoid": (exact.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "bell": (exact.bell, lambda x: np.exp(-(x**2) / 2)),
    "exponential": (exact.exponential, np.exp),
    "prior_scale": (exact.prior_scale, lambda x: np.sqrt(1 + np.exp(2 * x))),
}


def settled(*shape):
    return settle(torch.randn(*shape, dtype=torch.float64))


@pytest.mark.parametrize("name", TABLES)
def test_every_machine_makes_the_same_table(name):
    """No value is so near to a boundary of rounding that a library's relative error of 2^-50, four
    units in the last place, decides. Against 80-bit arithmetic."""
    table, function = TABLES[name]
    found = table()
    value = function(found.arguments().astype(np.longdouble))
    error = np.abs(value) * np.longdouble(2.0**-50)
    unit = np.longdouble(2.0 ** -(found.bits or 0))
    if found.bits is None:
        unit = np.spacing(np.abs(value).astype(np.float32)).astype(np.longdouble)
    steps = value / unit
    apart = np.abs(steps - np.floor(steps) - np.longdouble(0.5)) * unit
    clear = apart > error
    assert clear.all(), found.arguments()[~clear]
    assert np.abs(found.values.numpy() - value).max() <= (unit / 2 + error).max()


def test_the_normals_table_is_clear_of_rounding_too():
    """numpy has no such function in 80 bits; mpmath would take minutes for all of them."""
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.prec = 80
    found = exact.normal()
    steps = found.values.numpy() * 2.0**found.bits
    assert (steps == np.round(steps)).all()
    near = np.abs(exact.ndtr(found.arguments()) * 2.0**found.bits % 1 - 0.5)
    for place in near.argsort()[:50]:
        value = mpmath.ncdf(found.arguments()[place]) * 2**found.bits
        assert abs(value % 1 - 0.5) > value * 2.0**-50
        assert int(mpmath.floor(value + 0.5)) == steps[place]


def test_settling_rounds_to_the_grid():
    x = torch.tensor([0.0, 2**-17, 3 * 2**-17, -(2**-17), 1 + 2**-16, 300.3, -(2.0**34) + 0.1])
    x = x.double()
    assert torch.equal(settle(x), (x * 2**16).round() / 2**16)


def test_a_root_is_rounded_as_ieee_754_says():
    """torch.sqrt is not, on the CPU."""
    x = torch.rand(100_000, dtype=torch.float64) * 4
    assert exact.root(x).tolist() == [math.sqrt(one) for one in x.tolist()]


def test_a_mean_of_squares_does_not_depend_on_the_order():
    x = settle(torch.randn(3, 5000, dtype=torch.float64) * 50).clamp(-511, 511)
    found = mean_square(x)
    whole = [sum(int(one) ** 2 for one in row * 2**16) for row in x]
    expected = torch.tensor([one / 5000 / 2**32 for one in whole], dtype=torch.float64)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-15, atol=0)
    assert torch.equal(found, mean_square(x[:, torch.randperm(5000)]))


PARTS = [
    ("conv", lambda: nn.Conv2d(3, 8, 3, padding=1), (3, 9, 7)),
    ("linear", lambda: nn.Linear(20, 30), (20,)),
    ("norm", lambda: nn.GroupNorm(2, 16), (16, 9, 7)),
    ("pool", lambda: nn.AvgPool2d(2, ceil_mode=True), (3, 9, 7)),
    ("gate", lambda: GatedActivation(), (8, 4, 4)),
    ("tanh", lambda: nn.Tanh(), (8,)),
    ("sequence", lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten()), (3, 4, 4)),
]


@pytest.mark.parametrize(("make", "shape"), [part[1:] for part in PARTS], ids=[p[0] for p in PARTS])
def test_a_layer_is_near_to_its_float_form_and_settled(make, shape):
    layer = make()
    x = settled(16, *shape)
    found = exactly(layer)(x)
    torch.testing.assert_close(found, layer.double()(x), atol=4e-4, rtol=0)
    assert torch.equal(found, settle(found))


def networks():
    image = (1, 8, 8)
    yield "encoder", ConvEncoder(image, 4, channels=8), lambda net, x: net(x).mean
    yield "prior", MixturePrior(6, width=32), lambda net, x: net.describe(x[:, 0, 0, :6])
    bernoulli, logistic = BernoulliLikelihood(1), LogisticMixtureLikelihood(1, mixtures=2)
    for name, likelihood in (("bernoulli", bernoulli), ("logistic", logistic)):
        conv = ConvDecoder(image, 4, likelihood, channels=8)
        pixelcnn = PixelCNNDecoder(image, 4, likelihood, channels=8, layers=2, map_channels=8)
        for decoder in (conv, pixelcnn):
            yield (
                f"{type(decoder).__name__} {name}",
                decoder,
                lambda net, x: net.describe(2 * x[:, 0, 0, :4], x),
            )


@pytest.mark.parametrize(
    ("network", "call"), [one[1:] for one in networks()], ids=[one[0] for one in networks()]
)
def test_a_network_is_the_same_in_every_batch_and_with_all_threads(network, call):
    torch.manual_seed(1)
    x = settled(33, 1, 8, 8).sigmoid().mul(2**17).round() / 2**17
    twin = exactly(network)
    with torch.no_grad():
        found = call(twin, x)
        torch.testing.assert_close(
            found, call(copy.deepcopy(network).double(), x), atol=5e-3, rtol=0
        )
        one_by_one = torch.cat([call(twin, image) for image in x.split(1)])
        threads = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            threaded = call(twin, x.contiguous(memory_format=torch.channels_last))
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(found, one_by_one)
    assert torch.equal(found, threaded)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("conditioning", ["map", "vector", "none"])
def test_pixel_by_pixel_is_the_same_as_in_one_pass(channels, conditioning):
    """The receiver's path through a PixelCNN and the sender's."""
    decoder = PixelCNNDecoder(
        (channels, 6, 5), 4, LogisticMixtureLikelihood(channels, mixtures=2), channels=8, layers=3,
        conditioning=conditioning, map_channels=8,
    )  # fmt: skip
    for weight in decoder.parameters():
        nn.init.normal_(weight, std=0.2)
    twin, z = exactly(decoder), settled(7, 4)
    seen = []

    def choose(parameters):
        seen.append(parameters[:, :, 0, 0])
        return torch.rand(7, channels, 1, 1, dtype=torch.float64).mul(2**17).round() / 2**17

    image = twin.fill(z, choose)
    with torch.no_grad():
        assert torch.equal(twin.describe(z, image).flatten(2), torch.stack(seen, 2))


def test_what_has_no_exact_form_is_refused():
    with pytest.raises(UsageError, match="layer Softmax has no form in exact arithmetic"):
        exactly(nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)))
    for weight in (float("nan"), float("inf"), 1e6):
        layer = nn.Linear(4, 4)
        nn.init.constant_(layer.weight, weight)
        with pytest.raises(UsageError, match="too large for exact arithmetic, or not finite"):
            exactly(layer)


def test_large_weights_clamp_inputs_more():
    layer = nn.Linear(100, 1)
    nn.init.constant_(layer.weight, 10.0)  # 1,000 in all: inputs up to 128 are exact
    nn.init.zeros_(layer.bias)
    twin = exactly(layer)
    assert twin.limit == 128.0
    x = torch.full((1, 100), 100.0, dtype=torch.float64)
    assert float(twin(x)) == 100_000.0
    assert float(twin(2 * x)) == 128_000.0
