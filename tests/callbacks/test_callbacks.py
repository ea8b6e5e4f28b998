"""What each callback promises, seen from a run."""

import warnings

import pytest
import torch
from lightning import Callback, Trainer

from acn_lightning.callbacks import (
    DrawPictures,
    LastCheckpoint,
    RefreshNeighbours,
    SeedEpochs,
    StopOnNonFiniteLoss,
    WarnOfFaults,
)
from acn_lightning.data.subsets import spread
from acn_lightning.utils.errors import TrainingError, UsageError
from tests.test_module import digits, trainer


class Diary(Callback):
    """Notes the order of events around the epoch boundary."""

    def __init__(self, refresh):
        self.refresh, self.events = refresh, []

    def on_train_epoch_start(self, trainer, pl_module):
        self.events.append(("train", self.refresh.rebuilds))

    def on_validation_epoch_start(self, trainer, pl_module):
        self.events.append(("validate", self.refresh.rebuilds))

    def on_train_epoch_end(self, trainer, pl_module):
        self.events.append(("end", self.refresh.rebuilds))


def test_index_is_rebuilt_once_an_epoch_before_validation():
    data, module = digits()
    refresh = RefreshNeighbours()
    diary = Diary(refresh)
    run = trainer(refresh, diary, max_epochs=2, num_sanity_val_steps=0)
    run.fit(module, datamodule=data)
    assert diary.events == [
        ("train", 1), ("validate", 2), ("end", 2), ("train", 2), ("validate", 3), ("end", 3),
    ]  # fmt: skip
    assert refresh.last.refreshed == len(data.rows)
    assert run.callback_metrics["bank/refreshed"] == len(data.rows)
    assert run.callback_metrics["bank/unseen"] == 0


def test_an_epoch_cut_short_still_ends_with_a_rebuild():
    data, module = digits()
    refresh = RefreshNeighbours(encode=False)
    trainer(refresh, max_epochs=3, max_steps=30).fit(module, datamodule=data)
    assert refresh.rebuilds == 3  # start, epoch of 21 steps, 9 steps
    assert refresh.last.refreshed == 9 * 64


def test_validation_in_the_middle_of_an_epoch_does_not_rebuild():
    data, module = digits()
    refresh = RefreshNeighbours()
    trainer(refresh, max_epochs=1, val_check_interval=0.25).fit(module, datamodule=data)
    assert refresh.rebuilds == 2


def test_a_bank_that_does_not_fill_is_said():
    data, module = digits()
    refresh = RefreshNeighbours(encode=False)
    run = trainer(refresh, WarnOfFaults(), max_epochs=1, limit_train_batches=5)
    with pytest.warns(UserWarning, match=r"Only 320 of 1,294 codes were refreshed.* 974 never"):
        run.fit(module, datamodule=data)


def test_the_recall_is_logged_and_a_low_one_says_what_to_turn():
    data, module = digits("neighbours.factory=IVF64,Flat", "neighbours.effort=1")
    run = trainer(RefreshNeighbours(), WarnOfFaults(), max_epochs=1)
    with pytest.warns(UserWarning, match=r"finds \d\d\.\d% of .* neighbours\.effort, now 1"):
        run.fit(module, datamodule=data)
    assert 0.1 < run.callback_metrics["bank/recall"] < 0.95

    data, module = digits("neighbours.factory=IVF64,Flat")
    run = trainer(RefreshNeighbours(), WarnOfFaults(), max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        run.fit(module, datamodule=data)
    assert not any("neighbours.recall" in str(warning.message) for warning in caught)
    assert run.callback_metrics["bank/recall"] >= 0.95


def test_callbacks_refuse_other_modules():
    from lightning.pytorch.demos.boring_classes import BoringModel

    with pytest.raises(TypeError, match="for an ACN, not for a BoringModel"):
        trainer(RefreshNeighbours(), max_epochs=1).fit(BoringModel())


class Draws(Callback):
    """A random number per training batch."""

    def __init__(self):
        self.numbers = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.numbers.append((trainer.current_epoch, batch_idx, torch.rand(()).item()))


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.25}, {"limit_val_batches": 0}])
def test_validation_does_not_change_what_training_draws(options, tmp_path):
    data, module = digits("data.binarisation=dynamic")
    draws = Draws()
    pictures = DrawPictures(tmp_path, every_n_epochs=1)
    callbacks = [SeedEpochs(3), RefreshNeighbours(), pictures, draws]
    trainer(*callbacks, max_epochs=2, **options).fit(module, datamodule=data)
    weights = torch.cat([p.flatten() for p in module.parameters()])
    again, other = digits("data.binarisation=dynamic")
    reference = Draws()
    trainer(SeedEpochs(3), RefreshNeighbours(), reference, max_epochs=2).fit(
        other, datamodule=again
    )
    assert draws.numbers == reference.numbers
    assert torch.equal(weights, torch.cat([p.flatten() for p in other.parameters()]))


