"""Convolutions that multiply less give what PyTorch's give, with the gradient and the weights."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, interpolate

from acn_lightning.networks import convolutions
from acn_lightning.networks.convolutions import (
    Conv3x3,
    UpsamplingConv3x3,
    transforms,
    winograd,
)
from acn_lightning.networks.exact import exactly, settle
from acn_lightning.networks.layers import upsampling


def gradients(function, x, weight):
    """The output, and the gradients of a random weighting of it."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = function(x, weight)
    torch.manual_seed(1)
    return y, *torch.autograd.grad((y * torch.randn(y.shape, dtype=y.dtype)).sum(), (x, weight))


def plain(x, weight):
    return conv2d(x, weight, padding=1)


def of_doubled(x, weight):
    return plain(interpolate(x, scale_factor=2.0), weight)


def upsampled(x, weight):
    layer = UpsamplingConv3x3(weight.shape[1], weight.shape[0])
    return torch.func.functional_call(layer, {"weight": weight}, (x,))


@pytest.mark.parametrize(
    ("ours", "reference", "size"),
    [(winograd, plain, (4, 4)), (upsampled, of_doubled, (3, 5)), (upsampled, of_doubled, (1, 4))],
)
def test_the_same_output_and_gradients(ours, reference, size):
    x = torch.randn(3, 5, *size, dtype=torch.float64)
    weight = torch.randn(7, 5, 3, 3, dtype=torch.float64)
    for found, expected in zip(
        gradients(ours, x, weight), gradients(reference, x, weight), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_in_float32_they_differ_by_rounding(layout):
    x = torch.randn(32, 64, 4, 4).contiguous(memory_format=layout)
    for layer, reference in [(Conv3x3(64, 64), plain), (UpsamplingConv3x3(64, 64), of_doubled)]:
        layer = layer.to(memory_format=layout)
        expected = reference(x.double(), layer.weight.double())
        torch.testing.assert_close(layer(x).double(), expected, rtol=0, atol=2e-5)


def test_winograds_way_is_taken_where_it_is_faster(monkeypatch):
    def ways(layer, x):
        taken = []
        monkeypatch.setattr(
            convolutions, "winograd", lambda *args: taken.append(1) or winograd(*args)
        )
        layer(x)
        return bool(taken)

    wide, batch = Conv3x3(64, 64), torch.randn(16, 64, 4, 4)
    assert ways(wide, batch)
    assert not ways(wide, batch[:2])
    assert not ways(wide, torch.randn(16, 64, 5, 4))
    assert not ways(Conv3x3(64, 32), batch)
    assert not ways(wide.to("meta"), batch.to("meta"))
    wide = Conv3x3(64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert not ways(wide, batch)
        torch.testing.assert_close(wide(batch).float(), plain(batch, wide.weight).float())


def test_matrices_that_evaluation_made_serve_training():
    transforms.cache_clear()
    layer, x = Conv3x3(64, 64), torch.randn(16, 64, 4, 4)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("size", "doubled"), [((28, 28), 2), ((32, 32), 3), ((9, 16), 0), ((8, 6), 1)]
)
def test_upsampling_is_what_it_was_and_so_are_its_weights_names(size, doubled):
    torch.manual_seed(2)
    ours = nn.Sequential(*upsampling(6, size, 8))
    earlier = [nn.Conv2d(m.in_channels, m.out_channels, 3, padding=1, bias=False)
               if isinstance(m, nn.Conv2d) else m for m in ours]  # fmt: skip
    sides = [tuple(size)]
    while min(sides[-1]) > 4:
        sides.append(tuple(-(-side // 2) for side in sides[-1]))
    places = [i for i, m in enumerate(ours) if isinstance(m, nn.Upsample | nn.Identity)]
    for i, side in zip(places, sides[-2::-1], strict=True):
        earlier[i] = nn.Upsample(size=side)
    assert sum(isinstance(m, nn.Identity) for m in ours) == doubled
    earlier = nn.Sequential(*earlier)
    earlier.load_state_dict(ours.state_dict())
    z = torch.randn(3, 6)
    torch.testing.assert_close(ours(z), earlier(z), rtol=1e-4, atol=1e-5)


def test_exact_forms_are_those_of_the_steps_of_old():
    x = settle(torch.randn(2, 8, 4, 3, dtype=torch.float64))
    layer, old = UpsamplingConv3x3(8, 16), nn.Conv2d(8, 16, 3, padding=1, bias=False)
    old.load_state_dict(layer.state_dict())
    steps = exactly(nn.Sequential(nn.Upsample(size=(8, 6)), old))
    assert torch.equal(exactly(layer)(x), steps(x))
    layer = Conv3x3(8, 16)
    old.load_state_dict(layer.state_dict())
    assert torch.equal(exactly(layer)(x), exactly(old)(x))
