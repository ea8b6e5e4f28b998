"""What a run says of its progress, and what it logs of its steps."""

import io
import re
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer, TQDMProgressBar

from acn_lightning.callbacks import MeasureSteps, RefreshNeighbours, RunBar, ShowProgress
from acn_lightning.callbacks import progress as shown_progress
from acn_lightning.callbacks.progress import epochs_left, time_left
from acn_lightning.utils import progress
from tests.test_module import digits, trainer


def run_of(*callbacks, epochs=None, steps=-1, epoch=0, step=0, batches=10, accumulate=1):
    return Mock(
        spec=Trainer, max_epochs=epochs, max_steps=steps, current_epoch=epoch, global_step=step,
        num_training_batches=batches, accumulate_grad_batches=accumulate, callbacks=list(callbacks),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("run", "done", "left"),
    [
        (run_of(epochs=20), 3, 17),
        (run_of(epochs=20, steps=25, step=10), 1, 1.5),
        (run_of(steps=25, step=10, batches=20, accumulate=2), 1, 1.5),
        (run_of(epochs=-1), 3, float("inf")),
        (run_of(), 3, float("inf")),
        (run_of(epochs=2), 3, 0),
    ],
)
def test_epochs_left_by_whatever_ends_the_run(run, done, left):
    assert epochs_left(run, done) == left


def timer(elapsed, limit):
    one = Timer(limit)
    one.time_elapsed = lambda stage="train": elapsed
    return one


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (run_of(epochs=20), "about 17 min"),
        (run_of(timer(30, "00:00:05:00"), epochs=20), "about 4 min"),
        (run_of(timer(30, "00:00:05:00")), "about 4 min"),
        (run_of(timer(30, None)), ""),
        (run_of(EarlyStopping("val/total"), epochs=20), "at most 17 min"),
        (run_of(epochs=3), ""),
    ],
)
def test_time_left_by_whatever_ends_the_run(run, said):
    assert time_left(run, 3, 60.0) == said


def test_lines_in_a_log(capsys):
    data, module = digits()
    trainer(RefreshNeighbours(), ShowProgress(), max_epochs=3).fit(module, datamodule=data)
    lines = [one for one in capsys.readouterr().out.splitlines() if one.startswith(("ep", "tr"))]
    assert [line.split(":")[0] for line in lines[1:]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert re.match(r"training for 3 epochs of 21 steps, about \d+ s, writing to ", lines[0])
    assert re.search(r"train/total .*val/total [\d.]+, [\d.]+ s, about \d+ s left$", lines[1])
    assert "left" not in lines[3]


@pytest.mark.parametrize(("batches", "steps"), [(1, "1 step"), (2, "2 steps"), (3, "3 steps")])
def test_the_estimate_comes_before_the_line_of_the_shortest_epoch(batches, steps, capsys):
    data, module = digits()
    fit = trainer(RefreshNeighbours(), ShowProgress(), max_epochs=2, limit_train_batches=batches)
    fit.fit(module, datamodule=data)
    lines = [one for one in capsys.readouterr().out.splitlines() if one.startswith(("ep", "tr"))]
    assert re.match(rf"training for 2 epochs of {steps}, about \d+ s, writing to ", lines[0])
    assert [line.split(":")[0] for line in lines[1:]] == ["epoch 1/2", "epoch 2/2"]


def test_a_bar_says_how_far_the_run_is(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    data, module = digits()
    callbacks = [RefreshNeighbours(), ShowProgress(), RunBar()]
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    fit = Trainer(callbacks=callbacks, max_epochs=3, limit_train_batches=5, **quiet)
    fit.fit(module, datamodule=data)
    shown = screen.getvalue()
    assert re.search(r"Epoch 1/3: .*Epoch 2/3, about \d+ s left: ", shown, re.S)
    assert "training for 3 epochs of 5 steps, about " in shown
    assert "val/total 1" not in shown  # no lines beside the bar


def test_the_estimate_of_a_resumed_run_begins_where_it_does(tmp_path, capsys):
    data, module = digits()
    first = trainer(RefreshNeighbours(), max_epochs=2)
    first.fit(module, datamodule=data)
    first.save_checkpoint(tmp_path / "two.ckpt")
    shown = ShowProgress()
    data, module = digits()
    capsys.readouterr()
    again = trainer(RefreshNeighbours(), shown, max_epochs=3)
    again.fit(module, datamodule=data, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert "training from epoch 3 on for 1 epoch of 21 steps, about " in capsys.readouterr().out
    assert len(shown.seconds) == 1


def test_an_epoch_in_part_is_extended_by_its_steps_alone(monkeypatch):
    """A run that is resumed for the last 10 of 100 steps: 10 s, and 20 s for what follows them."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(shown_progress.time, "perf_counter", lambda: clock.now)
    shown, module = ShowProgress(), Mock(spec=LightningModule)
    run = run_of(epochs=3, step=90, batches=100)
    run.is_last_batch, run.default_root_dir, run.num_val_batches = False, "runs", [0]
    run.callback_metrics = {}
    shown.on_train_start(run, module)
    for step in range(1, 11):
        clock.now, run.global_step = float(step), 90 + step
        shown.on_train_batch_end(run)
    clock.now = 30.0
    shown.on_train_epoch_end(run, module)
    assert list(shown.seconds) == [100 + 20]


# ---------------------------------------------------------------- steps


class Norms(Callback):
    """The norm of each step's gradients, by hand."""

    def __init__(self):
        self.norms = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        squares = [p.grad.double().square().sum() for p in pl_module.parameters()]
        self.norms.append(float(torch.stack(squares).sum().sqrt()))


@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 3}, {"gradient_clip_val": 0.5}]
)
def test_the_mean_norm_of_the_steps(options):
    data, module = digits()
    byhand = Norms()
    fit = trainer(MeasureSteps(), RefreshNeighbours(), byhand, max_epochs=1, **options)
    fit.fit(module, datamodule=data)
    assert len(byhand.norms) == fit.global_step
    mean = sum(byhand.norms) / len(byhand.norms)
    assert fit.callback_metrics["train/gradient_norm"] == pytest.approx(mean, rel=1e-5)
    assert fit.callback_metrics["train/learning_rate"] == pytest.approx(1e-3)


