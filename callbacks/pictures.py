"""Pictures of what a model does, as PNG files and for loggers that take images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image
from torch import Tensor

from acn_lightning.callbacks.typed import acn_of, as_it_is, data_of
from acn_lightning.data import ImageData, IndexedImages
from acn_lightning.data.subsets import spread, stratified
from acn_lightning.inference.embedding import encode
from acn_lightning.inference.pictures import grid, pixels_of, scatter
from acn_lightning.inference.projection import project
from acn_lightning.module import ACN
from acn_lightning.networks.layers import eval_mode
from acn_lightning.retrieval.exact import distances_to
from acn_lightning.utils.errors import check_range
from acn_lightning.utils.files import replacing
from acn_lightning.utils.progress import doing

VIEWS = 8
"""Number of transformed copies drawn of an image."""


class DrawPictures(Callback):
    """Draws pictures as PNG files in a folder, and for each logger that takes images.

    - `reconstructions`: held-out images above; below each, the decoder's image for a sample of
      its posterior;
    - `neighbours`: a row for each held-out image, with its K nearest stored neighbours. W&B also
      gets a table, `queries`, that can be sorted by class, mean distance or agreement;
    - `samples`: samples of the model, without an input image;
    - `augmented`: when training starts, a row for each of some training images, with transformed
      copies as the encoder sees them; none with `data.augment=none`;
    - `projection`: a map of codes, coloured by class. During training it shows the first two
      principal components of the stored codes, after the test t-SNE of the test images' codes.

    Args:
        folder: folder for the PNG files.
        every_n_epochs: number of epochs between drawings during training; 0 for never. After a test
            they are always drawn.
        images: number of held-out images, spread evenly over all: files are in the order of their
            classes.
        samples: number of samples; 0 for none.
        points: largest number of points in the projection; 0 for no projection.
        noise: whether to draw each pixel of a decoder's image even if pixels are independent given
            the code; otherwise their means are shown. An autoregressive decoder always draws them.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_n_epochs: int = 5,
        images: int = 10,
        samples: int = 32,
        points: int = 2000,
        noise: bool = False,
    ) -> None:
        check_range("pictures.every_n_epochs", every_n_epochs, 0, 10**9)
        check_range("pictures.images", images, 1, 1000)
        check_range("pictures.samples", samples, 0, 10_000)
        check_range("pictures.points", points, 0, 100_000)
        self.folder, self.every_n_epochs, self.images = folder, every_n_epochs, images
        self.samples, self.points, self.noise = samples, points, noise

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = data_of(trainer)
        shown = spread(len(data.train_set), self.images)
        stored = data.train_set.__getitems__(shown).image
        with isolate_rng():
            views = [data.transformed(stored / 255) for _ in range(VIEWS)]
        drawn = [view for view in views if view is not None]
        if drawn:
            picture = grid(torch.stack([stored / 255, *drawn], dim=1), apart=1)
            self._publish(trainer, "augmented", picture)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            data = data_of(trainer)
            held_out = data.validation_set if len(data.validation_set) else data.test_set
            self._draw(trainer, acn_of(pl_module), held_out, "pca")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with doing("drawing pictures"):
            self._draw(trainer, acn_of(pl_module), data_of(trainer).test_set, "tsne")

    @rank_zero_only
    @torch.no_grad()
    def _draw(self, trainer: Trainer, module: ACN, images: IndexedImages, how: str) -> None:
        data = data_of(trainer)
        shown = spread(len(images), self.images)
        # Drawing must not change the random numbers of training.
        with isolate_rng(), eval_mode(module), trainer.precision_plugin.forward_context():
            batch = as_it_is(trainer, images.__getitems__(shown))
            posterior = module(batch.image)
            decoded = pixels_of(module.decoder(posterior.sample()), self.noise)
            if self.samples:
                codes = module.bank.codes[module.bank.rows]
                z = module.prior.marginal(codes, nearest=1).sample((self.samples,))
                drawn = pixels_of(module.decoder(z), self.noise).cpu()
        originals = batch.image.cpu()
        rows = module.index.search(posterior.mean)
        stored = data.fixed_set.images[rows.cpu()] / 255
        self._publish(trainer, "reconstructions", grid(torch.stack([originals, decoded.cpu()])))
        neighbours = grid(torch.cat([originals[:, None], stored], dim=1), apart=1)
        self._publish(trainer, "neighbours", neighbours)
        distances = distances_to(posterior.mean, module.bank.codes, rows).cpu()
        queries = (originals, batch.label.cpu(), stored, data.labels[rows.cpu()], distances)
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                logger.log_table("queries", **queries_table(*queries, data.classes))
        if self.samples:
            columns = min(8, self.samples)
            whole = drawn[: self.samples // columns * columns].unflatten(0, (-1, columns))
            self._publish(trainer, "samples", grid(whole))
        if self.points:
            self._publish(trainer, "projection", self._project(module, data, how))

    def _project(self, module: ACN, data: ImageData, how: str) -> Image.Image:
        if how == "tsne":
            labels = data.test_set.labels
            chosen = stratified(labels, self.points)
            codes = encode(module, data.test_set.images[chosen])
        else:
            labels = data.labels[data.rows]
            chosen = stratified(labels, self.points)
            codes = module.bank.codes[data.rows[chosen].to(module.bank.codes.device)].cpu()
        return scatter(project(codes, how), labels[chosen].tolist(), data.classes)

    def _publish(self, trainer: Trainer, name: str, picture: Image.Image) -> None:
        with replacing(self.folder / f"{name}.png") as beside:
            picture.save(beside, "PNG")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(f"images/{name}", [picture], step=trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                pixels = np.asarray(picture.convert("RGB"))
                logger.experiment.add_image(
                    f"images/{name}", pixels, trainer.global_step, dataformats="HWC"
                )


def queries_table(
    queries: Tensor,
    labels: Tensor,
    stored: Tensor,
    near: Tensor,
    distances: Tensor,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Columns and rows of W&B's table of queries; each query's neighbours are nearest first."""
    import wandb

    def name(label: int) -> str:
        return classes[label] if label >= 0 else ""

    rows = [
        [
            wandb.Image(grid(query[None, None])),
            name(int(label)),
            wandb.Image(grid(images[None])),
            ", ".join(filter(None, map(name, theirs.tolist()))),
            float((theirs == label).double().mean()) if label >= 0 else None,
            float(far.mean()),
        ]
        for query, label, images, theirs, far in zip(
            queries, labels, stored, near, distances, strict=True
        )
    ]
    columns = ["query", "class", "neighbours", "their classes", "agreement", "mean distance"]
    return {"columns": columns, "data": rows}
