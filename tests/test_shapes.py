"""The shapes of codes: by closed forms, by loops, and over processes."""

import warnings
from copy import deepcopy

import pytest
import torch
from torch.distributions import kl_divergence

from acn_lightning import ACN
from acn_lightning.callbacks import RefreshNeighbours, WarnOfFaults
from acn_lightning.checkpoint import read_checkpoint
from acn_lightning.config.compose import compose
from acn_lightning.experiment.build import build
from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.shapes import FreeShape, SphereShape, WhiteShape
from acn_lightning.utils.errors import UsageError
from tests.conftest import CHEAP, QUICK
from tests.processes import call, shape_gradient, shape_step
from tests.test_module import digits, trainer


def test_white_codes_have_the_mean_and_variance_asked_for():
    shape = WhiteShape(4, scale=1.5)
    code = shape.of_batch((torch.randn(50, 4) + 2) * torch.tensor([1e-3, 1.0, 30.0, 5.0]))
    torch.testing.assert_close(code.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(code.std(0, correction=0), torch.full((4,), 1.5))


def test_a_stored_code_depends_on_its_own_image_alone():
    shape, drawn = WhiteShape(3), torch.randn(200, 64, 3) * 4 + 1
    for batch in drawn:
        shape.of_batch(batch)
    known = shape.mean.clone(), shape.variance.clone()
    together = shape(drawn[0])
    alone = torch.cat([shape(one[None]) for one in drawn[0]])
    torch.testing.assert_close(together, alone)
    assert torch.equal(known[0], shape.mean)
    assert torch.equal(known[1], shape.variance)
    torch.testing.assert_close(known[0], torch.ones(3), atol=0.4, rtol=0)
    torch.testing.assert_close(known[1], torch.full((3,), 16.0), atol=3, rtol=0)


def test_the_penalty_is_the_sum_of_squared_correlations():
    shape = WhiteShape(4, scale=2.0, decorrelation=8.0)
    code = shape.of_batch(torch.randn(30, 4) @ torch.randn(4, 4))
    expected = 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                expected += float(torch.corrcoef(torch.stack([code[:, i], code[:, j]]))[0, 1]) ** 2
    assert float(shape.penalty(code)) == pytest.approx(8 / 4 * expected, rel=1e-4)


def test_the_penalty_takes_codes_off_a_thread():
    """One direction in four dimensions; the penalty alone spreads it over all."""
    images = torch.randn(256, 6)
    weight = (torch.ones(6, 4) + 0.1 * torch.randn(6, 4)).requires_grad_()
    shape, optimizer = WhiteShape(4), torch.optim.Adam([weight], lr=0.02)
    before = float(shape.penalty(shape.of_batch(images @ weight)).detach())
    for _ in range(300):
        optimizer.zero_grad()
        shape.penalty(shape.of_batch(images @ weight)).backward()
        optimizer.step()
    assert before > 40
    assert float(shape.penalty(shape.of_batch(images @ weight)).detach()) < 0.05


def test_processes_together_have_the_gradient_of_one(tmp_path):
    generator = torch.Generator().manual_seed(3)
    expected = shape_gradient(torch.randn(12, 5, generator=generator, dtype=torch.double))
    call(shape_step, *((rank, 3, str(tmp_path)) for rank in range(3)))
    for rank in range(3):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_a_single_image_is_coded_by_the_running_statistics():
    shape, image = WhiteShape(3), torch.randn(1, 3)
    torch.testing.assert_close(shape.of_batch(image), 1.5 * image)
    assert torch.equal(shape.mean, torch.zeros(3))


def test_a_single_image_pays_no_penalty():
    """Any two of its dimensions are proportional, which says nothing of the codes."""
    image = torch.randn(1, 3, requires_grad=True)
    assert WhiteShape(3).penalty(WhiteShape(3).of_batch(image)) == 0


def test_the_gap_is_a_kl_between_posteriors():
    shape, means = WhiteShape(5), torch.randn(100, 5) * 3 - 1
    running = shape(means)
    own = shape.of_batch(means)
    expected = kl_divergence(unit_normal(own), unit_normal(running)).mean()
    fresh = WhiteShape(5)
    assert fresh.gap(means) == pytest.approx(float(expected), rel=1e-4)
    fresh.of_batch(means)
    assert fresh.gap(means) < 1e-4
    assert FreeShape(5).gap(means) == 0


def test_on_a_sphere_all_codes_are_as_long():
    lengths = SphereShape(9, radius=1.5)(torch.randn(20, 9)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((20,), 4.5))


def test_free_codes_are_what_the_encoder_says():
    means = torch.randn(20, 3)
    assert FreeShape(3)(means) is means
    assert FreeShape(3).penalty(means) == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.shape.scale=0", "model.shape.scale: must be finite and above 0, not 0.0."),
        ("model.shape.scale=.nan", "model.shape.scale: must be finite and above 0, not nan."),
        ("model.shape.decorrelation=-1", "-1.0 is not from 0 to"),
        ("model.shape.kind=square", "kind: 'square' is not one of free, sphere, white."),
        ("data.batch_size=1", "data.batch_size: codes get their mean and variance from a batch"),
    ],
)
def test_wrong_shapes_are_refused_in_a_line(override, message):
    with pytest.raises(UsageError) as error:
        build(compose("digits", [*QUICK, override]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_shape_that_the_prior_cannot_pay_for_is_refused():
    standard = "model.prior.kind=standard_normal"
    with pytest.raises(UsageError, match=r"charges 8.0 nats .* Use at most 2"):
        build(compose("digits", [*QUICK[:2], standard, "model.shape.scale=4"]))
    build(compose("digits", [*QUICK[:2], standard, "model.shape.scale=1"]))
    build(compose("digits", [*QUICK, "model.shape.scale=4"]))


def test_codes_keep_their_shape_through_a_training_step():
    data, module = build(compose("digits", list(QUICK)))
    images = data.fixed_set.images[:64] / 255
    before = module(images).mean
    _, _, code = module.costs(images, torch.randn(64, 4))
    torch.testing.assert_close(code.std(0, correction=0), torch.full((4,), 1.5))
    # What is stored, searched for and measured: in whatever mode the module is.
    raw = module.encoder(images).mean
    expected = (raw - module.shape.mean) * 1.5 / module.shape.variance.sqrt()
    assert not torch.allclose(expected, before)
    torch.testing.assert_close(module(images).mean, expected)
    torch.testing.assert_close(module.train()(images[:1]).mean, expected[:1])
    torch.testing.assert_close(module.eval()(images[:1]).mean, expected[:1])


def test_a_frozen_shape_keeps_its_statistics():
    shape, means = WhiteShape(4).eval(), torch.randn(9, 4)
    torch.testing.assert_close(shape.of_batch(means), 1.5 * means)
    assert torch.equal(shape.variance, torch.ones(4))


@pytest.mark.parametrize("follow", [True, False])
def test_running_statistics_that_do_not_follow_are_a_warning(follow, monkeypatch):
    monkeypatch.setattr("acn_lightning.evaluation.warnings.STEPS", 60)
    if not follow:  # a copy learns them in its place
        learn = WhiteShape.of_batch
        monkeypatch.setattr(WhiteShape, "of_batch", lambda self, mean: learn(deepcopy(self), mean))
    data, module = build(compose("digits", [*QUICK, *CHEAP, "data.augment=none"]))
    run = trainer(RefreshNeighbours(encode=True), WarnOfFaults(), max_epochs=3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run.fit(module, datamodule=data)
    told = [str(one.message) for one in seen if "running mean and variance" in str(one.message)]
    gap = float(run.callback_metrics["codes/statistics_gap"])
    assert bool(told) == (not follow)
    assert (gap > 0.5 * 4) == (not follow)


@pytest.mark.parametrize(("sphere", "kind"), [(True, "sphere"), (False, "free")])
def test_checkpoints_of_before_codes_had_a_shape_still_load(acn, sphere, kind, tmp_path):
    radius = ["model.shape.radius=0.7"] if sphere else []
    words = [*QUICK, *CHEAP, f"model.shape.kind={kind}", *radius, "trainer.max_epochs=1",
             "data.subset=200", "pictures.every_n_epochs=0"]  # fmt: skip
    status, _, err = acn("fit", "digits", *words, "evaluation.linear=none", "run=mine")
    assert status == 0, err
    content = read_checkpoint("runs/digits/mine/checkpoints/best.ckpt")
    config = content["hyper_parameters"]["acn_config"]
    del config["model"]["shape"]
    config["model"]["encoder"] |= {"spread": 0.7, "sphere": sphere}
    torch.save(content, tmp_path / "old.ckpt")
    images = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    one, other = (ACN.load(path).encode(images) for path in
                  ("runs/digits/mine/checkpoints/best.ckpt", tmp_path / "old.ckpt"))  # fmt: skip
    assert torch.equal(one, other)
    assert torch.allclose(one.norm(dim=1), torch.tensor(1.4)) == sphere
    status, _, err = acn("test", tmp_path / "old.ckpt", "evaluation.linear=none")
    assert status == 0, err


def test_codes_of_pretrained_weights_have_their_shape_before_the_first_step():
    data, module = digits("data.subset=300", "model.shape.kind=white", "model.shape.scale=1.5")
    module.pretrained = ["encoder.some"]  # any name: the first epoch then draws from its codes
    trainer(RefreshNeighbours(), max_steps=0).fit(module, datamodule=data)
    codes = module.bank.codes[module.bank.rows]
    assert len(codes) > 256  # more than those that the statistics are of
    torch.testing.assert_close(codes.mean(0), torch.zeros(4), atol=0.05, rtol=0)
    torch.testing.assert_close(codes.std(0), torch.full((4,), 1.5), atol=0.1, rtol=0)
    assert module.shape.batches == 0  # the first step takes its own
