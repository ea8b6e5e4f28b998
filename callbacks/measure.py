"""Computes the paper's tables after a test."""

import math
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from acn_lightning.callbacks.typed import acn_of, data_of
from acn_lightning.data import ImageData
from acn_lightning.evaluation.classifiers import (
    RETRIEVED,
    Labelled,
    measure,
    neighbour_labels,
    principal_components,
    similarity,
)
from acn_lightning.evaluation.costs import Encoded, bits_per_dim, bounds, order_nats
from acn_lightning.evaluation.tours import greedy_tour, import_solver, shortened_tour
from acn_lightning.module import ACN
from acn_lightning.utils.distributed import gather, waiting_for_first
from acn_lightning.utils.errors import InterruptionError, TrainingError, check_choice, check_range
from acn_lightning.utils.progress import doing, progress_bar

LOGGED = {
    "knn": "knn_accuracy",
    "linear": "linear_accuracy",
    "linear_pca": "linear_accuracy_pca",
    "linear_pixels": "linear_accuracy_pixels",
}
"""Names under which accuracies are logged, where they differ."""

KNOWN = ("reconstruction",)
"""What the module logs, as `test/distortion`."""


class MeasureTest(Callback):
    """Gathers the test images' codes from all ranks and computes their costs (`bounds`). Measures
    codes, and the representations that they compete with, by `classifiers.measure`.

    Logs costs and accuracies as `test/<name>`, unless the module has logged them, and bits per
    dimension as `test/<name>_bits_per_dim`.

    Args:
        posterior_samples: number of z drawn for each test image; costs are means over them.
        unconditional_codes: number of terms in the unconditional cost's sum for each image. More
            terms take longer and lower the bound.
        tour_seconds: seconds to search for a tour shorter than the greedy one, with a solver
            (`pip install fast-tsp`); the cheaper of the two is used. 0 for the greedy
            tour alone.
        linear: what to fit classifiers and clusters on: "all" for codes, pixels and principal
            components of the pixels; "codes" for codes alone, as the other two do not depend on
            the model; or "none". On a million images the fits take hours and all memory.

    Attributes:
        results: {"costs": ..., "accuracies": the paper's, "representations": the results of
            `classifiers.measure` for "codes", "pca" and "pixels", "images": number of test
            images}, the same on all ranks. A value is None if there are no labels, if the model
            has no codes, or if it was not requested.

    Raises:
        UsageError: an option is out of range, or the solver is not installed.
        TrainingError: when testing, a cost is NaN or infinite.
    """

    def __init__(
        self,
        *,
        posterior_samples: int = 1,
        unconditional_codes: int = 1024,
        tour_seconds: float = 0.0,
        linear: str = "all",
    ) -> None:
        check_range("evaluation.posterior_samples", posterior_samples, 1, 10_000)
        check_range("evaluation.unconditional_codes", unconditional_codes, 1, 10**9)
        check_range("evaluation.tour_seconds", tour_seconds, 0, 10**9)
        check_choice("evaluation.linear", linear, ("all", "codes", "none"))
        if tour_seconds:
            import_solver()  # fail now, not after a day of training
        self.posterior_samples, self.unconditional_codes = posterior_samples, unconditional_codes
        self.tour_seconds, self.linear = tour_seconds, linear
        self.coded: list[Encoded] = []
        self.results: dict[str, Any] = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        acn_of(pl_module).posterior_samples = self.posterior_samples
        self.coded = []
        batches = int(sum(trainer.num_test_batches))
        alone = trainer.progress_bar_callback is None
        self.bar = progress_bar("encoding and decoding the test images", "batch", batches, alone)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.coded.append(Encoded(**outputs))
        self.bar.update()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, data = acn_of(pl_module), data_of(trainer)
        self.bar.close()
        coded = gather_encoded(self.coded)
        results: dict[str, Any] = {}
        failure: BaseException | None = None
        with waiting_for_first():
            try:
                if trainer.is_global_zero:
                    results = self._measure(coded, module, data)
            except (Exception, InterruptionError) as error:
                failure = error  # raised after the broadcast that other ranks wait for
        self.results = trainer.strategy.broadcast(results)
        if failure or not self.results:
            raise failure or TrainingError("Rank 0 could not evaluate the test images.")
        dims = math.prod(data.image_shape)
        figures = self.results["costs"] | {
            LOGGED.get(name, name): value for name, value in self.results["accuracies"].items()
        }
        for name, value in figures.items():
            if value is not None and name not in KNOWN:
                module.log(f"test/{name}", value, rank_zero_only=True)
        for name in ("ordered", "unordered"):
            figure = bits_per_dim(self.results["costs"][name], dims)
            module.log(f"test/{name}_bits_per_dim", figure, rank_zero_only=True)

    def _measure(self, coded: Encoded, module: ACN, data: ImageData) -> dict[str, Any]:
        with doing("ordering the test images into a tour"):
            orders = [greedy_tour(coded.mean)]
            if self.tour_seconds:
                orders.append(shortened_tour(coded.mean, self.tour_seconds))
            freedom = order_nats(data.test_set.images[coded.index.cpu()])
        with doing("measuring the costs of the test images"):
            costs = bounds(
                coded,
                module.prior,
                module.bank,
                module.index,
                self.unconditional_codes,
                orders,
                freedom,
            )
        if not all(map(math.isfinite, costs.values())):
            raise TrainingError("The cost of the test images is NaN or infinite.")
        representations = self._representations(coded, module, data)
        return {
            "costs": costs,
            "accuracies": accuracies(representations),
            "representations": representations,
            "images": len(coded.index),
        }

    def _representations(
        self, coded: Encoded, module: ACN, data: ImageData
    ) -> dict[str, dict[str, Any] | None]:
        """The results of `classifiers.measure` for the codes, for as many principal components of
        the pixels as a code has dimensions, and for the pixels; None if not requested, or if there
        are no labels or no codes."""
        found: dict[str, dict[str, Any] | None] = dict.fromkeys(("codes", "pca", "pixels"))
        classes = len(data.classes)
        tested = coded.index.cpu()
        labels = data.test_set.labels[tested]
        if classes < 2 or (labels < 0).all() or (data.labels[data.rows] < 0).all():
            return found
        trained = data.rows.numpy()  # neighbours are sought among these; validation images apart
        if module.encoder.has_codes:
            found["codes"] = self._of_codes(coded.mean, labels, module, data)
        if self.linear == "all":
            pixels = (
                Labelled(data.fixed_set.images.flatten(1).numpy(), data.labels.numpy()),
                Labelled(data.test_set.images[tested].flatten(1).numpy(), labels.numpy()),
            )
            with doing("fitting classifiers and clusters to principal components"):
                reduced = principal_components(*pixels, module.bank.codes.shape[1])
                near = neighbour_labels(reduced[0].at(trained), reduced[1])
                found["pca"] = measure(*reduced, classes, near)
            with doing("fitting classifiers and clusters to pixels"):
                near = neighbour_labels(pixels[0].at(trained), pixels[1])
                found["pixels"] = measure(*pixels, classes, near)
        return found

    def _of_codes(
        self, codes: Tensor, labels: Tensor, module: ACN, data: ImageData
    ) -> dict[str, Any]:
        """The results of `classifiers.measure` for the test images' codes and labels; without
        classifiers and clusters if these were not requested."""
        known = Labelled(module.bank.codes.cpu().numpy(), data.labels.numpy())
        asked = Labelled(codes.cpu().numpy(), labels.numpy())
        if (data.labels[data.rows] < 0).any():
            near = neighbour_labels(known.at(data.rows.numpy()), asked)
        else:
            rows = module.index.search(codes, k=RETRIEVED)
            near = module.bank.labels[rows].cpu().numpy()
        if self.linear == "none":
            return similarity(known, asked, len(data.classes), near)
        with doing("fitting classifiers and clusters to the codes"):
            return measure(known, asked, len(data.classes), near)


def accuracies(representations: dict[str, dict[str, Any] | None]) -> dict[str, float | None]:
    """The paper's table: `linear`, `knn` of the codes, `linear_pca` and `linear_pixels`."""
    codes, pca, pixels = (representations[name] or {} for name in ("codes", "pca", "pixels"))
    return {
        "linear": codes.get("linear"),
        "knn": codes.get("knn"),
        "linear_pca": pca.get("linear"),
        "linear_pixels": pixels.get("linear"),
    }


def gather_encoded(parts: list[Encoded]) -> Encoded:
    """The test images of all ranks, in the order of the test set."""
    along = {"index": 0, "mean": 0, "z": 1, "distortion": 0}
    whole = {
        name: torch.cat(gather(torch.cat([getattr(part, name) for part in parts], dim)), dim)
        for name, dim in along.items()
    }
    order = whole["index"].argsort()
    return Encoded(**{name: part.index_select(along[name], order) for name, part in whole.items()})
