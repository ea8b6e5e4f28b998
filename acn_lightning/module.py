"""The LightningModule, which wires the parts of an ACN together."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any, ClassVar, NoReturn, cast

import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributions import Distribution
from torchmetrics import MeanMetric

from acn_lightning import objective
from acn_lightning.data import Batch
from acn_lightning.evaluation.classifiers import knn_vote
from acn_lightning.evaluation.costs import Encoded
from acn_lightning.networks.decoders import Decoder
from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.encoders import Encoder
from acn_lightning.networks.priors import Prior
from acn_lightning.networks.shapes import Shape
from acn_lightning.optimization import ConstantSchedule, OptimizerFactory, Schedule
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.distributed import gather, of_this_rank, world_size
from acn_lightning.utils.errors import UsageError, check_range

COSTS = ("rate", "distortion", "total")
"""Costs averaged over the images of an epoch, a validation and a test."""


class ACN(LightningModule):
    """Associative Compression Network (arXiv 1804.02476).

    With a prior that ignores the neighbour's code, it is a VAE; nothing else changes.

    Logs costs in nats per image: `train/rate`, `train/distortion` and `train/total`, and the same
    of `val` and `test`. Held-out costs are means over all K neighbours among the training codes,
    with z sampled. `val/knn_accuracy` is the accuracy of a vote of these neighbours, a fraction of
    the images that have a label and a neighbour with one, if there are any.

    Args:
        encoder: maps images (B, C, H, W) to q(z|x).
        shape: maps the encoder's means (B, D) to codes (B, D).
        prior: maps codes (..., D) to p(z|c).
        decoder: maps codes (B, D) to r(x|z).
        bank: stored posterior means of the training images.
        index: finds the nearest of them. The callback `RefreshNeighbours` rebuilds it.
        classes: number of classes; below 2, no KNN accuracy is measured.
        optimizer: optimiser of all parts; None is Adam.
        schedule: schedule of the learning rate; None keeps it constant.
        rate_weight: weight of the rate in the loss (the beta of Higgins et al., ICLR 2017). Where
            pixels cost a thousand nats, the few nats of a code hardly count; a larger weight pulls
            the codes of neighbours together. Logged costs are never weighted.
        warmup_epochs: number of epochs over which that weight grows from 0 (Bowman et al., arXiv
            1511.06349), a remedy for empty codes in VAEs.
        free_nats: rate in nats per image below which the rate costs nothing in the loss ("free
            bits", Kingma et al., arXiv 1606.04934, with the whole code as one group); another
            remedy for empty codes.

    Attributes:
        pretrained: names of the parameters whose initial values came from elsewhere. A run's
            checkpoints store them too.
        step_costs: `costs` as training steps compute them, compiled once `compile` was called.

    Class attributes:
        load: `acn_lightning.load`, set once `acn_lightning.ACN` has been imported.

    Raises:
        UsageError: an option is out of range; a loader's batches are not of the type `Batch`; when
            fitting, the callback `RefreshNeighbours` is missing, or a cosine schedule has no last
            step.
    """

    load: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        encoder: Encoder,
        shape: Shape,
        prior: Prior,
        decoder: Decoder,
        bank: CodeBank,
        index: NeighbourIndex,
        classes: int,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        *,
        rate_weight: float = 1.0,
        warmup_epochs: float = 0.0,
        free_nats: float = 0.0,
    ) -> None:
        super().__init__()
        check_range("model.rate_weight", rate_weight, 0, 1e9)
        check_range("model.warmup_epochs", warmup_epochs, 0, 1e9)
        check_range("model.free_nats", free_nats, 0, 1e9)
        self.encoder, self.shape = encoder, shape
        self.prior, self.decoder = prior, decoder
        self.bank, self.index = bank, index
        self.optimizer = optimizer or OptimizerFactory()
        self.schedule = schedule or ConstantSchedule()
        self.rate_weight, self.warmup_epochs = rate_weight, warmup_epochs
        self.free_nats = free_nats
        self.classes = classes
        self.pretrained = [f"encoder.{name}" for name in encoder.pretrained]
        self.step_costs: Callable[..., tuple[Tensor, Tensor, Tensor]] = self.costs
        # Metrics, not Lightning's own means: a checkpoint within an epoch holds them, and
        # Lightning's have rounding errors if ranks have different numbers of images. They do not
        # check for NaN, because the host would wait for the device.
        self.means = nn.ModuleDict(
            {
                f"{part}/{name}": MeanMetric(nan_strategy="disable")
                for part, name in product(("train", "val", "test"), COSTS)
            }
        )
        self.logged = False  # whether the epoch's log knows the means of "train"
        self.last_cost = torch.zeros(())  # of the last step, for a progress bar
        self.posterior_samples = 1  # per test image; `MeasureTest` sets it
        if classes > 1:
            self.knn_accuracy = MeanMetric(nan_strategy="disable")

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Lightning's way to load a module, which cannot know the networks that it had.

        Raises:
            UsageError: always; it names the way that works.
        """
        raise UsageError(
            "load_from_checkpoint cannot rebuild the networks of an ACN: use "
            "acn_lightning.load(PATH), whose attribute `module` is the ACN."
        )

    def setup(self, stage: str) -> None:
        self.bank.to(self.device)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Distribution:
        """The posterior q(z|x). Its mean is the code, which depends on that image only."""
        return unit_normal(self.shape(self.encoder(image).mean))

    def on_fit_start(self) -> None:
        # Checked here because minutes of set-up may pass before the first step.
        callbacks = getattr(self.trainer, "callbacks", [])
        if not any(getattr(one, "refreshes_neighbours", False) for one in callbacks):
            raise UsageError(
                "Nothing would refresh the neighbours. Give the Trainer the callback "
                "acn_lightning.callbacks.RefreshNeighbours()."
            )

    def on_train_start(self) -> None:
        self.logged = False  # an epoch resumed midway has no start hook

    def on_train_epoch_start(self) -> None:
        self.logged = False

    def costs(
        self,
        image: Float[Tensor, "batch channel height width"],
        code: Float[Tensor, "batch code"],
        view: Float[Tensor, "batch channel height width"] | None = None,
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, "batch code"]]:
        """(rate, distortion, posterior mean) of each image in a training step, given a neighbour's
        code. The encoder sees `view`, or the image itself if that is None."""
        mean = self.encoder(image if view is None else view).mean
        posterior = unit_normal(self.shape.of_batch(mean))
        z = posterior.rsample()
        rate = objective.rate(posterior, self.prior(code), z)
        return rate, objective.distortion(self.decoder(z), image), posterior.mean

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the costs of a training step, as one graph from images to nats; with a white
        shape and several processes as two, as torch does not compile the sum over processes. Other
        steps stay uncompiled. Weights keep their names, so checkpoints load with and without
        compilation.

        Args:
            args, kwargs: arguments of `torch.compile`.
        """
        # Uses the same random numbers as without compilation, so a loss differs by rounding only.
        kwargs.setdefault("options", {"fallback_random": True})
        self.step_costs = torch.compile(self.costs, *args, **kwargs)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        rates, distortions, mean = self.step_costs(
            batch.image, self.bank.draw(batch.index), batch.view
        )
        rate, distortion = rates.mean(), distortions.mean()
        self.bank.write(batch.index, mean)
        self._add_costs("train", rates.detach(), distortions.detach())
        self.last_cost = (rate + distortion).detach()
        if not self.logged:  # Lightning computes the means when the epoch ends
            self._log_costs("train")
            self.logged = True
        if self.free_nats:  # otherwise a negative estimate counts as it is
            rate = rate.clamp(min=self.free_nats)
        return self.weight_of_rate(batch_idx) * rate + distortion + self.shape.penalty(mean)

    def weight_of_rate(self, batch_idx: int) -> float:
        """The weight of the rate in the loss at this point of training."""
        if not self.warmup_epochs:
            return self.rate_weight
        epochs = self.current_epoch + batch_idx / self.trainer.num_training_batches
        return self.rate_weight * min(1.0, epochs / self.warmup_epochs)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "test", self.posterior_samples)._asdict()

    def _evaluate(self, batch: Batch, part: str, samples: int = 1) -> Encoded:
        posterior = self(batch.image)
        rows = self.index.search(posterior.mean)
        # Neighbours first, (K, B, D): the batch of posteriors then broadcasts over the K.
        priors = self.prior(self.bank.codes[rows.T])
        z = posterior.sample((samples,))
        rates = torch.stack([objective.rate(posterior, priors, one) for one in z])
        each = [objective.distortion(self.decoder(one), batch.image) for one in z]
        distortion = torch.stack(each).mean(0)
        self._add_costs(part, rates.flatten(0, -2).mean(0), distortion)
        self._log_costs(part)
        if self.classes > 1 and part == "val":  # a test measures what codes are good for apart
            voted = knn_vote(self.bank.labels[rows], self.classes)
            right = (voted == batch.label)[(batch.label >= 0) & (voted >= 0)]
            self.knn_accuracy.update(right.float())
        return Encoded(batch.index, posterior.mean, z, distortion)

    def on_validation_epoch_end(self) -> None:
        # The mean is of all ranks, which so agree on whether any image counts.
        if self.classes < 2:
            return
        if self.knn_accuracy.compute().isnan():
            self.knn_accuracy.reset()
        else:
            self.log("val/knn_accuracy", self.knn_accuracy)

    def _add_costs(
        self, part: str, rate: Float[Tensor, " batch"], distortion: Float[Tensor, " batch"]
    ) -> None:
        for name, costs in zip(COSTS, (rate, distortion, rate + distortion), strict=True):
            self._mean(part, name).update(costs)  # per image: without NaN checks, no weights

    def _log_costs(self, part: str) -> None:
        for name in COSTS:
            shown, mean = part != "train" and name == "total", self._mean(part, name)
            self.log(f"{part}/{name}", mean, on_step=False, on_epoch=True, prog_bar=shown)

    def _mean(self, part: str, name: str) -> MeanMetric:
        return cast(MeanMetric, self.means[f"{part}/{name}"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # Not in the checkpoint: a run resumed with more epochs decays over its new length.
        self.steps = math.inf
        if self.schedule.needs_end:
            self.steps = float(self.trainer.estimated_stepping_batches)
            if math.isinf(self.steps):
                raise UsageError("schedule.kind: this one needs an end. Set trainer.max_epochs.")
        # Lightning does not clip gradients in 16 bits with a fused optimiser.
        return self.optimizer.make(self.parameters(), fused=not self.trainer.gradient_clip_val)

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        check_batch(batch)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        check_batch(batch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        check_batch(batch)
        # Computed from the step and the group's factor: torch's schedulers do not support a factor
        # that changes while they decay the rate.
        fraction = self.schedule(self._step(batch_idx), self.steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.optimizer.learning_rate * fraction * group.get("factor", 1.0)

    def _step(self, batch_idx: int) -> int:
        """The number of the step, from 0. Where epochs end the run, each counts as many as it has
        now: a run that resumed may have had other steps, as with another number of processes."""
        trainer = self.trainer
        if math.isinf(self.steps) or self.steps == trainer.max_steps:
            return trainer.global_step
        together = trainer.accumulate_grad_batches
        per_epoch = math.ceil(trainer.num_training_batches / together)
        return trainer.current_epoch * per_epoch + batch_idx // together

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["code_bank"] = self.bank.state_dict()
        checkpoint["pretrained"] = self.pretrained
        means = [self._mean("train", name) for name in COSTS]
        sums = [value for mean in means for value in (mean.mean_value, mean.weight)]
        # Before an epoch's first batch and after its last, any world size can resume.
        within = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready > 0
        whole = self.trainer.is_last_batch or not within
        everyones = [] if whole else gather(torch.stack(sums))
        checkpoint["epoch_costs"] = [one.cpu() for one in everyones]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.bank.load_state_dict(checkpoint["code_bank"])
        self.pretrained = checkpoint.get("pretrained", [])
        everyones = checkpoint.get("epoch_costs", [])
        if len(everyones) == world_size():  # else training cannot resume within the epoch
            sums = of_this_rank(everyones).to(self.device)
            for name, (mean_value, weight) in zip(COSTS, sums.view(-1, 2), strict=True):
                mean = self._mean("train", name)
                mean.mean_value, mean.weight = mean_value.clone(), weight.clone()


def check_batch(batch: Any) -> None:
    """Checks that a loader's batches are what an ACN takes.

    Raises:
        UsageError: they are not.
    """
    if not isinstance(batch, Batch):
        raise UsageError(
            "An ACN takes batches of acn_lightning.data.Batch(index, image, label), not "
            f"{type(batch).__name__}: train with acn_lightning.fit(images, labels), or give the "
            "Trainer an acn_lightning.ImageData."
        )
