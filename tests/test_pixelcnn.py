"""Autoregressive in raster order, without a blind spot, conditioned everywhere; samples that follow
the density."""

import itertools

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from acn_lightning.networks.decoders import PixelCNNDecoder
from acn_lightning.networks.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    LogisticMixtureLikelihood,
)
from acn_lightning.networks.pixelcnn.network import Gate, GatedPixelCNN
from acn_lightning.networks.pixelcnn.sampler import IncrementalSampler

SHAPES = [(1, 7, 6), (3, 5, 8), (1, 1, 5), (1, 6, 1)]
SIZES = [(1, 3, 3), (1, 3, 7), (3, 3, 3), (2, 5, 3), (4, 3, 7), (2, 7, 5)]  # layers, kernels


def network(pixels, layers, kernel, first_kernel, features=0, parameters=2):
    """With weights large enough for an influence to be seen through all layers."""
    net = GatedPixelCNN(pixels, parameters, features, 8, layers, kernel, first_kernel).double()
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.15)
    return net


def raster(shape):
    return itertools.product(range(shape[1]), range(shape[2]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("layers", "kernel", "first_kernel"), SIZES)
def test_a_pixel_moves_later_outputs_only(shape, layers, kernel, first_kernel):
    net = network(shape[0], layers, kernel, first_kernel)
    image = torch.rand(1, *shape, dtype=torch.float64)
    before = net(image, None)
    for i, j in raster(shape):
        changed = image.clone()
        changed[0, :, i, j] += 1
        moved = ((net(changed, None) - before).abs() > 0).any(dim=1)[0].flatten()
        position = i * shape[2] + j
        assert not moved[: position + 1].any(), (i, j)
        if j + 1 < shape[2]:
            assert moved[position + 1], (i, j)  # through the horizontal stack
        if i + 1 < shape[1]:
            assert moved.view(shape[1:])[i + 1, j], (i, j)  # through the vertical stack


@pytest.mark.parametrize(("layers", "kernel", "first_kernel"), SIZES)
def test_there_is_no_blind_spot(layers, kernel, first_kernel):
    """The gradient's support is all of the receptive field: the rows above within the kernels'
    reach, and the row itself to the left."""
    height, width = 15, 31
    net = network(1, layers, kernel, first_kernel)
    image = torch.rand(1, 1, height, width, dtype=torch.float64, requires_grad=True)
    i, j = height - 1, width // 2
    # Both outputs, weighted at random, lest two influences cancel
    (net(image, None)[0, :, i, j] * torch.tensor([0.7, -1.3])).sum().backward()
    seen = image.grad[0, 0].abs() > 0
    first, more = first_kernel // 2, kernel // 2
    reach = first + (layers - 1) * more  # to the left, and upwards
    expected = torch.zeros(height, width, dtype=torch.bool)
    expected[i, max(0, j - reach) : j] = True
    # Sideways the vertical stack reaches as far as upwards, in every row that it sees
    for up in range(1, min(reach, i) + 1):
        expected[i - up, max(0, j - reach) : j + reach + 1] = True
    assert torch.equal(seen[i], expected[i])
    above = seen[:i], expected[:i]
    assert not (above[0] & ~above[1]).any()  # nothing beyond
    assert (above[0] | ~above[1]).all()  # nothing left out


def test_the_stacks_by_themselves():
    """The vertical stack tells of the rows above and nothing of the row itself; the horizontal one
    tells of the row to the left alone when nothing is told to it."""
    net = network(1, 3, 3, 5)
    image = torch.rand(1, 1, 6, 7, dtype=torch.float64)
    told = net.rows_above(image, None)
    silence = [torch.zeros_like(words) for words in told]
    row = net.along_rows(image, silence)
    for i, j in raster((1, 6, 7)):
        changed = image.clone()
        changed[0, 0, i, j] += 1
        for words, after in zip(told, net.rows_above(changed, None), strict=True):
            assert torch.equal(after[:, :, : i + 1], words[:, :, : i + 1])
        moved = (net.along_rows(changed, silence) - row).abs().sum((0, 1)) > 0
        assert not moved[:i].any()
        assert not moved[i + 1 :].any()
        assert not moved[i, : j + 1].any()
        assert moved[i, j + 1 : j + 2].all()


def test_equals_masked_convolutions():
    """One layer, against full kernels with the unseen part set to zero."""
    net = network(1, 1, 3, 5, parameters=3)
    layer = net.layers[0]
    image = torch.rand(2, 1, 6, 7, dtype=torch.float64)
    x = 2 * image - 1
    above, left = torch.zeros(16, 1, 5, 5).double(), torch.zeros(16, 1, 5, 5).double()
    above[:, :, :2] = layer.above.weight
    left[:, :, 2, :2] = layer.left.weight[:, :, 0]
    v = nn.functional.conv2d(x, above, layer.above.bias, padding=2)
    h = nn.functional.conv2d(x, left, layer.left.bias, padding=2) + layer.down(v)
    gated = torch.tanh(h[:, :8]) * torch.sigmoid(h[:, 8:])
    torch.testing.assert_close(net(image, None), net.output(net.hidden(layer.mix(gated))))


def test_gates_gradient():
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    a, b = x.chunk(2, dim=1)
    torch.testing.assert_close(Gate.apply(x), torch.tanh(a) * torch.sigmoid(b))
    assert torch.autograd.gradcheck(Gate.apply, (x,))


def test_gates_in_16_bits_keep_the_digits_of_small_values():
    x = torch.rand(2, 6, 3, 4).mul(0.02).bfloat16()
    a, b = x.float().chunk(2, dim=1)
    torch.testing.assert_close(Gate.apply(x).float(), a.tanh() * b.sigmoid(), rtol=0.02, atol=0)


# ---------------------------------------------------------------- the decoder

LIKELIHOODS = [BernoulliLikelihood, CategoricalLikelihood, LogisticMixtureLikelihood]


def decoder(shape=(1, 5, 6), likelihood=BernoulliLikelihood, **options):
    options = {"channels": 8, "layers": 3, "kernel": 3, "map_channels": 8} | options
    return PixelCNNDecoder(shape, 4, likelihood(shape[0]), **options)


@torch.no_grad()
@pytest.mark.parametrize("conditioning", ["map", "vector"])
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("stack", [slice(0, 16), slice(16, 32)])
def test_the_code_reaches_every_layer_of_both_stacks(conditioning, number, stack):
    network = decoder(conditioning=conditioning)
    z, image = torch.randn(2, 4), torch.rand(2, 1, 5, 6).round()
    # One stack of one layer alone carries it: the other conditions are taken out
    for n, layer in enumerate(network.network.layers):
        kept = layer.condition.weight[stack].clone()
        layer.condition.weight.zero_()
        if n == number:
            layer.condition.weight[stack] = kept
    one, other = (network(code).log_prob(image) for code in (z, z + 1))
    assert (one != other).all()
    network.network.layers[number].condition.weight.zero_()
    one, other = (network(code).log_prob(image) for code in (z, z + 1))
    assert torch.equal(one, other)


def test_a_map_tells_places_apart_and_a_vector_does_not():
    z = torch.randn(1, 4)
    for conditioning, places in [("map", True), ("vector", False)]:
        features = decoder((1, 8, 9), conditioning=conditioning).condition(z).flatten(2)
        assert bool((features.std(dim=2) > 0).any()) is places


def test_without_conditioning_the_code_is_left_out():
    network = decoder(conditioning="none")
    image = torch.rand(3, 1, 5, 6).round()
    one, other = (network(torch.randn(3, 4)).log_prob(image) for _ in range(2))
    torch.testing.assert_close(one, other)
    assert not [name for name, _ in network.named_parameters() if "condition" in name]


def test_probabilities_of_all_images_sum_to_one():
    network = decoder((1, 3, 3), layers=2)
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).view(512, 1, 3, 3)
    z = torch.randn(1, 4).expand(512, 4)
    torch.testing.assert_close(network(z).log_prob(images).exp().sum(), torch.tensor(1.0))