def test_a_norm_that_is_not_finite_is_no_part_of_the_mean():
    steps = MeasureSteps()
    module, weight = LightningModule(), torch.nn.Parameter(torch.zeros(2))
    module.weight = weight
    for gradient in ([3.0, 4.0], [torch.inf, 1.0], [6.0, 8.0], [torch.nan, 0.0]):
        weight.grad = torch.tensor(gradient)
        steps.on_before_optimizer_step(Mock(spec=Trainer), module, Mock(spec=torch.optim.Adam))
    assert steps.state_dict() == {"norms": 15.0, "steps": 2}
    again = MeasureSteps()
    again.load_state_dict(steps.state_dict())
    assert again.state_dict() == steps.state_dict()


def test_images_per_second_leaves_out_what_is_no_step(monkeypatch):
    class Slow(Callback):
        """A validation within the epoch, and an end of it, of 0.3 s each."""

        def on_validation_epoch_end(self, trainer, pl_module):
            time.sleep(0.3)

        def on_train_epoch_end(self, trainer, pl_module):
            time.sleep(0.3)

    data, module = digits()
    measured = MeasureSteps()
    callbacks = [measured, RefreshNeighbours(), Slow(), ShowProgress()]
    fit = trainer(*callbacks, max_epochs=1, val_check_interval=0.5, num_sanity_val_steps=0)
    fit.fit(module, datamodule=data)
    metrics = fit.callback_metrics
    steps = 1294 / float(metrics["train/images_per_second"])
    assert steps == pytest.approx(measured.seconds, rel=0.01)
    assert float(metrics["train/epoch_seconds"]) > steps + 0.85


# ---------------------------------------------------------------- other work


def test_only_slow_work_is_told(monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUICK", 0.1)
    with progress.doing("drawing"):
        pass
    with progress.doing("fitting"):
        time.sleep(0.2)
    with monkeypatch.context() as other:
        other.setattr(progress, "is_rank_zero", lambda: False)
        with progress.doing("hiding"):
            time.sleep(0.2)
    assert capsys.readouterr().err == "fitting ...\n"
    with suppress(ZeroDivisionError), progress.doing("dividing"):
        print(1 / 0)
    assert not [
        one for one in threading.enumerate() if getattr(one, "_target", None) is progress.tell
    ]


def test_on_a_terminal_the_line_goes_again(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(progress, "QUICK", 0.1)
    monkeypatch.setattr(sys, "stderr", Screen())
    with progress.doing("drawing"):
        time.sleep(0.3)
    shown = sys.stderr.getvalue()
    assert "drawing ... 00:00" in shown
    assert shown.endswith("\r")


def test_a_bar_shows_what_the_last_step_cost_and_moves_ten_times_a_second(monkeypatch):
    data, module = digits()
    bar, shown = RunBar(), []
    monkeypatch.setattr(
        TQDMProgressBar, "on_train_batch_end",
        lambda self, trainer, module, *_: shown.append(self.get_metrics(trainer, module)),
    )  # fmt: skip
    now = iter(x / 20 for x in range(100))  # steps of 0.05 s
    monkeypatch.setattr(shown_progress, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    Trainer(callbacks=[RefreshNeighbours(), bar], max_epochs=1, **quiet).fit(
        module, datamodule=data
    )
    assert 9 <= len(shown) <= 12  # of 21 steps
    assert shown[-1]["cost"] == pytest.approx(float(module.last_cost))
    assert shown[-1]["cost"] > 0
