"""The wiring of a step, against one written out by hand."""

import math

import pytest
import torch
from lightning import Callback, Trainer
from torch.distributions import Bernoulli

from acn_lightning.callbacks import RefreshNeighbours, SeedEpochs
from acn_lightning.config.compose import compose
from acn_lightning.data import Batch, ImageData
from acn_lightning.data.dataset import IndexedImages
from acn_lightning.evaluation.classifiers import knn_vote
from acn_lightning.experiment.build import build
from acn_lightning.module import COSTS
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK, naive_vote


def digits(*overrides, quick=QUICK):
    binary = ["model.likelihood.kind=bernoulli", "data.binarisation=static"]
    return build(compose("digits", [*quick, *binary, *overrides]))


def trainer(*callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(callbacks=list(callbacks), accelerator="cpu", **quiet, **options)


@pytest.fixture
def fitted():
    data, module = digits("neighbours.k=3")
    run = trainer(SeedEpochs(0), RefreshNeighbours(), max_epochs=1)
    run.fit(module, datamodule=data)
    return data, module, run


@pytest.fixture
def step(fitted, monkeypatch):
    """A module after an epoch, its logging off, and a batch for `training_step`."""
    data, module, _ = fitted
    for name in ("log", "log_dict"):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    rows = data.rows[:9]
    return module, Batch(rows, data.fixed_set.images[rows] / 255, data.labels[rows])


def test_loss_is_rate_plus_distortion_of_a_drawn_neighbours_prior(step):
    module, batch = step
    rows = batch.index
    before = module.bank.codes.clone()
    torch.manual_seed(5)
    loss = module.training_step(batch, 0)

    torch.manual_seed(5)
    choice = torch.randint(3, (9,))
    c = before[module.bank.require_neighbours()[rows, choice]]
    raw = module.encoder.mean(module.encoder.body(2 * batch.image - 1))
    mean = 1.5 * (raw - raw.mean(0)) / raw.std(0, correction=0)
    z = mean + torch.randn(9, 4)
    log_q = -((z - mean) ** 2 / 2 + 0.5 * torch.tensor(2 * torch.pi).log()).sum(1)
    log_p = module.prior(c).log_prob(z)
    logits = module.decoder.output(module.decoder.body(z))
    log_r = Bernoulli(logits=logits, validate_args=False).log_prob(batch.image)
    expected = (log_q - log_p - log_r.sum((1, 2, 3))).mean()
    squares = torch.corrcoef(mean.T).square().sum() - 4  # the diagonal's
    torch.testing.assert_close(loss, expected + 16 / 4 * squares)
    # the codes of the batch, and no others, are overwritten
    torch.testing.assert_close(module.bank.codes[rows], mean.detach())
    others = torch.ones(len(before), dtype=torch.bool)
    others[rows] = False
    assert torch.equal(module.bank.codes[others], before[others])


def test_gradients_reach_every_network_and_not_the_bank(step):
    module, batch = step
    rows = batch.index
    c, table = module.bank.codes.clone(), module.bank.require_neighbours()[rows]
    module.zero_grad()
    torch.manual_seed(5)
    module.training_step(batch, 0).backward()
    gradient = module.encoder.mean.weight.grad.clone()
    # through the sample z = mean + noise into the encoder, from rate and distortion both
    module.zero_grad()
    torch.manual_seed(5)
    prior = module.prior(c[table[range(9), torch.randint(3, (9,))]])
    code = module.shape.of_batch(module.encoder(batch.image).mean)
    z = code + torch.randn(9, 4)
    log_r = module.decoder(z).log_prob(batch.image)
    penalty = module.shape.penalty(code)
    (
        (-prior.log_prob(z) - log_r).mean() + penalty
    ).backward()  # log q(z|x) is that of the noise: constant
    torch.testing.assert_close(gradient, module.encoder.mean.weight.grad)
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert module.bank.codes.grad is None
    assert "bank" not in " ".join(module.state_dict())


def test_held_out_costs_are_means_over_all_k_neighbours_with_z_sampled(fitted):
    data, module, run = fitted
    (metrics,) = run.test(module, datamodule=data, verbose=False)
    codes = module(data.fixed_set.images[data.rows] / 255).mean.detach()
    # re-encoded with the final weights, from the images as they are
    torch.testing.assert_close(module.bank.codes[data.rows], codes)
    images = data.test_set.images / 255
    posterior = module(images)
    nearest = torch.cdist(posterior.mean, codes).topk(3, largest=False).indices
    torch.manual_seed(1)
    rates, distortions = [], []
    for _ in range(40):  # other noise than the trainer's: equal within its error
        z = posterior.sample()
        priors = [module.prior(codes[nearest[:, k]]) for k in range(3)]
        rates.append(
            sum((posterior.log_prob(z) - prior.log_prob(z)).mean().item() for prior in priors) / 3
        )
        distortions.append(-module.decoder(z).log_prob(images).mean().item())
    for name, samples in [("test/rate", rates), ("test/distortion", distortions)]:
        samples = torch.tensor(samples)
        assert abs(metrics[name] - samples.mean()) < 5 * samples.std(), name
    assert metrics["test/total"] == pytest.approx(metrics["test/rate"] + metrics["test/distortion"])


def held_out_accuracy(fitted, labels):
    """`val/knn_accuracy` of the test images with these labels as validation images, and the labels
    of their neighbours in the bank."""
    data, module, run = fitted
    data.validation_set = IndexedImages(data.test_set.images, labels, torch.arange(len(labels)))
    (metrics,) = run.validate(module, datamodule=data, verbose=False)
    rows = module.index.search(module(data.test_set.images / 255).mean)
    return metrics.get("val/knn_accuracy"), module.bank.labels[rows]


def test_held_out_images_have_the_class_of_most_neighbours(fitted):
    labels = fitted[0].test_set.labels
    found, near = held_out_accuracy(fitted, labels)
    votes = torch.tensor([naive_vote(each) for each in near.tolist()])
    assert found == pytest.approx((votes == labels).float().mean().item())


def test_images_without_a_label_are_neither_right_nor_wrong(fitted):
    labels = fitted[0].test_set.labels.clone()
    before, _ = held_out_accuracy(fitted, labels)
    labels[::3] = -1
    found, near = held_out_accuracy(fitted, labels)
    right = (knn_vote(near, 10) == labels)[labels >= 0].float().mean()
    assert found == pytest.approx(right.item())
    assert found > 0.8 * before


def test_nor_are_those_of_which_no_neighbour_has_a_label(fitted):
    bank, labels = fitted[1].bank, fitted[0].test_set.labels
    before, _ = held_out_accuracy(fitted, labels)
    bank.labels = bank.labels.where(torch.arange(len(bank.labels)) % 4 == 0, -1)
    found, near = held_out_accuracy(fitted, labels)
    known = (near >= 0).any(1)
    assert 0.3 < known.float().mean() < 0.9
    right = (knn_vote(near, 10) == labels)[known].float().mean()
    assert found == pytest.approx(right.item())
    assert found > 0.6 * before


def test_held_out_images_of_which_none_has_a_label_have_no_accuracy(fitted):
    labels = fitted[0].test_set.labels
    before, _ = held_out_accuracy(fitted, labels)
    assert held_out_accuracy(fitted, torch.full_like(labels, -1))[0] is None
    found, near = held_out_accuracy(fitted, torch.where(torch.arange(len(labels)) < 30, labels, -1))
    right = knn_vote(near[:30], 10) == labels[:30]
    assert found == pytest.approx(right.float().mean().item())
    assert held_out_accuracy(fitted, labels)[0] == before


def test_fitting_without_the_callback_is_refused_before_the_first_step():
    data, module = digits()
    with pytest.raises(UsageError, match="RefreshNeighbours"):
        trainer(max_epochs=1).fit(module, datamodule=data)


def test_fitting_again_without_the_callback_is_refused_too(fitted):
    data, module, _ = fitted
    with pytest.raises(UsageError, match="RefreshNeighbours"):
        trainer(max_epochs=2).fit(module, datamodule=data)


def test_validating_what_was_never_fitted_is_refused():
    data, module = digits()
    with pytest.raises(UsageError, match="index is empty"):
        trainer(RefreshNeighbours()).validate(module, datamodule=data, verbose=False)


def test_a_standard_normal_prior_makes_a_vae_of_the_same_module():
    vae = [option for option in QUICK if "prior" not in option]
    data, module = digits("model.prior.kind=standard_normal", quick=vae)
    run = trainer(RefreshNeighbours(), max_epochs=1)
    run.fit(module, datamodule=data)
    (metrics,) = run.test(module, datamodule=data, verbose=False)
    mean = module(data.test_set.images / 255).mean.detach()
    assert metrics["test/rate"] == pytest.approx(float(mean.square().sum(1).mean() / 2), rel=1e-4)


def test_unlabelled_images_have_no_accuracy(tmp_path):
    import numpy as np

    np.savez(
        tmp_path / "plain.npz",
        images=np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8),
    )
    data, module = digits("data.source=npz", f"data.root={tmp_path}/plain.npz")
    run = trainer(RefreshNeighbours(), max_epochs=1)
    run.fit(module, datamodule=data)
    (metrics,) = run.test(module, datamodule=data, verbose=False)
    assert set(metrics) == {"test/rate", "test/distortion", "test/total"}