def test_samples_follow_the_density():
    torch.manual_seed(3)
    network = decoder((1, 2, 3), layers=2)
    for weight in network.network.parameters():
        nn.init.normal_(weight, std=0.7)
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6))).view(64, 1, 2, 3)
    z = torch.randn(1, 4)
    expected = network(z.expand(64, 4)).log_prob(images).exp()
    drawn = network(z.expand(20_000, 4)).sample()
    number = (drawn.flatten(1) @ 2.0 ** torch.arange(5, -1, -1)).long()
    found = torch.bincount(number, minlength=64) / len(drawn)
    error = (expected * (1 - expected) / len(drawn)).sqrt()
    assert ((found - expected).abs() < 5 * error + 1e-4).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("conditioning", ["map", "vector", "none"])
@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 4, 3), (1, 1, 4)])
def test_samples_are_images_of_pixel_values(likelihood, conditioning, shape):
    network = decoder(shape, likelihood, conditioning=conditioning)
    distribution = network(torch.randn(2, 4))
    image = distribution.sample()
    assert image.shape == (2, *shape)
    torch.testing.assert_close(image * 255, (image * 255).round())
    assert distribution.log_prob(image).isfinite().all()
    with pytest.raises(NotImplementedError):
        distribution.sample((2,))
    with pytest.raises(NotImplementedError):
        _ = distribution.mean


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("layers", "kernel", "first_kernel"), SIZES)
@pytest.mark.parametrize("place", ["none", "vector", "map"])
def test_pixel_by_pixel_says_what_the_whole_network_says(
    shape, layers, kernel, first_kernel, place
):
    features = {"none": 0, "vector": 3, "map": 3}[place]
    net = network(shape[0], layers, kernel, first_kernel, features)
    image = torch.rand(2, *shape, dtype=torch.float64)
    size = shape[1:] if place == "map" else (1, 1)
    condition = torch.randn(2, 3, *size, dtype=torch.float64) if features else None
    pixels = IncrementalSampler(net, condition, 2, shape[2])
    found = torch.zeros(2, 2, *shape[1:], dtype=torch.float64)
    for i in range(shape[1]):
        pixels.start_row(i, image[:, :, i - 1 : i] if i else None)
        for j in range(shape[2]):
            found[:, :, i, j] = pixels.next(j, image[:, :, i, j - 1] if j else None)
    torch.testing.assert_close(found, net(image, condition))


