"""Measures during training how well codes predict the class."""

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from acn_lightning.callbacks.typed import acn_of, data_of
from acn_lightning.data import IndexedImages
from acn_lightning.data.subsets import stratified
from acn_lightning.evaluation.diagnostics import probe
from acn_lightning.inference.embedding import encode
from acn_lightning.module import ACN
from acn_lightning.utils.distributed import waiting_for_first
from acn_lightning.utils.errors import check_range


class ProbeCodes(Callback):
    """Every few epochs, encodes training and held-out images again, trains classifiers on the
    former and tests them on the latter.

    Logs, as fractions, `codes/knn_accuracy`, `codes/linear_accuracy`, `codes/labels_10`,
    `codes/labels_100` and `codes/labels_1000` (linear classifiers trained on that many labels),
    `codes/precision_at_10` (of the ten nearest images), `codes/nmi` and `codes/cluster_accuracy`
    (of k-means): see `classifiers.measure`. Logs nothing if there are fewer than two classes, no
    validation images or no codes. As in a test, all codes come from the same weights.
    `val/knn_accuracy` searches the stored codes instead, which `refresh.encode=false` lets be as
    old as the epoch.

    Args:
        every_n_epochs: number of epochs between probes; 0 for never.
        images: largest number of training images, and of held-out ones; each class gets its share.
        linear: whether to fit classifiers and clusters; if false, only neighbours are measured.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self, *, every_n_epochs: int = 5, images: int = 10_000, linear: bool = True
    ) -> None:
        check_range("probe.every_n_epochs", every_n_epochs, 0, 10**9)
        check_range("probe.images", images, 10, 10_000_000)
        self.every_n_epochs, self.images, self.linear = every_n_epochs, images, linear

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, data = acn_of(pl_module), data_of(trainer)
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if not due or module.classes < 2 or not module.encoder.has_codes:
            return
        known = labelled(IndexedImages(data.fixed_set.images, data.labels, data.rows))
        held_out = labelled(data.validation_set)
        if not len(known) or not len(held_out):
            return
        stats: dict[str, float] = {}
        with waiting_for_first():
            if trainer.is_global_zero:
                coded = self._coded(module, known), self._coded(module, held_out)
                stats = probe(*coded, module.classes, self.linear)
        stats = trainer.strategy.broadcast(stats)
        module.log_dict(stats, on_step=False, on_epoch=True, batch_size=1)

    def _coded(self, module: ACN, images: IndexedImages) -> tuple[Tensor, Tensor]:
        labels = images.labels[images.rows]
        chosen = stratified(labels, self.images)
        codes = encode(module, images.images[images.rows[chosen]])
        return codes, labels[chosen]


def labelled(images: IndexedImages) -> IndexedImages:
    """Those that have a label."""
    has = images.labels[images.rows] >= 0
    return IndexedImages(images.images, images.labels, images.rows[has])
