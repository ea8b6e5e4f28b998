"""Finds a learning rate: trains for a moment while the rate grows, and looks at the loss."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from acn_lightning import callbacks as cb
from acn_lightning.config.compose import Plain
from acn_lightning.experiment.budget import with_sizes
from acn_lightning.experiment.build import build_for, read_data
from acn_lightning.experiment.finetune import load_pretrained
from acn_lightning.experiment.trainer import check_limits, make_trainer, quiet_trainer
from acn_lightning.module import ACN
from acn_lightning.optimization import ConstantSchedule
from acn_lightning.utils.errors import UsageError, check_range

SMOOTHING = 0.9
"""Share of the mean so far in each smoothed loss."""

DIVERGED = 4.0
"""How many times the lowest smoothed loss ends the test, as in Lightning's `Tuner.lr_find`."""

BELOW = 10.0
"""How far the suggestion lies below the rate at which the loss was lowest."""

RATES = (1e-30, 1e30)
"""The lowest and the highest rate: a step must fit in a float32."""


class GrowRate(Callback):
    """Lets the learning rate of an ACN grow by the same factor at each step, and keeps the loss.

    Lightning's `Tuner.lr_find` sets the rate by a scheduler, over which an ACN's own schedule
    would write.

    Args:
        lowest: rate of the first step.
        highest: rate of the last.
        steps: number of steps.

    Attributes:
        tried: (rate, smoothed loss) of each step.
    """

    def __init__(self, lowest: float, highest: float, steps: int) -> None:
        self.rates = [lowest * (highest / lowest) ** (one / (steps - 1)) for one in range(steps)]
        self.tried: list[tuple[float, float]] = []
        self.mean = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Before the module's own hook, which hands its rate to the optimiser.
        assert isinstance(pl_module, ACN)
        pl_module.optimizer.learning_rate = self.rates[trainer.global_step]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        rate = self.rates[trainer.global_step - 1]
        self.mean = SMOOTHING * self.mean + (1 - SMOOTHING) * float(outputs["loss"])
        loss = self.mean / (1 - SMOOTHING ** (len(self.tried) + 1))  # it began at zero
        lowest = min((before for _, before in self.tried), default=math.inf)
        if not math.isfinite(loss) or loss > DIVERGED * lowest:
            trainer.should_stop = True
            return
        self.tried.append((rate, loss))


def try_rates(
    config: Plain, lowest: float, highest: float, steps: int
) -> list[tuple[float, float]]:
    """(learning rate, smoothed loss) of each step of a short training with growing rates, which
    writes nothing. It ends early once the loss explodes.

    Args:
        config: a complete config.
        lowest: rate of the first step.
        highest: rate of the last.
        steps: number of steps.

    Raises:
        UsageError: an option is out of range, the config or the data is wrong, or there are several
            processes.
    """
    check_range("steps", steps, 20, 100_000)
    check_range("lowest", lowest, *RATES)
    check_range("highest", highest, *RATES)
    if not lowest < highest:
        raise UsageError(f"lowest: {lowest} is not below highest={highest}.")
    short = {
        "max_epochs": -1, "max_steps": steps, "limit_val_batches": 0, "num_sanity_val_steps": 0,
        "enable_checkpointing": False, "accumulate_grad_batches": 1, "enable_model_summary": False,
        "max_time": None,
    }  # fmt: skip
    if quiet_trainer(config).world_size > 1:
        raise UsageError(
            "trainer.devices: learning rates are tried by one process. Use trainer.devices=1, "
            "without torchrun or srun."
        )
    data = read_data(config)
    config = with_sizes(config, data)
    config = config | {"trainer": config["trainer"] | short}
    module = build_for(data, config)
    if source := config["finetune"]["checkpoint"]:
        load_pretrained(module, data, source, None)
    module.schedule = ConstantSchedule()
    grow = GrowRate(lowest, highest, steps)
    callbacks = [
        cb.SeedEpochs(config["seed"]), cb.Finetune(**config["finetune"]),
        cb.RefreshNeighbours(**config["refresh"]), grow,
    ]  # fmt: skip
    trainer = make_trainer(config, callbacks, [], Path())
    check_limits(trainer, data)
    with warnings.catch_warnings(action="ignore"):  # of codes that large rates have spoilt
        trainer.fit(module, datamodule=data)
    return grow.tried


def suggestion(tried: Sequence[tuple[float, float]]) -> float:
    """A learning rate, to two digits: a tenth of the one at which the loss was lowest, as larger
    ones are about to explode (Smith, arXiv 1506.01186, and common practice since).

    Raises:
        UsageError: the loss exploded at once.

    Example:
        >>> suggestion([(1e-4, 9.0), (1e-3, 7.0), (1e-2, 5.0), (1e-1, 8.0)])
        0.001
    """
    if len(tried) < 2:
        raise UsageError("lowest: the loss explodes at once. Use a lower one, such as 1e-9.")
    best, _ = min(tried, key=lambda pair: pair[1])
    return float(f"{best / BELOW:.1e}")
