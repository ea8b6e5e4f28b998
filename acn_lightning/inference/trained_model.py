"""A trained model as an object: encode, neighbours, sample."""

from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from acn_lightning.checkpoint import KEY
from acn_lightning.data.binarise import binarise_alike
from acn_lightning.data.convert import as_images
from acn_lightning.inference.embedding import encode
from acn_lightning.inference.sampling import draw_images
from acn_lightning.module import ACN
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.exact import distances_to
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import UsageError, check_range

Array = TypeVar("Array", np.ndarray, Tensor)


class Neighbours(NamedTuple):
    """The stored codes nearest to given ones, nearest first, as NumPy arrays or tensors.

    Attributes:
        rows: rows of the training images, (N, K).
        distances: Euclidean distances between codes, (N, K).
        labels: labels of the training images, (N, K); -1 for none.
    """

    rows: Any
    distances: Any
    labels: Any


class TrainedACN:
    """A trained model with its code bank and an index of it, as `acn_lightning.load` returns it.

    Args:
        module: a trained module that was built from a config, with a built index.

    Attributes:
        config: the config that it was trained with.
        image_shape: shape of its images, (C, H, W).
        classes: class names of the training images.

    Raises:
        UsageError: the module was not built from a config.
    """

    def __init__(self, module: ACN) -> None:
        if KEY not in module.hparams:
            raise UsageError(
                "This ACN was not built from a config, so it does not know how to prepare images: "
                "call it with a batch, acn(images).mean."
            )
        self.module = module
        self.config: dict[str, Any] = module.hparams[KEY]
        self.image_shape: tuple[int, ...] = tuple(module.hparams["image_shape"])
        self.classes: tuple[str, ...] = tuple(module.hparams["classes"])

    @property
    def bank(self) -> CodeBank:
        """The codes of the training images, from the epoch before the checkpoint was saved. Codes
        of the same images with the final weights differ a little, unless the images were encoded
        again at the end of that epoch (`refresh.encode`)."""
        return self.module.bank

    @property
    def index(self) -> NeighbourIndex:
        """The index of the bank's codes."""
        return self.module.index

    def to(self, device: str | torch.device) -> "TrainedACN":
        """Moves the networks and the codes to a device."""
        self.module.to(device)
        self.bank.to(torch.device(device))
        return self

    def encode(self, images: Array, batch_size: int = 256) -> Array:
        """The codes of any images: the posterior means.

        Images are binarised if the training images were. "static" and "dynamic" here use one draw
        for all images, so that equal images have equal codes.

        Args:
            images: (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3; uint8 from 0 to 255 or
                floats from 0 to 1. Images of another size or number of channels than the training
                data are converted, with a warning.
            batch_size: number of images encoded at once.

        Returns:
            (N, D) float32: an array if `images` is an array, else a tensor on the same device.

        Raises:
            UsageError: the images have another form.
        """
        seen = self.as_seen(as_images(images, self.image_shape))
        return as_given(images, encode(self.module, seen, batch_size))

    def as_seen(self, images: Tensor) -> Tensor:
        """Images, uint8 (N, C, H, W), as the encoder sees them: binarised if the training images
        were."""
        return binarise_alike(images, self.config["data"]["binarisation"], self.config["seed"])

    def neighbours(self, images: Array, k: int | None = None, batch_size: int = 256) -> Neighbours:
        """The training images whose stored codes are nearest to the codes of given images.

        Args:
            images: as for `encode`.
            k: number of neighbours; None takes the config's `neighbours.k`.
            batch_size: number of images encoded at once.

        Returns:
            `rows`, `distances` and `labels`, each (N, K), arrays or tensors like `images`. An image
            that was trained on is its own nearest neighbour.

        Raises:
            UsageError: as for `encode`; or there are fewer than K codes.
        """
        codes = torch.as_tensor(self.encode(images, batch_size)).to(self.bank.codes.device)
        rows = self.index.search(codes, k=k)
        found = (rows, distances_to(codes, self.bank.codes, rows), self.bank.labels[rows])
        return Neighbours(*(as_given(images, one) for one in found))

    def sample(self, count: int = 1, noise: bool = False) -> np.ndarray:
        """Samples of the model: a stored code c, the prior's z ~ p(z|c), and x ~ r(x|z), drawn with
        torch's global random generator.

        Args:
            count: number of images.
            noise: whether to draw each pixel even if pixels are independent given the code;
                otherwise their means are returned.

        Returns:
            uint8, (count, H, W) if images are grey, else (count, H, W, 3).

        Raises:
            UsageError: `count` is out of range.
        """
        check_range("count", count, 1, 1_000_000)
        images = draw_images(self.module, count, noise).mul(255).round().byte().cpu()
        array: np.ndarray = images.permute(0, 2, 3, 1).numpy()
        return array[..., 0] if array.shape[3] == 1 else array

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.image_shape))
        return (
            f"TrainedACN({self.config['experiment']}: images of {shape}, codes of "
            f"{self.bank.codes.shape[1]} numbers, {len(self.bank.rows):,} of them stored)"
        )


def as_given(given: Array, tensor: Tensor) -> Array:
    """The tensor as an array if `given` is an array, else on the device of `given`."""
    if isinstance(given, Tensor):
        return tensor.to(given.device)
    return tensor.cpu().numpy()
