"""Reconstructions and neighbours, as PNG in the run folder and in whatever logger takes images."""

from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image

from acn_lightning.callbacks.parts import acn_of, data_of
from acn_lightning.data import IndexedImages
from acn_lightning.errors import UsageError
from acn_lightning.module import ACN
from acn_lightning.pictures import expected, grid


class DrawPictures(Callback):
    """Draws `reconstructions.png` (held-out images above, what the decoder makes of a sampled code
    of each below) and `neighbours.png` (a held-out image and its K nearest stored neighbours a
    row).

    Args:
        folder: where to.
        every_n_epochs: how often while training; 0 for never. After a test they are drawn always.
        images: how many held-out images.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(self, folder: Path, *, every_n_epochs: int = 5, images: int = 10) -> None:
        if every_n_epochs < 0:
            raise UsageError(f"pictures.every_n_epochs: {every_n_epochs} is below 0.")
        if images < 1:
            raise UsageError(f"pictures.images: {images} is below 1.")
        self.folder, self.every_n_epochs, self.images = folder, every_n_epochs, images

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            data = data_of(trainer)
            held_out = data.validation_set if len(data.validation_set) else data.test_set
            self._draw(trainer, acn_of(pl_module), held_out)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, acn_of(pl_module), data_of(trainer).test_set)

    @rank_zero_only
    @torch.no_grad()
    def _draw(self, trainer: Trainer, module: ACN, images: IndexedImages) -> None:
        shown = range(min(self.images, len(images)))
        # A picture must not change what training draws next.
        with isolate_rng(), trainer.precision_plugin.forward_context():
            batch = trainer.strategy.batch_to_device(images.__getitems__(shown))
            posterior = module(batch.image)
            decoded = expected(module.decoder(posterior.sample()))
        originals = batch.image.cpu()
        rows = module.index.search(posterior.mean).cpu()
        stored = data_of(trainer).fixed_set.images[rows] / 255
        self._publish(trainer, "reconstructions", grid(torch.stack([originals, decoded.cpu()])))
        neighbours = grid(torch.cat([originals[:, None], stored], dim=1), apart=1)
        self._publish(trainer, "neighbours", neighbours)

    def _publish(self, trainer: Trainer, name: str, picture: Image.Image) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        picture.save(self.folder / f"{name}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(f"images/{name}", [picture], step=trainer.global_step)
