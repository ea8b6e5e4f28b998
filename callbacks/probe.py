"""How much of the class is in the codes, while they are learned."""

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from acn_lightning.callbacks.parts import acn_of, data_of
from acn_lightning.data import IndexedImages
from acn_lightning.data.sources.base import stratified
from acn_lightning.evaluation.diagnostics import probe
from acn_lightning.module import ACN
from acn_lightning.utils.errors import UsageError


class ProbeCodes(Callback):
    """Every few epochs encodes training and held-out images anew, and has classifiers learn from
    the one and be asked for the other.

    Logs, as fractions, `codes/knn_accuracy`, `codes/linear_accuracy`, `codes/labels_10`,
    `codes/labels_100` and `codes/labels_1000` (linear classifiers that learn from so few labels),
    `codes/precision_at_10` (of the ten nearest images), `codes/nmi` and `codes/cluster_accuracy`
    (of k-means): see `probes.measure`. Nothing where there are fewer than two classes, or nothing
    is held out for validation. Codes of one age are what a test is
    made with; `val/knn_accuracy` asks the stored ones, some of which are as old as the epoch.

    Args:
        every_n_epochs: how often; 0 for never.
        images: how many training images at most, of each class its share; and held-out ones.
        linear: whether to fit classifiers and clusters; else only neighbours are looked at.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self, *, every_n_epochs: int = 5, images: int = 10_000, linear: bool = True
    ) -> None:
        if every_n_epochs < 0:
            raise UsageError(f"probe.every_n_epochs: {every_n_epochs} is below 0.")
        if images < 10:
            raise UsageError(f"probe.images: {images} is below 10.")
        self.every_n_epochs, self.images, self.linear = every_n_epochs, images, linear

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, data = acn_of(pl_module), data_of(trainer)
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if not due or module.classes < 2 or not len(data.validation_set):
            return
        figures: dict[str, float] = {}
        if trainer.is_global_zero:
            known = IndexedImages(data.fixed_set.images, data.labels, data.rows)
            figures = probe(
                self._coded(module, known),
                self._coded(module, data.validation_set),
                module.classes,
                self.linear,
            )
        figures = trainer.strategy.broadcast(figures)
        module.log_dict(figures, on_step=False, on_epoch=True, batch_size=1)

    def _coded(self, module: ACN, images: IndexedImages) -> tuple[Tensor, Tensor]:
        labels = images.labels[images.rows]
        chosen = stratified(labels, self.images)
        codes = module.encode_stored(images.images[images.rows[chosen]])
        return codes, labels[chosen]
