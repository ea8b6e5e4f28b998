"""Pictures show means where pixels are independent, and noise for each pixel on request."""

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli

from acn_lightning import ACN
from acn_lightning.checkpoint import read_checkpoint
from acn_lightning.config.compose import compose
from acn_lightning.experiment.build import build
from acn_lightning.experiment.restore import from_checkpoint
from acn_lightning.inference.pictures import pixels_of
from acn_lightning.inference.sampling import KINDS, draw
from acn_lightning.networks.distributions import CategoricalPixels
from tests.conftest import QUICK


def test_means_noise_and_samples_where_there_is_no_mean():
    grey = Bernoulli(torch.full((2, 1, 4, 4), 0.3))
    torch.testing.assert_close(pixels_of(grey), torch.full((2, 1, 4, 4), 0.3))
    assert set(pixels_of(grey, noise=True).unique().tolist()) <= {0.0, 1.0}
    tables = [torch.zeros(256, 256)] * 3
    colours = CategoricalPixels(torch.zeros(2, 3, 256, 4, 4), tables)  # no closed-form mean
    levels = pixels_of(colours) * 255
    torch.testing.assert_close(levels, levels.round())
    assert levels.std() > 50


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_is_smooth_unless_noise_is_asked_for(trained, checkpoint, kind):
    words = [f"data.root={trained / 'photos'}"]
    _, data, module = from_checkpoint(read_checkpoint(checkpoint), words, bank=True)
    module.eval()

    def drawn(seed, **options):
        torch.manual_seed(seed)
        return draw(module, data, kind=kind, rows=2, columns=4, **options)

    plain, noisy = drawn(3), drawn(3, noise=True)
    assert torch.equal(plain, drawn(3, noise=False))
    assert plain.shape == noisy.shape
    assert torch.equal(plain[:, 0], noisy[:, 0]) == (kind != "unconditional")

    def roughness(images):
        return images.diff(dim=-1).abs().mean()

    decoded = slice(int(kind != "unconditional"), 3 if kind == "interpolation" else 4)
    assert roughness(noisy[:, decoded]) > 2 * roughness(plain[:, decoded])


@pytest.mark.parametrize("noise", [True, False])
def test_a_daydream_goes_on_from_the_black_and_white_images_that_it_shows(noise):
    binary = ["model.likelihood.kind=bernoulli", "data.binarisation=static"]
    data, module = build(compose("digits", [*QUICK, *binary]))
    seen = []
    module.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    shown = draw(module, data, kind="daydream", rows=3, columns=4, noise=noise)
    assert len(seen) == 3
    for column, encoded in enumerate(seen):
        assert set(encoded.unique().tolist()) <= {0.0, 1.0}
        # Means are shown without noise, and are grey: what is encoded then is drawn from them.
        assert torch.equal(shown[:, column], encoded) == (noise or not column)


def test_samples_in_python_and_by_the_command(trained, checkpoint, acn):
    root = f"data.root={trained / 'photos'}"
    model = ACN.load(checkpoint)
    torch.manual_seed(0)
    images = model.sample(5)
    torch.manual_seed(0)
    bank = model.bank
    z = model.module.prior.marginal(bank.codes[bank.rows], nearest=1).sample((5,))
    with torch.no_grad():
        means = model.module.decoder(z).mean[:, 0].mul(255).round().byte().numpy()
    np.testing.assert_array_equal(images, means)
    torch.manual_seed(0)
    assert (model.sample(5, noise=True) != images).mean() > 0.5
    status, _, err = acn("sample", checkpoint, "noise=true", "rows=2", "columns=3", root)
    assert status == 0, err
    status, _, err = acn("sample", checkpoint, "noise=often", root)
    assert status == 2
    assert err.count("\n") == 1
    assert "sampling.noise" in err
