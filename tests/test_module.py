"""The wiring of a step, against one written out by hand."""

import pytest
import torch
from lightning import Trainer
from torch.distributions import Bernoulli

from acn_lightning.callbacks import RefreshNeighbours, SeedEpochs
from acn_lightning.config import compose
from acn_lightning.data import Batch, ImageData
from acn_lightning.errors import UsageError
from acn_lightning.experiment import build
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
    mean = module.encoder.mean(module.encoder.body(2 * batch.image - 1))
    z = mean + torch.randn(9, 4)
    log_q = -((z - mean) ** 2 / 2 + 0.5 * torch.tensor(2 * torch.pi).log()).sum(1)
    log_p = module.prior(c).log_prob(z)
    log_r = Bernoulli(logits=module.decoder.body(z), validate_args=False).log_prob(batch.image)
    expected = (log_q - log_p - log_r.sum((1, 2, 3))).mean()
    torch.testing.assert_close(loss, expected)
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
    z = module(batch.image).mean + torch.randn(9, 4)
    log_r = module.decoder(z).log_prob(batch.image)
    (-prior.log_prob(z) - log_r).mean().backward()  # log q(z|x) is that of the noise: constant
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
    votes = torch.tensor(
        [naive_vote(labels) for labels in data.labels[data.rows][nearest].tolist()]
    )
    accuracy = (votes == data.test_set.labels).float().mean()
    assert abs(metrics["test/knn_accuracy"] - accuracy) < 0.01  # ties of distances in rounding


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


def test_wrong_learning_rate():
    with pytest.raises(UsageError, match=r"model\.learning_rate: 0"):
        digits("model.learning_rate=0")


def test_data_of_the_batch_type():
    data = ImageData()
    data.setup()
    assert isinstance(next(iter(data.train_dataloader())), Batch)