def test_only_a_checkpoint_within_an_epoch_is_of_its_processes(tmp_path):
    data, module = digits()
    last = LastCheckpoint(tmp_path, keep=9, every_n_steps=20)
    Trainer(callbacks=[RefreshNeighbours(), last], max_epochs=1, accelerator="cpu", logger=False,
            enable_progress_bar=False).fit(module, datamodule=data)  # fmt: skip
    names = ("last-2.ckpt", "last-1.ckpt", "last.ckpt")  # at the start, within, at the end
    found = [torch.load(tmp_path / name, weights_only=True) for name in names]
    assert [one["global_step"] for one in found] == [0, 20, 21]
    assert [len(one["epoch_costs"]) for one in found] == [0, 1, 0]


def test_a_codes_gain_is_measured_on_all_parts_of_a_sorted_folder(monkeypatch):
    data, module = digits("data.validation=300")
    asked = []
    cls = type(data.validation_set)
    get = cls.__getitems__

    def watched(self, positions):
        if self is data.validation_set:
            asked.append(list(positions))
        return get(self, positions)

    monkeypatch.setattr(cls, "__getitems__", watched)
    run = trainer(RefreshNeighbours(), WarnOfFaults(), max_epochs=1, limit_val_batches=0)
    run.fit(module, datamodule=data)
    assert asked == [spread(300, 64)]
    assert "codes/gain" in run.callback_metrics


def test_one_image_has_no_other_code_to_gain_from():
    data, module = digits("data.validation=1")
    run = trainer(RefreshNeighbours(), WarnOfFaults(), max_epochs=1)
    run.fit(module, datamodule=data)
    assert "codes/gain" not in run.callback_metrics
    assert "codes/drift" in run.callback_metrics


def test_pictures_show_images_of_all_parts_of_a_sorted_folder(tmp_path, monkeypatch):
    data, module = digits()
    asked = []
    cls = type(data.validation_set)
    get = cls.__getitems__

    def watched(self, rows):
        asked.append((len(self), list(rows)))
        return get(self, rows)

    fit = trainer(RefreshNeighbours(), DrawPictures(tmp_path, every_n_epochs=1), max_epochs=1)
    monkeypatch.setattr(cls, "__getitems__", watched)
    fit.fit(module, datamodule=data)
    for size in (len(data.train_set), len(data.validation_set)):
        assert (size, [place * size // 10 for place in range(10)]) in asked


def test_held_out_costs_do_not_depend_on_when_they_are_asked_for():
    data, module = digits()
    run = trainer(SeedEpochs(3), RefreshNeighbours(), max_epochs=1)
    run.fit(module, datamodule=data)
    torch.manual_seed(99)
    first = run.test(module, datamodule=data, verbose=False)
    assert run.test(module, datamodule=data, verbose=False) == first


class Poison(Callback):
    """Makes the weights NaN after a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            with torch.no_grad():
                pl_module.encoder.mean.bias.fill_(torch.nan)


@pytest.mark.parametrize("every_n_steps", [1, 7, 1000])
def test_nan_stops_the_run_at_its_first_step_before_the_bank_is_searched(every_n_steps):
    data, module = digits()
    refresh = RefreshNeighbours()
    callbacks = [Poison(25), StopOnNonFiniteLoss(every_n_steps), refresh]
    run = trainer(*callbacks, max_epochs=3)
    with pytest.raises(TrainingError, match=r"NaN or infinite at step 26 \(epoch 1\)"):
        run.fit(module, datamodule=data)
    assert refresh.rebuilds == 2  # start and the first boundary


class Spoil(Callback):
    """Makes the weights NaN after the last step of a run, when its loss was fine."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == trainer.max_steps:
            with torch.no_grad():
                pl_module.encoder.mean.bias.fill_(torch.nan)


@pytest.mark.parametrize("steps", [7, 21])  # within the first epoch, and its last
def test_weights_spoilt_by_the_last_step_of_all_are_found(steps):
    data, module = digits()
    callbacks = [Spoil(), StopOnNonFiniteLoss(), RefreshNeighbours()]
    run = trainer(*callbacks, max_epochs=2, max_steps=steps, limit_val_batches=0)
    with pytest.raises(TrainingError, match=rf"at step {steps} \(epoch 0\)"):
        run.fit(module, datamodule=data)


@pytest.mark.parametrize("options", [{"every_n_epochs": -1}, {"images": 0}])
def test_wrong_picture_options(options, tmp_path):
    with pytest.raises(UsageError, match="pictures"):
        DrawPictures(tmp_path, **options)


def test_the_bare_name_is_refused(monkeypatch):
    import sys
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    monkeypatch.delitem(sys.modules, "callbacks", raising=False)
    with pytest.raises(ImportError, match=r"acn_lightning\.callbacks"):
        import callbacks  # noqa: F401
