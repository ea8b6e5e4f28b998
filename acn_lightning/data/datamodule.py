"""The LightningDataModule: indexed examples for training, validation and testing."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from acn_lightning.data.augment import Augmentation, transform_sizes
from acn_lightning.data.binarise import BINARISATIONS, binarise, draw_binary
from acn_lightning.data.cache import CACHES, read_source
from acn_lightning.data.dataset import Batch, IndexedImages
from acn_lightning.data.loader import ResumableLoader, ResumableSampler, keep_whole
from acn_lightning.data.report import only_tested
from acn_lightning.data.sources.base import Source, Splits
from acn_lightning.data.storage import PIECE
from acn_lightning.data.subsets import held_out_rows, some_rows
from acn_lightning.utils.errors import UsageError, check_choice, check_range
from acn_lightning.utils.names import joined
from acn_lightning.utils.registry import find_class, make, whose
from acn_lightning.utils.registry import options as keyword_options


class ImageData(LightningDataModule):
    """An image data set in which every example carries (index, image, label).

    An index is the row in the training set, or for test examples in the test set. It stays the same
    however examples are shuffled, split or sharded. Images stay uint8 until they are on their
    device, where they become floats in [0, 1].

    Args:
        seed: of the static draw, the subset and the order of the training examples.
        source: where images come from: "digits" (scikit-learn's, no download), "mnist",
            "fashion_mnist", "cifar10", "celeba", "imagenet", "idx" (any files in MNIST's format),
            "folder" (image files), "npz", "huggingface" (data sets of that form) or "arrays" (given
            to `acn_lightning.fit`); or package.module:Name of a `Source` of your own. In Python,
            also a `Source` object.
        download: whether to download missing files of a published data set.
        binarisation: "none"; "threshold" at half of white; "static", one fixed draw for each
            image; "dynamic", a fresh draw whenever an image is trained on. Held-out images use the
            static draw even with "dynamic", so that results are comparable.
        validation: how many training images to hold out for validation: a fraction below 1 or a
            number of images. 0 for none.
        cache: where decoded images are kept: "memory"; "disk", decoded once into a file that all
            processes map; or "auto", on disk if they would take more than a quarter of the memory.
            Sources that read their arrays whole (mnist, npz, ...) use memory.
        cache_folder: the folder of these files; null for the user's cache folder.
        subset: how many of the training images to use at all, including those held out. The seed
            decides which. null for all.
        batch_size: examples per step and process.
        augment: how to transform, at random, the copy of each image that the encoder sees while
            training: "affine" (rotation, scale, shift, shear: for digits and the like), "colour"
            (crop, mirroring, colour changes, blur: for photographs) or "none". The decoder always
            describes the original image, and results are of original images.
        augment_strength: factor on the sizes of the recipe's transforms.
        augment_transforms: sizes of single transforms, `{rotation: 30, flip: 0.5}`. affine has
            rotation, scale, shift, shear and flip; colour has crop, flip, brightness, contrast,
            saturation, hue, grey and blur.
        options: options of the source, such as `root`.

    Raises:
        UsageError: an option is out of range, or the source does not have it.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        source: str | Source = "digits",
        download: bool = True,
        binarisation: str = "static",
        validation: float | int = 0.1,
        cache: str = "auto",
        cache_folder: str | None = None,
        subset: int | None = None,
        batch_size: int = 64,
        augment: str = "none",
        augment_strength: float = 1.0,
        augment_transforms: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if options and isinstance(source, Source):
            raise UsageError(f"data.{next(iter(options))}: set it where the source is made.")
        self.reader = source if isinstance(source, Source) else make_source(source, options)
        self.source = source if isinstance(source, str) else type(source).__name__
        check_choice("data.binarisation", binarisation, BINARISATIONS)
        check_range("data.batch_size", batch_size, 1, 10_000_000)
        if not validation >= 0 or (validation >= 1 and isinstance(validation, float)):
            raise UsageError(
                f"data.validation: {validation} is neither a fraction (at least 0, below 1) nor a "
                "number of images."
            )
        check_choice("data.cache", cache, CACHES)
        self.download, self.cache, self.cache_folder = download, cache, cache_folder
        self.binarisation, self.validation = binarisation, validation
        self.batch_size, self.seed, self.subset = batch_size, seed, subset
        self.content: Splits | None = None
        self.report = ""
        self.augment = augment
        self.transforms = transform_sizes(augment, augment_strength, augment_transforms or {})

    def prepare_data(self) -> None:
        """Downloads missing files, in one process per machine."""
        if self.download:
            self.reader.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Reads the data once."""
        if self.content is not None:
            return
        content = read_source(self.reader, self.cache, self.cache_folder)
        self.report = self.reader.report + only_tested(content)
        storage = self.reader.storage
        if self.subset is not None:
            chosen = some_rows(len(content.train.images), self.subset, self.seed)
            taken = storage.take(content.train.images, chosen)
            content = content._replace(train=content.train.at(chosen, taken))
        size = len(content.train.images)
        count = self.validation if self.validation >= 1 else round(self.validation * size)
        if count > size - 2:
            raise UsageError(
                f"data.validation: {self.validation} of {size} training images leave fewer than "
                "2 to train on."
            )
        labelled = [part.labels >= 0 for part in (content.train, content.test)]
        if any(one.all() for one in labelled) and not all(one.any() for one in labelled):
            raise UsageError(
                f"data.root: in {self.reader.root or self.source}, only one of the training and "
                "test splits is labelled. Label both, or neither."
            )
        # With "dynamic", this fixed draw is used for everything that must be comparable.
        fixed = binarise(content.train.images, self.binarisation, self.seed, storage.empty)
        drawn = content.train.images if self.binarisation == "dynamic" else fixed
        test = binarise(content.test.images, self.binarisation, self.seed, storage.empty)
        self.labels, self.classes = content.train.labels, content.classes
        self.stored_images, self.stored_names = content.train.images, content.train.names
        self.image_shape = tuple(content.train.images.shape[1:])
        self.rows, held_out = held_out_rows(size, int(count))
        self.train_set = IndexedImages(drawn, self.labels, self.rows)
        self.fixed_set = IndexedImages(fixed, self.labels, torch.arange(size))
        self.validation_set = IndexedImages(fixed, self.labels, held_out)
        self.test_set = IndexedImages(test, content.test.labels, torch.arange(len(test)))
        self.content = content

    @property
    def binary(self) -> bool:
        """Whether every pixel is black or white."""
        return self.binarisation != "none" or all(
            bool(((some == 0) | (some == 255)).all())
            for part in (self.fixed_set, self.test_set)
            for some in part.images.split(PIECE)
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """The training images, in an order that depends only on the seed and the epoch."""
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """The held-out training images; an empty list if there are none."""
        return self._loader(self.validation_set) if len(self.validation_set) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.test_set)

    def encoding_dataloader(self) -> DataLoader[Batch]:
        """Each training image once, including those held out for validation, in the fixed draw.
        Codes are reported on these."""
        return self._loader(self.fixed_set)

    def _loader(self, images: IndexedImages, shuffle: bool = False) -> DataLoader[Batch]:
        # Distributed samplers even in a single process: their order depends only on the seed and
        # the epoch, so a resumed run keeps the order of an uninterrupted one. Training pads to the
        # same number of steps in each process; evaluation counts no image twice.
        world, rank = (
            (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        )
        kind = ResumableSampler if shuffle else UnrepeatedDistributedSampler
        sampler: DistributedSampler[Any] = kind(
            images, num_replicas=world, rank=rank, shuffle=shuffle, seed=self.seed
        )
        if isinstance(sampler, ResumableSampler):
            sampler.trainer, sampler.batch_size = self.trainer, self.batch_size
        return (ResumableLoader if shuffle else DataLoader)(
            images,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=keep_whole,
            pin_memory=torch.cuda.is_available(),
            # A loader draws a number when it starts; this keeps it from the global generator.
            generator=torch.Generator(),
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint stores about the data: its fingerprint, what images have to be prepared
        with, and the names of the training images."""
        names = {"names": self.names} if self.names else {}
        return {"fingerprint": self.fingerprint, **self.reader.prepared, **names}

    @cached_property
    def names(self) -> str:
        """The files of the training images below `data.root`, `joined`; empty if there are none."""
        return joined(self.stored_names, self.reader.root)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Checks that the checkpoint was trained on the same data.

        Raises:
            UsageError: it was not.
        """
        kept = state_dict.get("fingerprint", self.fingerprint)
        if kept != self.fingerprint:
            raise UsageError(
                f"data.root: the checkpoint was trained on other data: {kept}; here "
                f"{self.fingerprint}."
            )

    @cached_property
    def fingerprint(self) -> str:
        """That of the training images."""
        assert self.content is not None
        return self.content.train.fingerprint

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Converts uint8 images to floats in [0, 1], on the device. While training, also adds the
        encoder's transformed copy and makes the fresh draw of "dynamic"."""
        batch = batch.in_floats()
        if self.trainer is None or not self.trainer.training:
            return batch
        image = batch.image
        view = self.transformed(image)
        if self.binarisation == "dynamic":
            image = draw_binary(image)
        return batch._replace(image=image, view=view)

    @cached_property
    def augmentation(self) -> Augmentation | None:
        """What transforms the images that the encoder sees; None if nothing does. Made when the
        first batch needs it: it imports a library, which commands that do not train can save."""
        if not any(self.transforms.values()):
            return None
        return Augmentation(self.augment, self.transforms, self.image_shape)

    def transformed(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"] | None:
        """Randomly transformed copies of training images for the encoder, binarised if the images
        are. None if the encoder sees the images themselves.

        Args:
            image: in [0, 1]; grey with binarisation "dynamic".
        """
        if self.augmentation is None:
            return None
        view = self.augmentation(image)
        match self.binarisation:
            case "none":
                return view
            case "threshold":
                return (view >= 0.5).to(view.dtype)
            case _:
                return draw_binary(view)


def make_source(kind: str, options: Mapping[str, Any]) -> Source:
    """Constructs the source of that kind.

    Raises:
        UsageError: there is no such kind, or it does not take these options.
    """
    cls = find_class(Source, kind)
    known = keyword_options(cls)
    if unknown := next((name for name in options if name not in known), None):
        why = whose(Source, unknown, known)
        raise UsageError(f"data.{unknown}: {Source.key}={kind} has no such option.{why}")
    source: Source = make(cls, Source.key, **options)
    return source
