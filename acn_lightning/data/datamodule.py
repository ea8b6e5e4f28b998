"""The LightningDataModule: indexed examples for training, validation and testing."""

from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from acn_lightning.data.augment import Augmentation, transform_sizes
from acn_lightning.data.dataset import (
    BINARISATIONS,
    Batch,
    IndexedImages,
    binarise,
    draw_binary,
    whole,
)
from acn_lightning.data.download import PUBLISHED, download
from acn_lightning.data.loader import ResumableLoader, ResumableSampler
from acn_lightning.data.sources.base import Source, held_out_rows, read_digits, some_of
from acn_lightning.data.sources.celeba import read_celeba
from acn_lightning.data.sources.cifar10 import read_cifar10
from acn_lightning.data.sources.folder import read_folder
from acn_lightning.data.sources.idx import read_idx
from acn_lightning.data.sources.imagenet import read_imagenet
from acn_lightning.data.sources.npz import read_npz
from acn_lightning.utils.errors import UsageError, check_choice

SOURCES = (
    "digits",
    "mnist",
    "fashion_mnist",
    "cifar10",
    "celeba",
    "imagenet",
    "idx",
    "folder",
    "npz",
)
CLOTHES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""The classes of Fashion-MNIST, by its publisher (Xiao, Rasul and Vollgraf, arXiv 1708.07747)."""

RESIZED = ("folder", "celeba", "imagenet")
"""Sources whose images can be brought to another size."""


class ImageData(LightningDataModule):
    """Images whose every example carries (index, image, label).

    An index is the row in the training set, or for test examples in the test set, and stays the
    same however examples are shuffled, split or sharded. Images stay uint8 until they are on
    their device; there they become floats in [0, 1].

    Args:
        seed: of the static draw and the order of the training examples.
        source: "digits" (scikit-learn's, no download), "mnist", "fashion_mnist", "cifar10",
            "celeba", "imagenet" (see `read_cifar10`, `read_celeba`, `read_imagenet` for the files),
            "idx" (any files in MNIST's layout), "folder" (PNG and JPEG, see `read_folder`) or
            "npz".
        root: folder of the files, or the .npz file. Not used for digits.
        download: fetch what a published data set lacks in `root`.
        image_size: [height, width] to bring the images of a folder, of celeba or of imagenet's
            JPEG files to; a number for squares.
        channels: for a folder, 1 for grey or 3 for RGB; null takes what the files are.
        attribute: for celeba, which attribute is the label; null takes "Smiling".
        binarisation: "none"; "threshold" at half of white; "static", one fixed draw for each
            image; "dynamic", a fresh draw whenever an image is trained on. Held-out images are
            the static draw under "dynamic" also, so that figures compare.
        validation: how many training images to hold out from training for validation: a
            fraction below 1 or a number of images. 0 for none.
        subset: how many of the training images to use at all, those held out included: a random
            choice that the seed decides. null takes all.
        batch_size: examples a step and process.
        augment: while training, the encoder sees a randomly transformed copy of each image, which
            the decoder describes as it is: "affine" (turned, scaled, shifted, sheared: for digits
            and the like) or "colour" (cut, mirrored, other colours, blurred: for photographs);
            "none" shows the image. Stored codes and figures are of the images as they are.
        augment_strength: multiplies the sizes of the recipe's transforms.
        augment_transforms: sizes of single ones, `{rotation: 30, flip: 0.5}`; see `RECIPES`.

    Raises:
        UsageError: an option is none of these.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        source: str = "digits",
        root: str | None = None,
        download: bool = True,
        image_size: Any = None,
        channels: int | None = None,
        attribute: str | None = None,
        binarisation: str = "static",
        validation: float | int = 0.1,
        subset: int | None = None,
        batch_size: int = 64,
        augment: str = "none",
        augment_strength: float = 1.0,
        augment_transforms: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_choice("data.source", source, SOURCES)
        check_choice("data.binarisation", binarisation, BINARISATIONS)
        if source != "digits" and root is None:
            raise UsageError(
                f"data.root: say where the data of source '{source}' lie: data.root=PATH."
            )
        if image_size is not None and source not in RESIZED:
            raise UsageError(
                "data.image_size is for the image files of celeba and imagenet, and else for "
                "data.source=folder only."
            )
        if channels is not None and source != "folder":
            raise UsageError("data.channels is for data.source=folder only.")
        if attribute is not None and source != "celeba":
            raise UsageError("data.attribute is for data.source=celeba only.")
        if channels not in (None, 1, 3):
            raise UsageError(f"data.channels: {channels} is neither 1 (grey) nor 3 (RGB).")
        if batch_size < 1:
            raise UsageError(f"data.batch_size: {batch_size} is below 1.")
        if validation < 0 or (validation >= 1 and isinstance(validation, float)):
            raise UsageError(
                f"data.validation: {validation} is neither a fraction below 1 nor a whole number."
            )
        self.source, self.download, self.subset = source, download, subset
        self.root = Path(root).expanduser() if root is not None else Path()
        self.image_size, self.channels = parse_size(image_size), channels
        self.attribute = attribute or "Smiling"
        self.binarisation, self.validation = binarisation, validation
        self.batch_size, self.seed = batch_size, seed
        self.content: Source | None = None
        self.augment = augment
        self.transforms = transform_sizes(augment, augment_strength, augment_transforms or {})
        self.augmentation: Augmentation | None = None

    def prepare_data(self) -> None:
        """Downloads what is missing, in one process of each machine."""
        if self.download and self.source in PUBLISHED:
            download(PUBLISHED[self.source], self.root)

    def setup(self, stage: str | None = None) -> None:
        """Reads the data, once."""
        if self.content is not None:
            return
        content = self.read()
        if self.subset is not None:
            content = content._replace(train=some_of(content.train, self.subset, self.seed))
        size = len(content.train.images)
        count = self.validation if self.validation >= 1 else round(self.validation * size)
        if count > size - 2:
            raise UsageError(
                f"data.validation: {self.validation} of {size} training images leave none to "
                "train on."
            )
        if (content.train.labels < 0).any() != (content.test.labels < 0).any():
            raise UsageError(
                f"data.root: of {self.root}, either the training or the test images have no "
                "labels. Give both labels, or neither."
            )
        # Where each training image is drawn afresh, this one draw serves whatever must compare.
        fixed = binarise(content.train.images, self.binarisation, self.seed)
        drawn = content.train.images if self.binarisation == "dynamic" else fixed
        test = binarise(content.test.images, self.binarisation, self.seed)
        self.labels, self.classes = content.train.labels, content.classes
        self.image_shape = tuple(content.train.images.shape[1:])
        self.rows, held_out = held_out_rows(size, int(count))
        self.train_set = IndexedImages(drawn, self.labels, self.rows)
        self.fixed_set = IndexedImages(fixed, self.labels, torch.arange(size))
        self.validation_set = IndexedImages(fixed, self.labels, held_out)
        self.test_set = IndexedImages(test, content.test.labels, torch.arange(len(test)))
        if any(self.transforms.values()):
            self.augmentation = Augmentation(self.augment, self.transforms, self.image_shape)
        self.content = content

    def read(self) -> Source:
        """The images of the source. A data set of another kind is a subclass with its own `read`.

        Raises:
            UsageError: they cannot be read.
        """
        match self.source:
            case "digits":
                return read_digits()
            case "folder":
                return read_folder(self.root, self.image_size, self.channels)
            case "cifar10":
                return read_cifar10(self.root)
            case "celeba":
                return read_celeba(self.root, self.image_size, self.attribute)
            case "imagenet":
                return read_imagenet(self.root, self.image_size)
            case "npz":
                return read_npz(self.root)
            case _:
                content = read_idx(self.root)
                if self.source == "fashion_mnist" and len(content.classes) == len(CLOTHES):
                    return content._replace(classes=CLOTHES)
                return content

    @property
    def binary(self) -> bool:
        """Whether pixels are black or white."""
        return self.binarisation != "none" or all(
            bool(((part.images == 0) | (part.images == 255)).all())
            for part in (self.fixed_set, self.test_set)
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, in an order that the seed and the epoch decide and nothing else."""
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """The held-out training images; an empty list where there are none."""
        return self._loader(self.validation_set) if len(self.validation_set) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.test_set)

    def encoding_dataloader(self) -> DataLoader[Batch]:
        """Each training image once, those held out for validation included, as a fixed draw: what
        codes are reported on."""
        return self._loader(self.fixed_set)

    def _loader(self, images: IndexedImages, shuffle: bool = False) -> DataLoader[Batch]:
        # Distributed samplers in a single process also: the order is a function of the seed and the
        # epoch, so a resumed run goes on in the order that an undisturbed one has. Training pads to
        # the same number of steps in each process; what is measured counts no image twice.
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
            collate_fn=whole,
            pin_memory=torch.cuda.is_available(),
            # A loader draws a number when it starts. Its own source keeps it from the global one.
            generator=torch.Generator(),
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint knows of the data."""
        return {"fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises:
        UsageError: the checkpoint was trained on other data.
        """
        kept = state_dict.get("fingerprint", self.fingerprint)
        if kept != self.fingerprint:
            raise UsageError(
                f"data.root: the checkpoint was trained on other data: {kept}; here "
                f"{self.fingerprint}."
            )

    @cached_property
    def fingerprint(self) -> str:
        """How many training images there are, and a checksum of them and their labels."""
        assert self.content is not None
        images, labels, _ = self.content.train
        digest = sha256(str(tuple(images.shape)).encode())
        digest.update(labels.numpy().tobytes())
        for some in images.split(2**14):
            digest.update(some.contiguous().numpy())
        return f"{len(images):,} images, {digest.hexdigest()[:16]}"

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 images to floats in [0, 1], on the device. While training, drawn afresh where that
        is asked for, with a transformed copy for the encoder."""
        image = batch.image.float() / 255
        if self.trainer is None or not self.trainer.training:
            return batch._replace(image=image)
        view = self.transformed(image)
        if self.binarisation == "dynamic":
            image = draw_binary(image)
        return batch._replace(image=image, view=view)

    def transformed(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"] | None:
        """Random copies of training images, as the encoder sees them: black and white again where
        the images are. None where it sees the images.

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


def parse_size(value: Any) -> tuple[int, int] | None:
    """[height, width] or one number for both.

    Raises:
        UsageError: neither.
    """
    if value is None:
        return None
    sides = (
        [value, value]
        if isinstance(value, int)
        else list(value)
        if isinstance(value, list | tuple)
        else []
    )
    if len(sides) != 2 or not all(isinstance(side, int) and 0 < side <= 4096 for side in sides):
        raise UsageError(
            f"data.image_size: {value!r} is neither a number nor [height,width], from 1 to 4096."
        )
    return sides[0], sides[1]
