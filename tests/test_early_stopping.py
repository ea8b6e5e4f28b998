"""Runs that end early, and learning rates that are tried first."""

import csv
import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer

from acn_lightning.callbacks import LastCheckpoint, RefreshNeighbours, StopEarly, StopOnTime
from acn_lightning.experiment import learning_rate
from acn_lightning.experiment.learning_rate import suggestion
from acn_lightning.utils.errors import UsageError
from tests.conftest import CHEAP, QUICK, only_run
from tests.test_module import digits

FIT = (
    "fit", "digits", *QUICK, "pictures.every_n_epochs=0", "data.subset=200",
    *CHEAP,
)  # fmt: skip
STILL = ("optimizer.learning_rate=1e-29", "model.shape.kind=free", "trainer.max_epochs=6")
"""Weights that do not learn, so that no cost falls by a nat."""

MINE = ("run=mine", "resume=auto", "early_stopping.min_delta=1")


def epochs(folder):
    results = json.loads((folder / "results.json").read_text())
    return results["training"]["epochs"]


def test_a_run_ends_after_its_patience_and_is_complete_then(acn):
    words = [*FIT, *STILL, *MINE]
    status, out, err = acn(*words, "early_stopping.patience=2")
    assert status == 0, err
    folder = Path("runs/digits/mine")
    assert epochs(folder) == 3  # one to begin with
    assert out.count("Stopped: val/total has not fallen below ") == 1
    assert "early_stopping.patience=2" in out
    assert "at most " in out
    assert acn(*words, "early_stopping.patience=2")[0] == 0
    assert epochs(folder) == 3
    assert acn(*words, "early_stopping.patience=4")[0] == 0
    assert epochs(folder) == 5
    assert acn(*words)[0] == 0  # without one it goes to its end
    assert epochs(folder) == 6


def test_a_cost_that_falls_is_waited_for(acn):
    words = ["early_stopping.patience=1", "trainer.max_epochs=3"]
    status, out, err = acn(*FIT, *words)
    assert status == 0, err
    with (only_run() / "metrics.csv").open() as file:
        costs = [float(row["val/total"]) for row in csv.DictReader(file) if row["val/total"]]
    assert costs == sorted(costs, reverse=True)
    assert epochs(only_run()) == 3
    assert "Stopped" not in out


class Over(Callback):
    """Ends the time of a run at a batch."""

    def __init__(self, timer, batch):
        self.timer, self.batch = timer, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.batch:
            self.timer._duration = 0.0


@pytest.mark.parametrize(("options", "steps", "saves"), [
    ({"accumulate_grad_batches": 4}, 1, [0, 1]),  # after batch 1, with gradients of half a step
    ({"min_epochs": 2, "limit_train_batches": 5}, 10, [0, 5, 10]),
    ({"min_steps": 7, "limit_train_batches": 5}, 7, [0, 5, 7]),
    ({}, 2, [0, 2]),
])  # fmt: skip
def test_a_run_whose_time_is_over_ends_after_a_whole_step_that_is_saved(
    options, steps, saves, tmp_path
):
    data, module = digits()
    timer, last = StopOnTime(timedelta(hours=1)), LastCheckpoint(tmp_path)
    saved = []
    save, last.save = last.save, lambda run: (saved.append(run.global_step), save(run))
    callbacks = [timer, RefreshNeighbours(), Over(timer, 1), last]
    run = Trainer(callbacks=callbacks, max_epochs=3, accelerator="cpu", logger=False,
                  enable_progress_bar=False, **options)  # fmt: skip
    run.fit(module, datamodule=data)
    assert run.global_step == steps
    assert saved == saves
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["global_step"] == steps
    assert "Timer" in content["callbacks"]  # as in checkpoints before


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["early_stopping.patience=0"], "early_stopping.patience: 0 is not from 1"),
        (["early_stopping.min_delta=-1"], "early_stopping.min_delta: -1"),
        (["early_stopping.patience=few"], "early_stopping.patience: "),
        (["early_stopping.patiense=1"], "Did you mean 'early_stopping.patience'?"),
        (
            ["early_stopping.patience=1", "trainer.limit_val_batches=0"],
            "early_stopping.patience: nothing is validated",
        ),
        (
            [
                "early_stopping.patience=1",
                "trainer.check_val_every_n_epoch=null",
                "trainer.val_check_interval=2",
            ],
            "early_stopping.patience counts epochs",
        ),
        (
            ["early_stopping.patience=1", "trainer.val_check_interval=00:00:10:00"],
            "early_stopping.patience counts epochs",
        ),
        (["average.decay=1.5"], "average.decay: 1.5 is not at least 0 and below 1"),
    ],
)
def test_wrong_options_are_refused_in_one_line(acn, words, error):
    status, _, err = acn(*FIT, "trainer.max_epochs=2", *words)
    assert status == 2
    assert error in err.strip().splitlines()[-1]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "state",
    [
        {"wait_count": 1, "best_score": 3.0},
        {"wait_count": 1, "best_score": torch.zeros(2)},
        {"wait_count": 1, "best_score": torch.tensor(torch.nan)},
        {"wait_count": [], "best_score": torch.zeros(())},
    ],
)
def test_a_damaged_state_is_refused(state):
    with pytest.raises(UsageError, match="checkpoint's"):
        StopEarly("val/total", patience=3).load_state_dict(state)


