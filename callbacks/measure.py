"""The paper's tables, after a test."""

import math
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from acn_lightning.callbacks.parts import acn_of, data_of
from acn_lightning.data import ImageData
from acn_lightning.evaluation.classifiers import (
    RETRIEVED,
    Labelled,
    measure,
    principal_components,
    similarity,
)
from acn_lightning.evaluation.costs import Coded, bits_per_dim, bounds, order_nats
from acn_lightning.evaluation.tours import greedy_tour, import_solver, shortened_tour
from acn_lightning.module import ACN
from acn_lightning.utils.distributed import gather
from acn_lightning.utils.errors import TrainingError, UsageError, check_choice


class MeasureTest(Callback):
    """Gathers the test images' codes from all processes and computes `bounds` and, of codes and of
    what they compete with, `probes.measure`.

    Logs each as `test/<name>`, bits per dimension as `test/<name>_bits_per_dim`.

    Args:
        posterior_samples: z drawn for each test image; costs are means over them.
        unconditional_codes: terms of the unconditional cost's sum for each image: more take longer
            and lower the bound.
        tour_seconds: of search for a tour shorter than the greedy one, by a solver (`pip install
            acn-lightning[tour]`); the cheaper of the two counts. 0 for the greedy one alone.
        linear: what to fit classifiers and clusters on: "all", which is codes, principal components
            of the pixels and pixels; "codes", without the others, which know nothing of the model;
            or "none". On a million images they take hours and all memory.

    Attributes:
        figures: {"costs": ..., "accuracies": the paper's, "representations": what `probes.measure`
            says of "codes", "pca" and "pixels", "images": how many were tested}, the same in all
            processes. None stands where there are no labels, or it was not asked for.

    Raises:
        UsageError: an option is out of range, or the solver is not installed.
        TrainingError: on testing, a cost is no number.
    """

    def __init__(
        self,
        *,
        posterior_samples: int = 1,
        unconditional_codes: int = 1024,
        tour_seconds: float = 0.0,
        linear: str = "all",
    ) -> None:
        for name, value, least in [
            ("posterior_samples", posterior_samples, 1),
            ("unconditional_codes", unconditional_codes, 1),
            ("tour_seconds", tour_seconds, 0),
        ]:
            if not least <= value < 1e9:
                raise UsageError(f"evaluation.{name}: {value} is not from {least} to 1e9.")
        check_choice("evaluation.linear", linear, ("all", "codes", "none"))
        if tour_seconds:
            import_solver()  # now, and not after a day of training
        self.posterior_samples, self.unconditional_codes = posterior_samples, unconditional_codes
        self.tour_seconds, self.linear = tour_seconds, linear
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
        coded, failure = together(self.coded), None
        try:
            figures = self._measure(coded, module, data) if trainer.is_global_zero else {}
        except Exception as error:  # first to the others: they wait to be told
            figures, failure = {}, error
        self.figures = trainer.strategy.broadcast(figures)
        if failure or not self.figures:
            raise failure or TrainingError("The first process could not evaluate the test images.")
        dims = math.prod(data.image_shape)
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
        freedom = order_nats(data.test_set.images[coded.index.cpu()])
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
        self, coded: Coded, module: ACN, data: ImageData
    ) -> dict[str, dict[str, Any] | None]:
        """What `probes.measure` says of the codes, of as many principal components of the pixels as
        a code has numbers, and of the pixels; None for what was not asked for."""
        found: dict[str, dict[str, Any] | None] = dict.fromkeys(("codes", "pca", "pixels"))
        classes = len(data.classes)
        if classes < 2:
            return found
        tested = coded.index.cpu()
        labels = data.test_set.labels[tested]
        rows = module.index.search(coded.mean, k=RETRIEVED)
        codes = (
            Labelled(module.bank.codes.cpu().numpy(), data.labels.numpy()),
            Labelled(coded.mean.cpu().numpy(), labels.numpy()),
        )
        near = module.bank.labels[rows].cpu().numpy()
        if self.linear == "none":
            return found | {"codes": similarity(near, labels.numpy(), classes)}
        found["codes"] = measure(*codes, classes, near)
        if self.linear == "all":
            pixels = (
                Labelled(data.fixed_set.images.flatten(1).numpy(), data.labels.numpy()),
                Labelled(data.test_set.images[tested].flatten(1).numpy(), labels.numpy()),
            )
            reduced = principal_components(*pixels, module.bank.codes.shape[1])
            found["pca"] = measure(*reduced, classes)
            found["pixels"] = measure(*pixels, classes)
        return found


def accuracies(representations: dict[str, dict[str, Any] | None]) -> dict[str, float | None]:
    """The paper's table: `linear`, `knn` of the codes, `linear_pca` and `linear_pixels`."""
    codes, pca, pixels = (representations[name] or {} for name in ("codes", "pca", "pixels"))
    return {
        "linear": codes.get("linear"),
        "knn": codes.get("knn"),
        "linear_pca": pca.get("linear"),
        "linear_pixels": pixels.get("linear"),
    }


def together(parts: list[Coded]) -> Coded:
    """All test images of all processes, in the order of the test set."""
    along = {"index": 0, "mean": 0, "z": 1, "distortion": 0}
    whole = {
        name: torch.cat(gather(torch.cat([getattr(part, name) for part in parts], dim)), dim)
        for name, dim in along.items()
    }
    order = whole["index"].argsort()
    return Coded(**{name: part.index_select(along[name], order) for name, part in whole.items()})
