"""Averaged weights: against sums by hand, and through whole runs."""

import signal
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer

from acn_lightning.callbacks import AverageWeights, RefreshNeighbours, SeedEpochs
from acn_lightning.callbacks.average import tensors_of
from acn_lightning.checkpoint import read_checkpoint
from acn_lightning.experiment.build import read_data
from acn_lightning.experiment.restore import restore
from acn_lightning.utils.errors import UsageError
from tests.conftest import CHEAP, QUICK, only_run
from tests.test_experiment import NOT_CARRIED, assert_same_end, rows, same, stopped_at
from tests.test_module import digits, trainer

FIT = (
    "fit", "digits", *QUICK, "pictures.every_n_epochs=0", "data.subset=300", "average.decay=0.9",
    *CHEAP,
)  # fmt: skip


class Diary(Callback):
    """Notes weights: of each step, at each validation, and at the end of each epoch."""

    def __init__(self):
        self.steps, self.validated, self.boundary = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step and len(self.steps) < trainer.global_step:
            self.steps.append(flat(pl_module))

    def on_validation_epoch_start(self, trainer, pl_module):
        self.validated.append((trainer.global_step, flat(pl_module)))

    def on_train_epoch_end(self, trainer, pl_module):
        self.boundary.append((trainer.global_step, flat(pl_module), pl_module.bank.codes.clone()))


def flat(module):
    return torch.cat([one.flatten().double() for one in tensors_of(module).values()])


def fitted(*callbacks, **options):
    data, module = digits("data.subset=700")
    diary = Diary()
    run = trainer(SeedEpochs(0), RefreshNeighbours(), *callbacks, diary, **options)
    run.fit(module, datamodule=data)
    return module, diary, data


@pytest.fixture(scope="module")
def plain():
    return fitted(max_epochs=2, val_check_interval=0.5)


@pytest.fixture(scope="module")
def averaging():
    return fitted(AverageWeights(decay=0.9), max_epochs=2, val_check_interval=0.5)


