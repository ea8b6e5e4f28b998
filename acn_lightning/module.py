"""The LightningModule: how the parts of an ACN are wired."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributions import Distribution
from torchmetrics.classification import MulticlassAccuracy

from acn_lightning import objective
from acn_lightning.code_bank import CodeBank
from acn_lightning.data import Batch
from acn_lightning.decoders import Decoder
from acn_lightning.encoders import Encoder
from acn_lightning.errors import UsageError
from acn_lightning.evaluation import knn_vote
from acn_lightning.neighbours import NeighbourIndex
from acn_lightning.priors import Prior


class ACN(LightningModule):
    """Associative Compression Network (arXiv 1804.02476).

    With a prior that ignores the neighbour's code it is a VAE; nothing else changes.

    Logs, in nats per image unless the name says otherwise: `train/rate`, `train/distortion`,
    `train/total`, and for `val` and `test` these and `knn_accuracy`, a fraction. Held-out costs
    are means over all K neighbours among the training codes, with z sampled.

    Args:
        encoder: images (B, C, H, W) to q(z|x).
        prior: codes (..., D) to p(z|c).
        decoder: codes (B, D) to r(x|z).
        bank: stored posterior means of the training images.
        index: answers which of them are nearest. The callback `RefreshNeighbours` rebuilds it.
        classes: number of classes; below 2 there is no KNN accuracy.
        learning_rate: of Adam.

    Raises:
        UsageError: the learning rate is out of range; when fitting, the callback
            `RefreshNeighbours` is missing.
    """

    def __init__(
        self,
        encoder: Encoder,
        prior: Prior,
        decoder: Decoder,
        bank: CodeBank,
        index: NeighbourIndex,
        classes: int,
        *,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        if not 0 < learning_rate < 1e30:  # Adam's step has to be a float32
            raise UsageError(f"model.learning_rate: {learning_rate} is not above 0 and below 1e30.")
        self.encoder, self.prior, self.decoder = encoder, prior, decoder
        self.bank, self.index, self.learning_rate = bank, index, learning_rate
        self.classes = classes
        if classes > 1:
            self.knn_accuracy = MulticlassAccuracy(self.classes, average="micro")

    def setup(self, stage: str) -> None:
        self.bank.to(self.device)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Distribution:
        """The posterior q(z|x); its mean is the code."""
        return self.encoder(image)

    def on_fit_start(self) -> None:
        # Here and not at the first step: minutes of set-up may lie in between.
        callbacks = getattr(self.trainer, "callbacks", [])
        if not any(getattr(one, "refreshes_neighbours", False) for one in callbacks):
            raise UsageError(
                "Nothing would refresh the neighbours: give the Trainer the callback "
                "acn_lightning.callbacks.RefreshNeighbours()."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        posterior = self.encoder(batch.image)
        prior = self.prior(self.bank.draw(batch.index))
        z = posterior.rsample()
        rate = objective.rate(posterior, prior, z).mean()
        distortion = objective.distortion(self.decoder(z), batch.image).mean()
        self.bank.write(batch.index, posterior.mean)
        total = rate + distortion
        costs = {"train/rate": rate, "train/distortion": distortion, "train/total": total}
        self.log_dict(
            {name: cost.detach() for name, cost in costs.items()},
            on_step=False, on_epoch=True, batch_size=len(z), sync_dist=True,
        )  # fmt: skip
        self.log("cost", total.detach(), prog_bar=True, logger=False)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, part: str) -> None:
        posterior = self.encoder(batch.image)
        rows = self.index.search(posterior.mean)
        # Neighbours first, (K, B, D): a batch of posteriors then pairs with each of the K.
        priors = self.prior(self.bank.codes[rows.T])
        z = posterior.sample()
        rate = objective.rate(posterior, priors, z).mean()
        distortion = objective.distortion(self.decoder(z), batch.image).mean()
        log = partial(self.log, batch_size=len(z), sync_dist=True)
        log(f"{part}/rate", rate)
        log(f"{part}/distortion", distortion)
        log(f"{part}/total", rate + distortion, prog_bar=True)
        if self.classes > 1:
            self.knn_accuracy(knn_vote(self.bank.labels[rows], self.classes), batch.label)
            log(f"{part}/knn_accuracy", self.knn_accuracy)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["code_bank"] = self.bank.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.bank.load_state_dict(checkpoint["code_bank"])
