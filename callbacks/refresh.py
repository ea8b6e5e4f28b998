"""The neighbour table, rebuilt at each epoch boundary."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from acn_lightning.callbacks.parts import acn_of, data_of
from acn_lightning.evaluation.diagnostics import code_figures, neighbour_figures
from acn_lightning.module import ACN
from acn_lightning.networks.component import evaluating
from acn_lightning.retrieval.code_bank import Refresh

SAMPLE = 4096
"""Codes that figures for a dashboard are of."""


GAP = 0.5
"""Nats for each dimension of a code, beyond which running statistics are no longer the batch's."""


class RefreshNeighbours(Callback):
    """Rebuilds the FAISS index from the stored posterior means at each epoch boundary and writes
    the table that the next epoch draws neighbours from.

    The paper searches at every step; once an epoch has the same fixed point (codes that no longer
    move have the same neighbours whenever they are asked for) at a small part of the price.

    Where weights come from a checkpoint, the codes that the first epoch draws from are theirs.

    Before a test, the training images are encoded anew with the final weights: codes stored while
    the encoder was moving give worse figures.

    Args:
        encode: whether to encode all training images anew at each boundary, by the weights as they
            are then, in place of what was stored along the epoch: a forward pass of the encoder
            over the data, for a table in which all codes are of one age.

    Logs `bank/refreshed` (codes written since the boundary before), `bank/unseen` (training images
    never encoded), `bank/rebuild_seconds`, `bank/recall` (the part of the true K nearest that the
    index finds, on a sample), `bank/megabytes` (what bank and table hold in each process) and,
    where there are several, `bank/received_megabytes` (what came to each over the network). A
    recall below what `neighbours.recall` asks for is a warning. Of a sample of 4,096 codes also
    `bank/neighbour_distance`, `bank/neighbour_agreement` (in class), `bank/neighbours_changed`
    (since the boundary before), and how codes lie in their space: `codes/norm`,
    `codes/variance_mean`, `codes/variance_min`, `codes/active_dimensions`, `codes/eigenvalue_min`,
    `codes/eigenvalue_max`, `codes/effective_dimensions`; see `code_figures` and
    `neighbour_figures`. `codes/statistics_gap` is how many nats lie between codes by a batch's mean
    and variance and those by the running ones, `Shape.gap`; a large one is a warning.

    Attributes:
        rebuilds: how often, the one at the start of training included.
        seconds: all of them together.
        last: what the last boundary found.
    """

    refreshes_neighbours = True  # what an ACN looks for before it trains

    def __init__(self, *, encode: bool = False) -> None:
        self.encode = encode
        self.rebuilds = 0
        self.seconds = 0.0
        self.last: Refresh | None = None
        self.stale = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = acn_of(pl_module)
        if module.bank.neighbours is None:
            if module.pretrained:  # its codes mean something before the first step
                encode_all(trainer, module)
            self._refresh(trainer, module)
        else:  # a checkpoint brought the table; the index is not in it
            module.bank.rebuild(module.index, trainer.is_global_zero)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.stale = True
        # Lightning validates before `on_train_epoch_end`, and validation asks the new index.
        if trainer.is_last_batch:
            self._refresh_and_log(trainer, acn_of(pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # An epoch that was cut short had no last batch.
        if self.stale:
            self._refresh_and_log(trainer, acn_of(pl_module))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = acn_of(pl_module)
        encode_all(trainer, module)
        warn_of_recall(module.bank.rebuild(module.index, trainer.is_global_zero), module)

    def _refresh_and_log(self, trainer: Trainer, module: ACN) -> None:
        if self.encode:
            encode_all(trainer, module)
        sample = some_rows(module.bank.rows, SAMPLE)
        before = module.bank.neighbours
        before = None if before is None else before[sample].long()  # a copy: the table goes
        found = self._refresh(trainer, module)
        figures = code_figures(module.bank.codes[sample])
        figures |= neighbour_figures(module.bank, sample, before)
        figures["codes/statistics_gap"] = statistics_gap(trainer, module)
        figures |= {
            "bank/refreshed": float(found.refreshed),
            "bank/unseen": float(found.unseen),
            "bank/rebuild_seconds": found.seconds,
            "bank/megabytes": module.bank.nbytes / 1e6,
        }
        if trainer.world_size > 1:
            figures["bank/received_megabytes"] = found.received / 1e6
        if found.recall is not None:
            figures["bank/recall"] = found.recall
        module.log_dict(figures, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        total = len(module.bank.rows)
        if found.refreshed < total:
            rank_zero_warn(
                f"Only {found.refreshed:,} of {total:,} codes were refreshed in this epoch; "
                f"{found.unseen:,} never were."
            )
        warn_of_recall(found.recall, module)
        warn_of_gap(figures["codes/statistics_gap"], module)

    def _refresh(self, trainer: Trainer, module: ACN) -> Refresh:
        self.last = module.bank.refresh(module.index, show=trainer.is_global_zero)
        self.rebuilds += 1
        self.seconds += self.last.seconds
        self.stale = False
        return self.last

    def state_dict(self) -> dict[str, Any]:
        return {"rebuilds": self.rebuilds, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rebuilds, self.seconds = state_dict["rebuilds"], state_dict["seconds"]


def some_rows(rows: Tensor, most: int) -> Tensor:
    """Evenly spaced among them: the same ones at each boundary."""
    count = min(most, len(rows))
    return rows[torch.arange(count, device=rows.device) * len(rows) // count]


def warn_of_recall(recall: float | None, module: ACN) -> None:
    """Says so where the index finds less than it should, and what to turn."""
    wanted = module.index.recall
    if recall is not None and recall < wanted:
        rank_zero_warn(
            f"The neighbour index finds {recall:.1%} of the true neighbours, less than "
            f"neighbours.recall={wanted:g}. {module.index.advice()}"
        )


def statistics_gap(trainer: Trainer, module: ACN) -> float:
    """`Shape.gap` of some training images."""
    images = data_of(trainer).fixed_set
    rows = some_rows(module.bank.rows.cpu(), 256)
    with evaluating(module), trainer.precision_plugin.forward_context():
        batch = trainer.strategy.batch_to_device(images.__getitems__(rows.tolist()))
        return module.shape.gap(module.encoder(batch.image).mean)


def warn_of_gap(nats: float, module: ACN) -> None:
    """Says so where stored codes are not those that are trained."""
    if nats > GAP * module.bank.codes.shape[1]:
        rank_zero_warn(
            f"Codes by the running mean and variance lie {nats:.3g} nats from those by a batch's "
            "own: the encoder's output moves faster than the running ones follow, and held-out "
            "rates mean little. Lower model.learning_rate or model.shape.decorrelation."
        )


def encode_all(trainer: Trainer, module: ACN) -> None:
    """Writes the code of every training image, by the weights as they are, to the bank."""
    # What was stored along the epoch gives way: the same image may be another process's now.
    module.bank.written.clamp_(max=module.bank.boundary - 1)
    with evaluating(module):
        for batch in data_of(trainer).encoding_dataloader():
            # The data module's hook has made floats of the images when this returns.
            batch = trainer.strategy.batch_to_device(batch)
            with trainer.precision_plugin.forward_context():
                module.bank.write(batch.index, module(batch.image).mean)
    module.bank.synchronise()