# ---------------------------------------------------------------- acn lr


def test_a_learning_rate_is_suggested_and_nothing_written(acn):
    words = ["data.subset=300", "steps=40", "highest=30", "optimizer.kind=sgd"]
    status, out, err = acn("lr", "digits", *QUICK, *words)
    assert status == 0, err
    table = [line.split() for line in out.splitlines() if "e-" in line or "e+" in line]
    rates = [float(one[0]) for one in table]
    assert rates == sorted(rates)
    assert rates[0] == 1e-6
    assert rates[-1] < 30  # the loss exploded before
    found = float(out.strip().splitlines()[-1].rpartition("=")[2])
    assert 1e-6 < found < rates[-1]
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("steps=3", "steps: 3 is not from 20"),
        ("lowest=2", "lowest: 2.0 is not below highest=1.0."),
        ("lowest=0", "lowest: 0.0 is not from 1e-30 to 1e+30."),
        ("lowest=1e-320", "lowest: 1e-320 is not from 1e-30 to"),
        ("highest=1e300", "highest: 1e+300 is not from 1e-30 to"),
        ("highest=1e400", "highest: inf is not from"),
        ("trainer.devices=2", "tried by one process. Use trainer.devices=1"),
    ],
)
def test_wrong_options_of_lr(acn, word, error, monkeypatch):
    monkeypatch.setattr(learning_rate, "read_data", None)  # which may take long
    words = ["trainer.accelerator=cpu", "trainer.strategy=ddp"] if "devices" in word else []
    status, _, err = acn("lr", "digits", *QUICK, *words, word)
    assert status == 2
    assert error in err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("finetune.checkpoint=no.ckpt", "There is no checkpoint no.ckpt."),
        ("finetune.freeze=[encoder]", "these keys need weights from elsewhere"),
    ],
)
def test_fine_tuning_that_cannot_be_is_refused_by_lr(acn, word, error):
    status, _, err = acn("lr", "digits", *QUICK, "data.subset=300", word)
    assert status == 2
    assert error in err.strip().splitlines()[-1]


def test_lr_starts_from_the_weights_of_a_checkpoint(acn, checkpoint):
    own = [f"finetune.checkpoint={checkpoint}", "finetune.freeze=[encoder]", "steps=20"]
    status, out, err = acn("lr", "digits", *QUICK, "data.subset=300", *own)
    assert status == 0, err
    assert f"weights of {checkpoint}" in out


def test_a_loss_that_explodes_at_once():
    with pytest.raises(UsageError, match="lowest: the loss explodes at once"):
        suggestion([(1.0, 3.0)])
