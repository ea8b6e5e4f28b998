"""The LightningModule: how the parts of an ACN are wired."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributions import Distribution
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from acn_lightning import objective
from acn_lightning.data import Batch
from acn_lightning.data.convert import as_images
from acn_lightning.data.dataset import binarise_alike
from acn_lightning.evaluation.classifiers import knn_vote
from acn_lightning.evaluation.costs import Coded
from acn_lightning.networks.component import evaluating
from acn_lightning.networks.decoders import Decoder
from acn_lightning.networks.encoders import Encoder, unit_normal
from acn_lightning.networks.priors import Prior
from acn_lightning.networks.shapes import Shape
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.exact import distances_to
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.distributed import count, gather, own
from acn_lightning.utils.errors import UsageError, check_choice
from acn_lightning.utils.progress import bar

COSTS = ("rate", "distortion", "total")
"""What is averaged over the images of an epoch, a validation and a test."""

Array = TypeVar("Array", np.ndarray, Tensor)


class Neighbours(NamedTuple):
    """Stored codes near to some others, nearest first; NumPy arrays or tensors.

    Attributes:
        rows: of the training images, (N, K).
        distances: Euclidean, between codes, (N, K).
        labels: of the training images, (N, K); -1 where there are none.
    """

    rows: Any
    distances: Any
    labels: Any


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
        schedule: "constant", or "cosine": down to 0 over the steps of the run along half a cosine
            (Loshchilov and Hutter, arXiv 1608.03983).
        rate_weight: of the rate in the loss (the beta of Higgins et al., ICLR 2017). Where pixels
            cost a thousand nats, the few of a code hardly count: a larger weight draws the codes
            of neighbours together. What is logged is never weighted.
        warmup_epochs: over these that weight grows from 0 (Bowman et al., arXiv 1511.06349), a
            means of VAEs against empty codes.
        free_nats: a rate below this many nats per image costs nothing in the loss ("free bits",
            Kingma et al., arXiv 1606.04934, with the whole code as one group); another such means.

    Attributes:
        pretrained: names of the parameters that began with values from elsewhere. A run's
            checkpoints know them as well.

    Raises:
        UsageError: an option is out of range; when fitting, the callback `RefreshNeighbours` is
            missing, or a cosine has no end to go to.
    """

    def __init__(
        self,
        encoder: Encoder,
        shape: Shape,
        prior: Prior,
        decoder: Decoder,
        bank: CodeBank,
        index: NeighbourIndex,
        classes: int,
        *,
        learning_rate: float = 1e-3,
        schedule: str = "constant",
        rate_weight: float = 1.0,
        warmup_epochs: float = 0.0,
        free_nats: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("model.schedule", schedule, ("constant", "cosine"))
        for name, value in [
            ("rate_weight", rate_weight),
            ("warmup_epochs", warmup_epochs),
            ("free_nats", free_nats),
        ]:
            if not 0 <= value < math.inf:
                raise UsageError(f"model.{name}: {value} is not from 0 on.")
        if not 0 < learning_rate < 1e30:  # Adam's step has to be a float32
            raise UsageError(f"model.learning_rate: {learning_rate} is not above 0 and below 1e30.")
        self.encoder, self.shape = encoder, shape
        self.prior, self.decoder = prior, decoder
        self.bank, self.index, self.learning_rate = bank, index, learning_rate
        self.schedule, self.rate_weight = schedule, rate_weight
        self.warmup_epochs, self.free_nats = warmup_epochs, free_nats
        self.classes = classes
        self.pretrained = [f"encoder.{name}" for name in encoder.pretrained]
        self._costs: Callable[..., tuple[Tensor, Tensor, Tensor]] = self.costs
        # Metrics, not means that Lightning keeps: a checkpoint within an epoch has them, and
        # Lightning's are wrong by rounding where processes have unlike numbers of images. They do
        # not look for NaN, as the host would wait for the device.
        self.means = nn.ModuleDict(
            {
                f"{part}/{name}": MeanMetric(nan_strategy="disable")
                for part, name in product(("train", "val", "test"), COSTS)
            }
        )
        self.posterior_samples = 1  # z for each test image; `MeasureTest` sets it
        if classes > 1:
            self.knn_accuracy = MulticlassAccuracy(self.classes, average="micro")

    def setup(self, stage: str) -> None:
        self.bank.to(self.device)

    # ------------------------------------------------------------ when it has trained

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> "ACN":
        """A trained model, on the CPU, with its code bank and an index of it. The images that it
        was trained on are not needed.

        The bank has each training image's code from the epoch that the checkpoint was saved after.
        Unless it was encoded anew at its end (`refresh.encode`), these and the codes of the same
        images now differ a little.

        Args:
            path: of a checkpoint that `acn fit` wrote.
            overrides: of its config, such as "neighbours.factory=Flat"; or
                "model.encoder.path=...", where its encoder is code outside of this package.

        Raises:
            UsageError: it cannot be read, or is none of this package's.

        Example:
            acn = ACN.load("runs/mnist/RUN/checkpoints/best.ckpt")
            codes = acn.encode(images)
            found = acn.neighbours(images, k=5)
        """
        from acn_lightning.checkpoint import read_checkpoint
        from acn_lightning.experiment.build import restore  # which imports this module

        return restore(read_checkpoint(path), overrides)

    def encode(self, images: Array, batch_size: int = 256) -> Array:
        """The codes of any images: the posterior's means.

        Binarised where the training images were. "static" and "dynamic" draw here with one draw
        for all images, so that equal images have equal codes.

        Args:
            images: (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3; uint8 from 0 to 255 or
                floats from 0 to 1. Another size or number of channels than the training data's is
                converted, with a warning.
            batch_size: of images that the encoder sees at once.

        Returns:
            (N, D) float32: an array where images are an array, else a tensor on their device.

        Raises:
            UsageError: images of another form; or the module was not made from a config.
        """
        known = self.hparams.get("image_shape")
        if known is None:
            raise UsageError(
                "This ACN was put together by hand, and does not know how its images are made: "
                "call it with a batch, acn(images).mean."
            )
        stored = as_images(images, tuple(known))
        config = self.hparams["acn_config"]
        binary = binarise_alike(stored, config["data"]["binarisation"], config["seed"])
        codes = self.encode_stored(binary, batch_size)
        return like(images, codes)

    def encode_stored(
        self,
        images: UInt8[Tensor, "size channel height width"],
        batch_size: int = 256,
        show: bool = False,
    ) -> Float[Tensor, "size code"]:
        """The codes, on the CPU, of images that are in the training data's form already.

        Args:
            show: whether to show progress, if it takes more than some seconds.
        """
        codes = torch.empty(len(images), self.bank.codes.shape[1])
        rows = torch.arange(len(images)).split(batch_size)
        with evaluating(self), bar("encoding", "image", total=len(images), show=show) as shown:
            for some in rows:
                batch = images[some].to(self.device).float() / 255
                codes[some] = self(batch).mean.float().cpu()
                shown.update(len(some))
        return codes

    def neighbours(self, images: Array, k: int | None = None, batch_size: int = 256) -> Neighbours:
        """The training images whose stored codes are nearest to the codes of any images.

        Args:
            images: as for `encode`.
            k: how many; None takes the config's `neighbours.k`.
            batch_size: of images that the encoder sees at once.

        Returns:
            `rows`, `distances` and `labels`, each (N, K), arrays or tensors as the images are. An
            image that was trained on is its own nearest neighbour.

        Raises:
            UsageError: as for `encode`; or there are no K codes.
        """
        codes = torch.as_tensor(self.encode(images, batch_size)).to(self.bank.codes.device)
        rows = self.index.search(codes, k=k)
        found = (rows, distances_to(codes, self.bank.codes, rows), self.bank.labels[rows])
        return Neighbours(*(like(images, one) for one in found))

    # ------------------------------------------------------------ while it trains

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Distribution:
        """The posterior q(z|x); its mean is the code, whatever else is in the batch."""
        return unit_normal(self.shape(self.encoder(image).mean))

    def on_fit_start(self) -> None:
        # Here and not at the first step: minutes of set-up may lie in between.
        callbacks = getattr(self.trainer, "callbacks", [])
        if not any(getattr(one, "refreshes_neighbours", False) for one in callbacks):
            raise UsageError(
                "Nothing would refresh the neighbours: give the Trainer the callback "
                "acn_lightning.callbacks.RefreshNeighbours()."
            )

    def costs(
        self,
        image: Float[Tensor, "batch channel height width"],
        code: Float[Tensor, "batch code"],
        view: Float[Tensor, "batch channel height width"] | None = None,
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, "batch code"]]:
        """(rate, distortion, posterior mean) of each image in a training step, given the code of a
        neighbour, and what the encoder sees where that is not the image."""
        mean = self.encoder(image if view is None else view).mean
        posterior = unit_normal(self.shape.of_batch(mean))
        z = posterior.rsample()
        rate = objective.rate(posterior, self.prior(code), z)
        return rate, objective.distortion(self.decoder(z), image), posterior.mean

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the costs of a training step, in one graph from images to nats; other steps stay
        as they are. The weights keep their names: checkpoints go both ways.

        Args:
            args, kwargs: of `torch.compile`.
        """
        # Random numbers as without compiling, so that it changes a loss by its rounding only.
        kwargs.setdefault("options", {"fallback_random": True})
        self._costs = torch.compile(self.costs, *args, **kwargs)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        rates, distortions, mean = self._costs(batch.image, self.bank.draw(batch.index), batch.view)
        rate, distortion = rates.mean(), distortions.mean()
        self.bank.write(batch.index, mean)
        self._log_costs("train", rates.detach(), distortions.detach())
        self.log("cost", (rate + distortion).detach(), prog_bar=True, logger=False)
        if self.free_nats:  # else a batch's estimate may be negative, and counts as such
            rate = rate.clamp(min=self.free_nats)
        return self.weight_of_rate(batch_idx) * rate + distortion + self.shape.penalty(mean)

    def weight_of_rate(self, batch_idx: int) -> float:
        """The weight of the rate in the loss, by how far training has come."""
        if not self.warmup_epochs:
            return self.rate_weight
        epochs = self.current_epoch + batch_idx / self.trainer.num_training_batches
        return self.rate_weight * min(1.0, epochs / self.warmup_epochs)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "test", self.posterior_samples)._asdict()

    def _evaluate(self, batch: Batch, part: str, samples: int = 1) -> Coded:
        posterior = self(batch.image)
        rows = self.index.search(posterior.mean)
        # Neighbours first, (K, B, D): a batch of posteriors then pairs with each of the K.
        priors = self.prior(self.bank.codes[rows.T])
        z = posterior.sample((samples,))
        rates = torch.stack([objective.rate(posterior, priors, one) for one in z])
        each = [objective.distortion(self.decoder(one), batch.image) for one in z]
        distortion = torch.stack(each).mean(0)
        self._log_costs(part, rates.flatten(0, -2).mean(0), distortion)
        if self.classes > 1:
            self.knn_accuracy(knn_vote(self.bank.labels[rows], self.classes), batch.label)
            self.log(f"{part}/knn_accuracy", self.knn_accuracy)
        return Coded(batch.index, posterior.mean, z, distortion)

    def _log_costs(
        self, part: str, rate: Float[Tensor, " batch"], distortion: Float[Tensor, " batch"]
    ) -> None:
        for name, costs in zip(COSTS, (rate, distortion, rate + distortion), strict=True):
            mean = self._mean(part, name)
            mean.update(costs)  # of each image: this metric would ignore weights
            shown = part != "train" and name == "total"
            self.log(f"{part}/{name}", mean, on_step=False, on_epoch=True, prog_bar=shown)

    def _mean(self, part: str, name: str) -> MeanMetric:
        return cast(MeanMetric, self.means[f"{part}/{name}"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.schedule == "cosine":
            # Not in the checkpoint: a run that is resumed with more epochs takes its time.
            self.steps = self.trainer.estimated_stepping_batches
            if math.isinf(self.steps):
                raise UsageError("model.schedule=cosine needs an end: set trainer.max_epochs.")
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # A function of the step and of what a group of parameters has as its factor. torch's
        # schedulers know no group whose share of the rate changes while they decay it.
        rate = self.learning_rate * self.decay(self.trainer.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group.get("factor", 1.0)

    def decay(self, step: int) -> float:
        """The learning rate of a step of the run, as a part of the first."""
        if self.schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * min(1, step / self.steps))) / 2

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["code_bank"] = self.bank.state_dict()
        checkpoint["pretrained"] = self.pretrained
        means = [self._mean("train", name) for name in COSTS]
        sums = [value for mean in means for value in (mean.mean_value, mean.weight)]
        everyones = [] if self.trainer.is_last_batch else gather(torch.stack(sums))
        checkpoint["epoch_costs"] = [one.cpu() for one in everyones]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.bank.load_state_dict(checkpoint["code_bank"])
        self.pretrained = checkpoint.get("pretrained", [])
        everyones = checkpoint.get("epoch_costs", [])
        if len(everyones) == count():  # else it is not to train on
            sums = own(everyones).to(self.device)
            for name, (mean_value, weight) in zip(COSTS, sums.view(-1, 2), strict=True):
                mean = self._mean("train", name)
                mean.mean_value, mean.weight = mean_value.clone(), weight.clone()


def like(given: Array, tensor: Tensor) -> Array:
    """A tensor as an array where an array was given, else on the device of what was given."""
    if isinstance(given, Tensor):
        return tensor.to(given.device)
    return tensor.cpu().numpy()