# ---------------------------------------------------------------- options of training


class Weights(Callback):
    """Notes the rate's weight and the learning rate of each step."""

    def __init__(self):
        self.rates, self.speeds = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(pl_module.weight_of_rate(batch_idx))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.speeds.append(optimizer.param_groups[0]["lr"])


def weights(*overrides, epochs=4):
    data, module = digits("data.batch_size=200", *overrides)
    seen = Weights()
    trainer(RefreshNeighbours(), seen, max_epochs=epochs).fit(module, datamodule=data)
    return seen, len(seen.rates) // epochs


def test_warm_up_grows_to_one_and_stays():
    seen, steps = weights("model.warmup_epochs=2")
    assert steps == 7  # of 1,294 images
    assert seen.rates == pytest.approx([min(1, step / (2 * steps)) for step in range(4 * steps)])
    assert set(weights(epochs=1)[0].rates) == {1.0}


def test_cosine_goes_down_to_zero_over_the_run():
    seen, steps = weights("schedule.kind=cosine", "optimizer.learning_rate=0.002")
    expected = [0.001 * (1 + math.cos(math.pi * step / (4 * steps))) for step in range(4 * steps)]
    assert seen.speeds == pytest.approx(expected)
    assert set(weights(epochs=1)[0].speeds) == {0.001}


