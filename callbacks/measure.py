"""The paper's tables, after a test."""

from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from acn_lightning.callbacks.parts import acn_of, data_of
from acn_lightning.data import ImageData
from acn_lightning.errors import UsageError
from acn_lightning.evaluation import (
    KNN,
    Coded,
    Labelled,
    accuracies,
    bits_per_dim,
    bounds,
    knn_vote,
)
from acn_lightning.module import ACN
from acn_lightning.processes import gather
from acn_lightning.tours import greedy_tour, shortened_tour


class MeasureTest(Callback):
    """Gathers the test images' codes from all processes and computes `bounds` and `accuracies`.

    Logs each as `test/<name>`, bits per dimension as `test/<name>_bits_per_dim`.

    Args:
        posterior_samples: z drawn for each test image; costs are means over them.
        unconditional_codes: terms of the unconditional cost's sum for each image: more take longer
            and lower the bound.
        tour_seconds: of search for a tour shorter than the greedy one, by a solver (`pip install
            acn-lightning[tour]`); the cheaper of the two counts. 0 for the greedy one alone.
        pixels: whether to fit the classifiers on pixels too, which know nothing of the model; on
            a million images they take hours and all memory.

    Attributes:
        figures: {"costs": ..., "accuracies": ..., "images": how many were tested}, in the process
            of rank 0; accuracies are None where there are no labels.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        *,
        posterior_samples: int = 1,
        unconditional_codes: int = 1024,
        tour_seconds: float = 0.0,
        pixels: bool = True,
    ) -> None:
        for name, value, least in [
            ("posterior_samples", posterior_samples, 1),
            ("unconditional_codes", unconditional_codes, 1),
            ("tour_seconds", tour_seconds, 0),
        ]:
            if not value >= least:
                raise UsageError(f"evaluation.{name}: {value} is below {least}.")
        self.posterior_samples, self.unconditional_codes = posterior_samples, unconditional_codes
        self.tour_seconds, self.pixels = tour_seconds, pixels
        self.coded: list[Coded] = []
        self.figures: dict[str, Any] = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        acn_of(pl_module).posterior_samples = self.posterior_samples
        self.coded = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.coded.append(Coded(**outputs))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, data = acn_of(pl_module), data_of(trainer)
        coded = together(self.coded)
        if trainer.is_global_zero:
            self.figures = self._measure(coded, module, data)
        # The others wait here, and know the same afterwards.
        self.figures = trainer.strategy.broadcast(self.figures)
        dims = int(np.prod(data.image_shape))
        for name, value in {**self.figures["costs"], **self.figures["accuracies"]}.items():
            if value is not None:
                module.log(f"test/{name}", value, rank_zero_only=True)
        for name in ("ordered", "unordered"):
            figure = bits_per_dim(self.figures["costs"][name], dims)
            module.log(f"test/{name}_bits_per_dim", figure, rank_zero_only=True)

    def _measure(self, coded: Coded, module: ACN, data: ImageData) -> dict[str, Any]:
        orders = [greedy_tour(coded.mean)]
        if self.tour_seconds:
            orders.append(shortened_tour(coded.mean, self.tour_seconds))
        costs = bounds(
            coded, module.prior, module.bank, module.index, self.unconditional_codes, orders
        )
        return {
            "costs": costs,
            "accuracies": self._accuracies(coded, module, data),
            "images": len(coded.index),
        }

    def _accuracies(self, coded: Coded, module: ACN, data: ImageData) -> dict[str, float | None]:
        if len(data.classes) < 2:
            return dict.fromkeys(("linear", "knn", "linear_pca", "linear_pixels"))
        tested = coded.index.cpu()
        labels = data.test_set.labels[tested]
        codes = (
            Labelled(module.bank.codes.cpu().numpy(), data.labels.numpy()),
            Labelled(coded.mean.cpu().numpy(), labels.numpy()),
        )
        pixels = (
            Labelled(flat(data.fixed_set.images), data.labels.numpy()),
            Labelled(flat(data.test_set.images[tested]), labels.numpy()),
        )
        rows = module.index.search(coded.mean, k=KNN)
        vote = knn_vote(module.bank.labels[rows], len(data.classes)).cpu()
        knn = float((vote == labels).float().mean())
        return accuracies(codes, pixels if self.pixels else None) | {"knn": knn}


def flat(images: Tensor) -> np.ndarray:
    """Images of bytes (N, C, H, W) as rows of numbers from 0 to 1."""
    rows: np.ndarray = images.flatten(1).float().div(255).numpy()
    return rows


def together(parts: list[Coded]) -> Coded:
    """All test images of all processes, in the order of the test set."""
    along = {"index": 0, "mean": 0, "z": 1, "distortion": 0}
    whole = {
        name: torch.cat(gather(torch.cat([getattr(part, name) for part in parts], dim)), dim)
        for name, dim in along.items()
    }
    order = whole["index"].argsort()
    return Coded(**{name: part.index_select(along[name], order) for name, part in whole.items()})
