"""Rebuilds the neighbour table at each epoch boundary."""

from typing import Any

from jaxtyping import Float
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from acn_lightning.callbacks.typed import acn_of, as_it_is, data_of
from acn_lightning.data.subsets import spread
from acn_lightning.evaluation.diagnostics import code_stats, neighbour_stats
from acn_lightning.module import ACN
from acn_lightning.networks.layers import eval_mode
from acn_lightning.retrieval.code_bank import RefreshReport
from acn_lightning.utils.distributed import share_buffers
from acn_lightning.utils.progress import progress_bar

SAMPLE = 4096
"""Number of codes that dashboard stats are computed on."""


class RefreshNeighbours(Callback):
    """Rebuilds the FAISS index from the stored posterior means at each epoch boundary and writes
    the table that the next epoch draws neighbours from.

    A step stores the codes of its images as it has seen them: of transformed copies
    (`data.augment`), standardised by its batch. At the boundary all images are encoded as they are,
    each by itself.

    The paper searches at every step. Searching once per epoch has the same fixed point at a small
    part of the cost: codes that no longer move always have the same neighbours.

    If weights come from a checkpoint, the first epoch draws from codes encoded with these weights.

    Before a test, the training images are encoded again with the final weights: codes stored while
    the encoder was still moving give worse results.

    Args:
        encode: whether to encode all training images again at each boundary with the current
            weights, in place of the codes stored during the epoch. This takes a forward pass of
            the encoder over the data. Without it codes in the table, and in checkpoints, are up to
            an epoch old, and of transformed copies.

    Logs `bank/refreshed` (codes written since the last boundary), `bank/unseen` (training images
    never encoded), `bank/rebuild_seconds`, `bank/recall` (the fraction of the true K nearest that
    the index finds, on a sample), `bank/megabytes` (held by bank and table on each rank) and, with
    several ranks, `bank/received_megabytes` (received by each over the network).

    On a sample of 4,096 codes, also logs `bank/neighbour_distance`, `bank/neighbour_agreement` (in
    class), `bank/neighbours_changed` (since the last boundary), and how codes are distributed:
    `codes/norm`, `codes/variance_mean`, `codes/variance_min`, `codes/active_dimensions`,
    `codes/eigenvalue_min`, `codes/eigenvalue_max`, `codes/effective_dimensions`; see `code_stats`
    and `neighbour_stats`. `codes/statistics_gap` is the distance in nats between codes
    standardised by a batch's statistics and by the running ones, `Shape.gap`. `WarnOfFaults` warns
    of what is wrong.

    Attributes:
        rebuilds: number of rebuilds, including the one at the start of training.
        seconds: total time of all rebuilds.
        last: report of the last rebuild of the table.
    """

    refreshes_neighbours = True  # an ACN checks for this before it trains

    def __init__(self, *, encode: bool = True) -> None:
        self.encode = encode
        self.rebuilds = 0
        self.seconds = 0.0
        self.last: RefreshReport | None = None
        self.stale = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = acn_of(pl_module)
        if module.bank.neighbours is None:
            if module.pretrained:  # its codes are meaningful before the first step
                module.shape.begin(some_means(trainer, module))
                encode_all(trainer, module)
            self._refresh(trainer, module)
        else:  # the checkpoint has the table, but not the index
            module.bank.rebuild(module.index)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.stale = True
        # Lightning validates before `on_train_epoch_end`, and validation searches the new index.
        if trainer.is_last_batch:
            self._refresh_and_log(trainer, acn_of(pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # An epoch that was cut short had no last batch.
        if self.stale:
            self._refresh_and_log(trainer, acn_of(pl_module))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = acn_of(pl_module)
        encode_all(trainer, module)
        module.bank.synchronise()
        warn_of_recall(module.bank.rebuild(module.index, divide=True), module)

    def _refresh_and_log(self, trainer: Trainer, module: ACN) -> None:
        share_buffers(module)  # what follows is then of one network on all ranks
        if self.encode:
            encode_all(trainer, module)
        sample = module.bank.rows[spread(len(module.bank.rows), SAMPLE)]
        before = module.bank.neighbours
        before = None if before is None else before[sample].long()  # a copy: the table is freed
        found = self._refresh(trainer, module)
        stats = code_stats(module.bank.codes[sample])
        stats |= neighbour_stats(module.bank, sample, before)
        stats["codes/statistics_gap"] = module.shape.gap(some_means(trainer, module))
        stats |= {
            "bank/refreshed": float(found.refreshed),
            "bank/unseen": float(found.unseen),
            "bank/rebuild_seconds": found.seconds,
            "bank/megabytes": module.bank.nbytes / 1e6,
        }
        if trainer.world_size > 1:
            stats["bank/received_megabytes"] = found.received / 1e6
        if found.recall is not None:
            stats["bank/recall"] = found.recall
        module.log_dict(stats, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _refresh(self, trainer: Trainer, module: ACN) -> RefreshReport:
        self.last = module.bank.refresh(module.index)
        self.rebuilds += 1
        self.seconds += self.last.seconds
        self.stale = False
        return self.last

    def state_dict(self) -> dict[str, Any]:
        return {"rebuilds": self.rebuilds, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rebuilds, self.seconds = state_dict["rebuilds"], state_dict["seconds"]


def warn_of_recall(recall: float | None, module: ACN) -> None:
    """Warns if the recall is below `neighbours.recall`, and says what to change."""
    wanted = module.index.recall
    if recall is not None and recall < wanted:
        rank_zero_warn(
            f"The neighbour index finds {recall:.1%} of the true neighbours, less than "
            f"neighbours.recall={wanted:g}. {module.index.advice()}"
        )


def some_means(trainer: Trainer, module: ACN) -> Float[Tensor, "batch code"]:
    """What the encoder gives for some training images, the same in all processes, before the shape
    makes codes of it."""
    images = data_of(trainer).fixed_set
    rows = module.bank.rows[spread(len(module.bank.rows), 256)].cpu()
    with eval_mode(module), trainer.precision_plugin.forward_context():
        batch = as_it_is(trainer, images.__getitems__(rows.tolist()))
        means: Tensor = module.encoder(batch.image).mean
    return means


def encode_all(trainer: Trainer, module: ACN) -> None:
    """Encodes every training image with the current weights, and writes the codes to the bank: each
    rank its share, which `CodeBank.synchronise` gives to the others."""
    # Codes stored during the epoch must not win over the new ones, which another rank may write.
    module.bank.written.clamp_(max=module.bank.boundary - 1)
    batches = data_of(trainer).encoding_dataloader()
    bar = progress_bar("encoding the training images", "batch", len(batches))
    with eval_mode(module), bar:
        for batch in batches:
            batch = as_it_is(trainer, batch)
            with trainer.precision_plugin.forward_context():
                module.bank.write(batch.index, module(batch.image).mean)
            bar.update()
