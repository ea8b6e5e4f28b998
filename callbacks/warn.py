"""Warns of a run's faults, each once."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng

from acn_lightning.callbacks.dashboard import runs
from acn_lightning.callbacks.measure import MeasureTest
from acn_lightning.callbacks.typed import acn_of, as_it_is, callbacks_of, data_of
from acn_lightning.data import ImageData
from acn_lightning.data.subsets import spread
from acn_lightning.evaluation.diagnostics import drift, gain
from acn_lightning.evaluation.warnings import (
    Figures,
    Finding,
    below_pixels,
    find,
    needed,
    shared_cores,
)
from acn_lightning.module import ACN
from acn_lightning.networks.layers import eval_mode
from acn_lightning.utils.errors import UsageError, check_range
from acn_lightning.utils.files import replacing

SHARE, LEAST, MOST = 100, 64, 128
"""A hundredth of an epoch's images is decoded and encoded again, within these bounds."""

WATCHED = 60.0
"""Seconds of steps, after an untimed one, from which a run on a CPU sees whether it has its cores
to itself; the machine's load is a mean of about as long."""


class WarnOfFaults(Callback):
    """Looks for faults at the end of an epoch and of the test, and says what to do about each: see
    `docs/troubleshooting.md`. After a minute on a CPU it also looks whether the run has its cores
    to itself. Each kind is reported once in a run, however often it is resumed: as a warning, in
    the run's `warnings.json`, as an alert in W&B and as a text in TensorBoard.

    It reads what other callbacks logged, and measures two more figures on up to 128 images:

    - `codes/drift`: how far the current weights move stored codes, divided by the mean distance of
      codes to their neighbours;
    - `codes/gain`: nats that a held-out image costs more with another image's code than with its
      own.

    Args:
        folder: folder for `warnings.json`; None writes no file.
        every_n_epochs: number of epochs between looks; 0 for never.

    Raises:
        UsageError: an option is out of range; or the checkpoint's state is damaged.
    """

    def __init__(self, folder: Path | None = None, *, every_n_epochs: int = 1) -> None:
        check_range("warnings.every_n_epochs", every_n_epochs, 0, 10**9)
        self.folder, self.every_n_epochs = folder, every_n_epochs
        self.given: list[dict[str, Any]] = []
        self.history: list[list[float]] = []
        self.watched: tuple[float, float] | None = None

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watched = None
        self._write()  # the folder may be a new one, or hold what an earlier test said

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        if not self.every_n_epochs or pl_module.device.type != "cpu":
            return
        now, spent = time.perf_counter(), time.process_time()
        if self.watched is None:
            self.watched = now, spent
        elif now > self.watched[0] + WATCHED:
            self._look_at_cores(trainer, now - self.watched[0], spent - self.watched[1])
            self.watched = math.inf, math.inf  # once

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.every_n_epochs or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        module, data = acn_of(pl_module), data_of(trainer)
        has_codes = module.encoder.has_codes
        logged = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if has_codes or not name.startswith("codes/")  # codes that say nothing have no faults
        }
        if trainer.is_global_zero and has_codes:
            measured = self._measure(trainer, module, data, logged)
            module.log_dict(
                measured, on_step=False, on_epoch=True, batch_size=1, rank_zero_only=True
            )
            logged |= measured
        costs = [logged.get(name, math.nan) for name in ("val/total", "train/total")]
        # Without a validation in this epoch, the cost is still that of an earlier one.
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        if trainer.is_last_batch and validated and all(map(math.isfinite, costs)):
            self.history = needed([*self.history, costs])  # each checkpoint holds it
        for found in find(self._figures(trainer, module, data, logged)):
            self._give(trainer, found)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        measured = (one.results for one in callbacks_of(trainer) if isinstance(one, MeasureTest))
        if not self.every_n_epochs or not (results := next(measured, {})):
            return
        labels = data_of(trainer).test_set.labels[: results["images"]]
        if found := below_pixels(results["representations"], int((labels >= 0).sum())):
            self._give(trainer, found)

    def _look_at_cores(self, trainer: Trainer, seconds: float, spent: float) -> None:
        """Warns if other programs use the cores too.

        Args:
            trainer: the run's.
            seconds: that the steps took.
            spent: CPU seconds of this process in them.
        """
        try:
            load = os.getloadavg()[0]
        except (AttributeError, OSError):  # this system does not tell
            return
        threads, cores = torch.get_num_threads(), os.cpu_count() or 1
        if found := shared_cores(spent / seconds / threads, threads, load, cores):
            self._give(trainer, found)

    def _figures(
        self, trainer: Trainer, module: ACN, data: ImageData, logged: dict[str, float]
    ) -> Figures:
        return Figures(
            logged,
            self.history,
            trainer.current_epoch + 1,
            len(data.rows),
            data.batch_size * trainer.world_size * trainer.accumulate_grad_batches,
            module.bank.codes.shape[1],
            trainer.estimated_stepping_batches,
            trainer.global_step,
            module.index.recall,
            module.index.advice(),
        )

    @torch.no_grad()
    def _measure(
        self, trainer: Trainer, module: ACN, data: ImageData, logged: dict[str, float]
    ) -> dict[str, float]:
        count = min(max(len(data.rows) // SHARE, LEAST), MOST)
        held_out = data.validation_set if len(data.validation_set) else data.test_set
        with isolate_rng(), eval_mode(module), trainer.precision_plugin.forward_context():
            rows = module.bank.rows[spread(len(module.bank.rows), count)].cpu()
            images = as_it_is(trainer, data.fixed_set.__getitems__(rows.tolist())).image
            stored, fresh = module.bank.codes[rows.to(module.device)], module(images).mean
            found = {"codes/drift": drift(stored, fresh, logged["bank/neighbour_distance"])}
            if len(held_out) < 2:  # another image's code would be its own
                return found
            # Evenly spread: a folder of classes is sorted by them.
            batch = as_it_is(trainer, held_out.__getitems__(spread(len(held_out), count)))
            z = module(batch.image).sample()
            return found | {"codes/gain": gain(module.decoder, z, batch.image)}

    @rank_zero_only
    def _give(self, trainer: Trainer, found: Finding) -> None:
        if found.name in {one["name"] for one in self.given}:
            return
        epoch, text = trainer.current_epoch, f"{found.message} {found.remedy}"
        entry = {"name": found.name, "epoch": epoch, "message": found.message}
        self.given.append({**entry, "remedy": found.remedy})
        self._write()
        rank_zero_warn(text)
        for run in runs(trainer.loggers, "wandb"):
            run.alert(found.name, text)
        for run in runs(trainer.loggers, "tensorboard"):
            run.add_text(f"warnings/{found.name}", text, trainer.global_step)

    @rank_zero_only
    def _write(self) -> None:
        if self.folder is None:
            return
        path = self.folder / "warnings.json"
        if not self.given:
            path.unlink(missing_ok=True)
            return
        with replacing(path) as beside:
            beside.write_text(json.dumps(self.given, indent=2) + "\n", "utf-8")

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given, "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        given, history = state_dict.get("given"), state_dict.get("history")
        forms = {"name": str, "epoch": int, "message": str, "remedy": str}
        if not (
            isinstance(given, list)
            and all(is_like(one, forms) for one in given)
            and isinstance(history, list)
            and all(
                isinstance(one, list) and list(map(type, one)) == [float] * 2 for one in history
            )
        ):
            raise UsageError("The checkpoint's state of WarnOfFaults is damaged.")
        self.given, self.history = list(given), needed(history)


def is_like(found: Any, forms: dict[str, type]) -> bool:
    """Whether a value is a mapping of these keys to values of these types."""
    return isinstance(found, dict) and {key: type(value) for key, value in found.items()} == forms