def test_training_takes_the_same_steps_with_and_without(plain, averaging):
    assert len(plain[1].steps) > 15
    pairs = zip(plain[1].steps, averaging[1].steps, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_the_average_is_the_one_by_hand(averaging):
    module, diary, _ = averaging
    initial = flat(digits("data.subset=700")[1])
    average, known = initial, {}
    for number, weights in enumerate(diary.steps, 1):
        decay = min(0.9, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * weights
        known[number] = average
    (first, first_weights, _), (_, last_weights, _) = diary.boundary
    torch.testing.assert_close(first_weights, known[first], rtol=1e-4, atol=1e-6)
    assert torch.equal(flat(module), last_weights)  # it stays in the module
    for step, weights in diary.validated:
        if step in known:  # within an epoch as at its end
            torch.testing.assert_close(weights, known[step], rtol=1e-4, atol=1e-6)


def test_codes_and_index_are_of_the_average(averaging):
    module, _, data = averaging
    with torch.no_grad():
        own = module.eval()(data.fixed_set.images[data.rows] / 255).mean
    torch.testing.assert_close(module.bank.codes[data.rows], own, rtol=1e-4, atol=1e-5)
    near = module.index.search(own[:50], k=1)[:, 0]  # an image's nearest code is its own
    assert (near == data.rows[:50]).float().mean() > 0.9


def test_gradients_are_averaged_over_steps_not_batches():
    average = AverageWeights(decay=0.9)
    module, _, _ = fitted(average, max_epochs=1, accumulate_grad_batches=4, limit_val_batches=0)
    assert average.step == 3  # of 10 batches
    assert module.trainer.global_step == 3


# ---------------------------------------------------------------- whole runs


def test_resumed_equals_undisturbed_at_a_boundary_and_within_an_epoch(acn):
    assert acn(*FIT, "trainer.max_epochs=3", "trainer.default_root_dir=whole")[0] == 0
    whole = only_run(Path("whole"))
    for name, within in [("boundary", 0), ("within", 2)]:
        fit = [*FIT, f"checkpoints.every_n_steps={within}", "trainer.max_epochs=3"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "fit", stopped_at(epoch=1, step=3))
            assert acn(*fit, f"trainer.default_root_dir={name}")[0] == 130
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning had it ignored
        last = only_run(Path(name)) / "checkpoints/last.ckpt"
        kept = read_checkpoint(last)
        assert kept["average"]["held"] == (not within)
        assert kept["global_step"] == (8 if within else 5)
        words = [word for word in fit[2:] if word.startswith(NOT_CARRIED)]
        status, _, err = acn("fit", f"resume={last}", f"trainer.default_root_dir={name}2", *words)
        assert status == 0, err
        assert_same_end("whole", f"{name}2")
        one, other = (
            read_checkpoint(only_run(Path(root)) / "checkpoints/last.ckpt")["average"]
            for root in ("whole", f"{name}2")
        )
        assert same(one, other)
        found, expected = rows(only_run(Path(f"{name}2"))), rows(whole)
        assert [found[epoch] for epoch in (1, 2)] == [expected[epoch] for epoch in (1, 2)]


def test_best_ckpt_holds_what_was_evaluated(acn):
    assert acn(*FIT, "trainer.max_epochs=2")[0] == 0
    folder = only_run()
    content = read_checkpoint(folder / "checkpoints/best.ckpt")
    module = restore(content)
    data = read_data(content["hyper_parameters"]["acn_config"])
    with torch.no_grad():
        own = module(data.fixed_set.images[data.rows] / 255).mean
    torch.testing.assert_close(module.bank.codes[data.rows], own, rtol=1e-4, atol=1e-5)
    raw = content["average"]["weights"]["encoder.mean.bias"]
    assert not torch.equal(raw, content["state_dict"]["encoder.mean.bias"])
    # Fine-tuning and a test take it as any other.
    best = str(folder / "checkpoints/best.ckpt")
    assert acn("test", best, "trainer.default_root_dir=tested", "evaluation.linear=none")[0] == 0


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda one: one.pop("held"), "it has no held"),
        (lambda one: one.update(codes=one["codes"][:3]), "codes of another size"),
        (lambda one: one.update(codes=one["codes"] * torch.nan), "not finite"),
        (lambda one: one.update(written=one["written"] + 9), "in the future"),
        (lambda one: one["weights"].update({"encoder.mean.bias": 3}), "not a tensor"),
        (lambda one: one["weights"].popitem(), "average is one of other weights"),
    ],
)
def test_a_damaged_average_is_refused_in_one_line(acn, averaged_run, damage, error):
    content = torch.load(averaged_run / "checkpoints/last.ckpt", weights_only=True)
    damage(content["average"])
    torch.save(content, "last.ckpt")
    status, _, err = acn("fit", "resume=last.ckpt", "trainer.max_epochs=2")
    assert status == 2
    assert error in err.strip().splitlines()[-1]
    assert not Path("runs").exists()


@pytest.fixture(scope="module")
def averaged_run(tmp_path_factory):
    from acn_lightning.cli import main

    root = tmp_path_factory.mktemp("averaged")
    words = [*FIT, "trainer.max_epochs=1", f"trainer.default_root_dir={root}"]
    assert main(words) == 0
    return only_run(root)


def test_the_decay_stays_the_same_when_a_run_resumes(acn, averaged_run):
    last = averaged_run / "checkpoints/last.ckpt"
    status, _, err = acn("fit", f"resume={last}", "average.decay=0", "trainer.max_epochs=2")
    assert status == 2
    assert "average.decay: the checkpoint was trained with 0.9" in err


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range(decay):
    with pytest.raises(UsageError, match=r"average\.decay: .* is not at least 0 and below 1"):
        AverageWeights(decay=decay)