def naive_sample(network, z):
    """One pass of the whole network a pixel."""
    image = torch.zeros(len(z), *network.image_shape)
    features = network.condition(z) if network.condition is not None else None
    for i, j in raster(network.image_shape):
        parameters = network.network(image, features)[:, :, i : i + 1, j : j + 1]
        image[:, :, i, j] = network.likelihood(parameters).sample()[:, :, 0, 0]
    return image


@torch.no_grad()
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(1, 6, 5), (3, 4, 3)])
@pytest.mark.parametrize("conditioning", ["map", "vector", "none"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_same_pixels_as_with_a_pass_of_the_whole_network_each(
    likelihood, shape, conditioning, layout
):
    network = decoder(shape, likelihood, conditioning=conditioning, first_kernel=5)
    for weight in network.network.parameters():
        nn.init.normal_(weight, std=0.3)
    network = network.to(memory_format=layout)
    z = torch.randn(8, 4)
    torch.manual_seed(1)
    expected = naive_sample(network, z)
    torch.manual_seed(1)
    torch.testing.assert_close(network(z).sample(), expected)
    assert expected.std() > 0


@torch.no_grad()
def test_sampling_under_autocast_is_in_float32():
    network = decoder((1, 6, 5))
    z = torch.randn(8, 4)
    with torch.autocast("cpu", torch.bfloat16):
        distribution = network(z)
        torch.manual_seed(1)
        drawn = distribution.sample()
    distribution.features = distribution.features.float()
    torch.manual_seed(1)
    assert torch.equal(distribution.sample(), drawn)


class Work(TorchDispatchMode):
    """Counts the multiplications of convolutions and of products of matrices."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if "convolution" in name:
            self.count += out.numel() * args[1][0].numel()
        elif name == "addmm":
            self.count += out.numel() * args[1].shape[1]
        return out


@torch.no_grad()
def test_drawing_an_image_takes_the_work_of_one_pass_over_it():
    network = decoder((1, 12, 11), first_kernel=5).network
    image = torch.rand(2, 1, 12, 11)
    features = torch.rand(2, 8, 12, 11)
    with Work() as whole:
        network(image, features)
    with Work() as drawing:
        pixels = IncrementalSampler(network, features, 2, 11)
        for i in range(12):
            pixels.start_row(i, image[:, :, i - 1 : i] if i else None)
            for j in range(11):
                pixels.next(j, image[:, :, i, j - 1] if j else None)
    # The pass over the whole has paddings besides, that are cut off.
    assert 0.7 * whole.count < drawing.count <= whole.count