def test_free_nats_and_warm_up_change_the_loss_and_not_what_is_logged(step, monkeypatch):
    module, batch = step
    means = {name: module.means[f"train/{name}"] for name in COSTS}
    for mean in means.values():
        mean.reset()

    def loss(free, weight):
        monkeypatch.setattr(module, "free_nats", free)
        monkeypatch.setattr(module, "weight_of_rate", lambda _: weight)
        torch.manual_seed(5)
        total = float(module.training_step(batch, 0).detach())
        costs = {name: float(mean.compute()) for name, mean in means.items()}
        for mean in means.values():
            mean.reset()
        return total, costs

    monkeypatch.setattr(module.shape, "decorrelation", 0.0)
    loss(0.0, 1.0)  # its codes are stored, and may be drawn by what follows
    plain, costs = loss(0.0, 1.0)
    rate, distortion = costs["rate"], costs["distortion"]
    assert rate > 0
    assert plain == pytest.approx(rate + distortion)
    assert loss(0.0, 0.25) == (pytest.approx(rate / 4 + distortion), pytest.approx(costs))
    assert loss(rate - 0.1, 1.0) == (pytest.approx(plain), pytest.approx(costs))
    assert loss(rate + 3, 1.0) == (pytest.approx(rate + 3 + distortion), pytest.approx(costs))


def test_below_the_free_nats_the_rate_has_no_gradient(step, monkeypatch):
    module, batch = step
    monkeypatch.setattr(module, "free_nats", 1e6)
    module.zero_grad()
    module.training_step(batch, 0).backward()
    assert all(not weight.grad.any() for weight in module.prior.parameters())
    assert module.encoder.mean.weight.grad.any()


def test_encoding_at_the_boundary_makes_all_codes_of_one_age():
    data, module = digits("data.binarisation=static")
    run = trainer(SeedEpochs(0), RefreshNeighbours(), max_epochs=1)
    run.fit(module, datamodule=data)
    codes = module(data.fixed_set.images / 255).mean.detach()
    torch.testing.assert_close(module.bank.codes, codes, rtol=1e-4, atol=1e-5)
    data, module = digits("data.binarisation=static")
    run = trainer(SeedEpochs(0), RefreshNeighbours(encode=False), max_epochs=1)
    run.fit(module, datamodule=data)
    codes = module(data.fixed_set.images / 255).mean.detach()
    assert not torch.allclose(module.bank.codes[data.rows], codes[data.rows], atol=1e-3)


def test_without_an_encoder_a_code_says_and_costs_nothing():
    vae = [option for option in QUICK if "prior" not in option and "encoder" not in option]
    none = ["model.encoder.kind=none", "model.prior.kind=standard_normal"]
    data, module = digits(*none, quick=vae)
    posterior = module(data.test_set.images / 255)
    assert not posterior.mean.any()
    run = trainer(RefreshNeighbours(), max_epochs=1)
    run.fit(module, datamodule=data)
    (metrics,) = run.test(module, datamodule=data, verbose=False)
    assert metrics["test/rate"] == 0


def test_wrong_learning_rate():
    with pytest.raises(UsageError, match=r"optimizer\.learning_rate: 0"):
        digits("optimizer.learning_rate=0")


def test_data_of_the_batch_type():
    data = ImageData()
    data.setup()
    assert isinstance(next(iter(data.train_dataloader())), Batch)
