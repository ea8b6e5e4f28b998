"""What fits a machine: by made-up times, and in a run."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from acn_lightning.config.compose import compose
from acn_lightning.config.sections import Budget
from acn_lightning.data.sources.folder import FolderSource
from acn_lightning.experiment import budget, train
from acn_lightning.experiment.budget import (
    Choice,
    budget_hint,
    fitting,
    is_open,
    with_choice,
    with_sizes,
    with_sizes_of,
)
from acn_lightning.experiment.build import build_for, read_data
from acn_lightning.experiment.quickest import Timings, Way
from acn_lightning.experiment.trainer import quiet_trainer
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK, only_run

OPEN = (
    "trainer.max_epochs=null", "model.encoder.channels=null", "model.decoder.channels=null",
    "trainer.accelerator=cpu",
)  # fmt: skip


def chosen(monkeypatch, seconds, *words, **options):
    """What is chosen where an epoch of networks of a size takes so many seconds."""
    config = compose("digits", [*OPEN, *words])

    def epoch_seconds(data, module, *_):
        sizes = (module.encoder.body[0].out_channels // 2, module.decoder.output.in_channels)
        assert len(set(sizes)) == 1 or "model.decoder.channels=16" in words
        taken = seconds[sizes[0]]
        if isinstance(taken, Exception):
            raise taken
        return taken

    monkeypatch.setattr(budget, "epoch_seconds", epoch_seconds)
    budgeted = Budget(**{"channels": [16, 32, 64]} | options)
    return fitting(config, read_data(config), quiet_trainer(config), budgeted)


def test_the_largest_networks_that_leave_time_for_enough_epochs(monkeypatch):
    monkeypatch.setattr(budget, "fewest_epochs", lambda images: 20)
    seconds = {16: 5.0, 32: 14.0, 64: 20.0}
    assert chosen(monkeypatch, seconds, minutes=5.0) == Choice(32, 21, 14.0)
    assert chosen(monkeypatch, seconds, minutes=10.0) == Choice(64, 30, 20.0)
    assert chosen(monkeypatch, seconds, minutes=1.0) == Choice(16, 12, 5.0)
    assert chosen(monkeypatch, seconds, minutes=0.01) == Choice(16, 1, 5.0)
    assert chosen(monkeypatch, seconds, minutes=5.0, channels=[16]) == Choice(16, 60, 5.0)


def test_a_larger_network_must_see_enough_images(monkeypatch):
    train = len(read_data(compose("digits", list(OPEN))).train_set)
    epochs = math.ceil(budget.FEWEST_IMAGES / train)
    seconds = {16: 1.0, 32: 2.0, 64: 3.0}
    assert chosen(monkeypatch, seconds, minutes=2.1 * epochs / 60).channels == 32
    assert chosen(monkeypatch, seconds, minutes=1.9 * epochs / 60).channels == 16


def test_a_network_that_does_not_fit_the_gpu_leaves_a_smaller_one(monkeypatch):
    full = torch.OutOfMemoryError("CUDA out of memory")
    seconds = {16: 0.01, 32: 0.01, 64: full}
    assert chosen(monkeypatch, seconds, minutes=5.0) == Choice(32, 30_000, 0.01)
    with pytest.raises(torch.OutOfMemoryError):  # the smallest does not fit
        chosen(monkeypatch, dict.fromkeys(seconds, full), minutes=5.0)


def test_batches_that_are_left_out_leave_time_for_more_epochs(monkeypatch):
    asked = []
    monkeypatch.setattr(budget, "fewest_epochs", lambda images: asked.append(images) or 1)
    for word in ("=2", "=0.5", "=0", "=1.0"):
        chosen(monkeypatch, dict.fromkeys((16, 32, 64), 1.0), f"trainer.limit_train_batches{word}")
    data = read_data(compose("digits", list(OPEN)))
    half = len(data.train_dataloader()) // 2
    assert asked == [2 * data.batch_size, half * data.batch_size, 1, len(data.train_set)]


def test_what_the_command_says_is_not_chosen(monkeypatch):
    seconds = {16: 5.0, 32: 14.0, 64: 20.0}
    ten = "trainer.max_epochs=10"
    assert chosen(monkeypatch, seconds, ten, minutes=3.0) == Choice(32, 10, 14.0)
    sized = ("model.encoder.channels=128", "model.decoder.channels=16")
    assert chosen(monkeypatch, seconds, *sized, minutes=2.0) == Choice(None, 6, 20.0)


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epochs_and_epochs_without_end_are_kept(monkeypatch, epochs):
    seconds = {16: 5.0, 32: 14.0, 64: 20.0}
    found = chosen(monkeypatch, seconds, f"trainer.max_epochs={epochs}", minutes=3.0)
    assert found == Choice(16, epochs, 5.0)  # what leaves time for enough epochs
    config = compose("digits", [*OPEN, f"trainer.max_epochs={epochs}"])
    assert with_choice(config, found)["trainer"]["max_epochs"] == epochs


def test_a_choice_fills_what_is_open_and_nothing_else():
    config = compose("digits", [*OPEN[:2], "model.decoder.channels=24"])
    assert is_open(config)
    full = with_choice(config, Choice(16, 7, 1.0))
    assert not is_open(full)
    assert full["trainer"]["max_epochs"] == 7
    assert full["model"]["encoder"]["channels"] == 32
    assert full["model"]["decoder"]["channels"] == 24
    assert with_sizes_of(config, full) == full
    assert with_sizes_of(full, with_choice(config, Choice(32, 9, 1.0))) == full
    assert not is_open(compose("digits", []))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0.0}, "budget.minutes: 0.0 is not above 0 and below 1e6."),
        ({"channels": [32, 16]}, "budget.channels"),
        ({"channels": []}, "budget.channels"),
        ({"channels": [12]}, "budget.channels: model.decoder.channels: 12 is not a multiple of 8"),
    ],
)
def test_wrong_budgets_are_refused_in_a_line(options, message):
    config = compose("digits", list(OPEN))
    with pytest.raises(UsageError, match=r"budget|multiple") as error:
        fitting(config, read_data(config), quiet_trainer(config), Budget(**options))
    assert message in str(error.value)


def test_an_epoch_is_timed_by_steps_that_change_nothing_that_is_kept():
    config = compose("digits", [*QUICK, *OPEN[:1], OPEN[-1], "data.augment=affine"])
    chosen = fitting(config, read_data(config), quiet_trainer(config), Budget(minutes=0.001))
    assert chosen.channels is None
    assert chosen.epochs >= 1
    assert 0 < chosen.seconds < 60


def test_choosing_draws_no_random_numbers_of_the_run(monkeypatch):
    config = compose("digits", [*QUICK, *OPEN[:1], OPEN[-1]])
    data, state = read_data(config), torch.get_rng_state()
    monkeypatch.setattr(budget, "epoch_seconds", lambda *_: float(torch.rand(()) + 1))
    assert not is_open(with_sizes(config, data))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_epoch_takes_steps_held_out_costs_and_encodings(monkeypatch):
    config = compose("digits", [*QUICK, *OPEN[-1:], "data.validation=200"])
    data = read_data(config)
    module, way = build_for(data, config), Way("32-true", channels_last=False)
    times = {True: 1.0, False: 0.1}  # of a step, which trains, and of the rest
    modes: list[bool] = []

    def seconds_of(work, module, way):
        modes.clear()
        work()
        return times[modes == [True]]

    monkeypatch.setattr(budget, "timings", lambda *_: Timings({way: 7.0}, {}))
    monkeypatch.setattr(budget, "make_step", lambda *_: lambda: modes.append(module.training))
    monkeypatch.setattr(budget, "seconds_of", seconds_of)
    steps, held_out, encodings = (
        math.ceil(len(part) / data.batch_size)
        for part in (data.train_set, data.validation_set, data.fixed_set)
    )
    expected = budget.EACH + budget.BESIDES * (steps + 0.1 * (held_out + encodings))
    assert budget.epoch_seconds(data, module, [way]) == pytest.approx(expected)
    fewer = budget.EACH + budget.BESIDES * (2 + 0.1 * (held_out // 2 + encodings))
    assert budget.epoch_seconds(data, module, [way], (2, 0.5)) == pytest.approx(fewer)
    assert module.training


@pytest.mark.parametrize(
    ("last", "best", "said"),
    [
        (3.0, 3.0, "budget.minutes=30 trains longer"),
        (3.0, 2.5, "more time alone may not help"),
    ],
)
def test_the_hint_says_whether_more_time_pays(last, best, said):
    assert said in budget_hint(torch.tensor(last), torch.tensor(best), minutes=6.0)


def test_several_processes_cannot_each_choose(acn, monkeypatch):
    monkeypatch.setattr(train, "read_data", None)  # which may take long
    two = ("trainer.devices=2", "trainer.strategy=ddp")
    status, _, err = acn("fit", "digits", *OPEN, *two)
    assert status == 2
    assert "a budget of minutes is for one process. Use trainer.devices=1, without" in err
    assert not Path("runs").exists()


def test_a_run_keeps_what_was_chosen_and_goes_on_with_it(acn, monkeypatch, trained):
    small = [word for word in QUICK if "channels" not in word]
    words = [
        "fit", "folder", *small, f"data.root={trained / 'photos'}", "data.image_size=12",
        "run=mine", "resume=auto", "trainer.accelerator=cpu", "budget.channels=[8,16]",
        "pictures.every_n_epochs=0", "trainer.precision=32-true",
    ]  # fmt: skip
    monkeypatch.setattr(budget, "epoch_seconds", lambda *_: 3.0)
    monkeypatch.setattr(budget, "fewest_epochs", lambda images: 2)
    reads, read = [], FolderSource.read
    monkeypatch.setattr(FolderSource, "read", lambda self: reads.append(self) or read(self))
    status, out, err = acn(*words, "budget.minutes=0.1")
    assert status == 0, err
    assert len(reads) == 1
    line = (
        "folder: encoder of 32 and decoder of 16 channels, 2 epochs of about 3 s on this CPU in "
        "32-true"
    )
    assert f"{line}, for budget.minutes=0.1\nThat is few." in out
    assert "so more time" in out.splitlines()[-1] + out.splitlines()[-2]
    kept = yaml.safe_load((only_run() / "config.yaml").read_text())
    assert kept["trainer"]["max_epochs"] == 2
    assert [kept["model"][part]["channels"] for part in ("encoder", "decoder")] == [32, 16]
    results = json.loads((only_run() / "results.json").read_text())
    assert results["training"]["epochs"] == 2
    assert results["training"]["seconds"] > 0
    # Another machine, or another day, would choose otherwise: the run's own choice counts.
    monkeypatch.setattr(budget, "epoch_seconds", lambda *_: 1e9)
    status, out, err = acn(*words, "budget.minutes=0.1")
    assert status == 0, err
    assert "encoder of" not in out
    assert "keeps its networks and its number of epochs, 2, whatever budget.minutes is" in out
    assert "so more time" not in out  # nothing was trained, so it is not known
    assert yaml.safe_load((only_run() / "config.yaml").read_text())["model"] == kept["model"]
