"""A trained model as an object: encode, neighbours, reconstruct, interpolate, sample."""

import base64
import html
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acn_lightning.checkpoint import KEY
from acn_lightning.data.binarise import binarise_alike
from acn_lightning.data.opener import MAX_PIXELS
from acn_lightning.data.pixels import DEPTHS, Form
from acn_lightning.inference.embedding import check_batch_size, encode
from acn_lightning.inference.inputs import Given, One, read_given
from acn_lightning.inference.pictures import grid, pixels_of
from acn_lightning.inference.sampling import draw_images, finite_predictions
from acn_lightning.module import ACN
from acn_lightning.networks.layers import eval_mode
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.exact import distances_to
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import UsageError, check_range
from acn_lightning.utils.names import parted
from acn_lightning.utils.text import as_text, shape_words

MOST_BITS = DEPTHS[-1]
"""Bits of a 16-bit image for a model whose training images had none of 16: white is the brightest
that it can hold."""

SHOWN = 12
"""Pictures that a notebook shows."""


@dataclass(frozen=True)
class Neighbours:
    """The stored codes nearest to given ones, nearest first. Numbers are tensors if the images were
    given as one, else arrays. `rows, distances, labels = acn.neighbours(images)` works too.

    Attributes:
        rows: rows of the training images, (N, K).
        distances: Euclidean distances between codes, (N, K).
        labels: labels of the training images, (N, K): places in `TrainedACN.classes`, perhaps not
            the numbers that were given; -1 for none.
        classes: names of their classes, an array (N, K) of str; "" for none.
        files: their files, relative to `data.root`, an array (N, K) of str; None if they have none,
            or the model was saved before they were stored.
    """

    rows: Any
    distances: Any
    labels: Any
    classes: np.ndarray
    files: np.ndarray | None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.rows, self.distances, self.labels))


class TrainedACN:
    """A trained model with its code bank and an index of it, as `acn_lightning.load` returns it.

    Wherever images are given, they may be

    - an array or tensor (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3, uint8 from 0 to
      255 or floats from 0 to 1; or without N, for one image. Of three axes, the shape of the
      model's own images says whether they are one image or several grey ones; if it does not,
      they are refused;
    - a Pillow image, a file's path, or a list of images in any of these forms;
    - a folder's path, for all image files in it, by name, its own before those of its sub-folders;
    - a map-style torch `Dataset` of such images, or of (image, label).

    They are converted to the size and channels of the training images, as those were themselves:
    laid on `data.background`, resized to cover, cropped evenly. Arrays that have to be converted
    give a warning. Results always have a first axis for the images, which is 1 for one image.

    Args:
        module: a trained module that was built from a config, with a built index.
        known: what a checkpoint stores about its data (`ImageData.state_dict`).
        source: where it was read from.

    Attributes:
        config: the config that it was trained with.
        image_shape: shape of its images, (C, H, W).
        classes: class names of the training images. Labels are places in them.
        files: their files, relative to `data.root`; empty if they have none.

    Raises:
        UsageError: the module was not built from a config.
    """

    def __init__(
        self,
        module: ACN,
        known: Mapping[str, Any] | None = None,
        source: Path | None = None,
    ) -> None:
        if KEY not in module.hparams:
            raise UsageError(
                "This ACN was not built from a config, so it does not know how to prepare images: "
                "call it with a batch, acn(images).mean."
            )
        self.module, self.source = module, source
        self.known: dict[str, Any] = dict(known or {})
        self.config: dict[str, Any] = module.hparams[KEY]
        self.image_shape: tuple[int, ...] = tuple(module.hparams["image_shape"])
        self.classes: tuple[str, ...] = tuple(module.hparams["classes"])
        self.files: tuple[str, ...] = parted(self.known.get("names"))

    @property
    def bank(self) -> CodeBank:
        """The codes of the training images by the checkpoint's weights. With
        `refresh.encode=false` they are those stored in the epoch before it was saved, of
        transformed copies (`data.augment`)."""
        return self.module.bank

    @property
    def index(self) -> NeighbourIndex:
        """The index of the bank's codes."""
        return self.module.index

    @property
    def form(self) -> Form:
        """The form of its images: options of its data, and what was found in them. Nothing is open:
        how an image is read depends on no other."""
        (channels, *size), data = self.image_shape, self.config["data"]
        return Form(
            image_size=size,
            channels=channels,
            background=data.get("background", "white"),
            bits=data.get("bits") or self.known.get("bits") or MOST_BITS,
            max_pixels=data.get("max_pixels", MAX_PIXELS),
        )

    def to(self, device: str | torch.device) -> "TrainedACN":
        """Moves the networks and the codes to a device."""
        self.module.to(device)
        self.bank.to(torch.device(device))
        return self

    # ------------------------------------------------------------ codes

    def encode(self, images: Given, batch_size: int = 256) -> Any:
        """The codes of any images: the posterior means.

        Images are binarised if the training images were. "static" and "dynamic" here use one draw
        for all images, so that equal images have equal codes.

        Args:
            images: see the class.
            batch_size: number of images encoded at once.

        Returns:
            (N, D) float32: a tensor on the same device if `images` is a tensor, else an array.

        Raises:
            UsageError: the images have another form, or cannot be read; `batch_size` is out of
                range; or the model has no codes.
        """
        return as_given(images, self._codes(images, batch_size))

    def check_codes(self) -> None:
        """Checks that the model has codes.

        Raises:
            UsageError: it is a decoder alone.
        """
        if not self.module.encoder.has_codes:
            raise UsageError(
                f"{self.source or 'encoder'}: this model has no codes (model.encoder.kind=none)."
            )

    def _codes(self, images: Given, batch_size: int) -> Tensor:
        self.check_codes()
        seen = self.as_seen(read_given(images, self.image_shape, self.form))
        return encode(self.module, seen, batch_size)

    def as_seen(self, images: Tensor) -> Tensor:
        """Images, uint8 (N, C, H, W), as the encoder sees them: binarised if the training images
        were."""
        return binarise_alike(images, self.config["data"]["binarisation"], self.config["seed"])

    def neighbours(self, images: Given, k: int | None = None, batch_size: int = 256) -> Neighbours:
        """The training images whose stored codes are nearest to the codes of given images.

        Args:
            images: see the class.
            k: number of neighbours; None takes the config's `neighbours.k`.
            batch_size: number of images encoded at once.

        Returns:
            Rows, distances, labels, classes and files, each (N, K). An image that was trained on is
            its own nearest neighbour, unless its pixels are binarised at random or the run had
            `refresh.encode=false`.

        Raises:
            UsageError: as for `encode`; or there are fewer than K codes.
        """
        codes = self._codes(images, batch_size).to(self.bank.codes.device)
        rows = self.index.search(codes, k=k)
        labels = self.bank.labels[rows]
        distances = distances_to(codes, self.bank.codes, rows)
        names = [*self.classes, ""]  # the last is for label -1
        return Neighbours(
            as_given(images, rows),
            as_given(images, distances),
            as_given(images, labels),
            looked_up(names, labels),
            looked_up(self.files, rows) if self.files else None,
        )

    # ------------------------------------------------------------ images

    def reconstruct(self, images: Given, batch_size: int = 256) -> np.ndarray:
        """What the decoder makes of the codes of images.

        It is the mean image if pixels are independent given the code, which always is the same.
        Other decoders (`pixelcnn`) draw a sample, with torch's global random generator.

        Args:
            images: see the class.
            batch_size: number of images encoded and decoded at once.

        Returns:
            uint8, (N, H, W) if images are grey, else (N, H, W, 3).

        Raises:
            UsageError: as for `encode`.
        """
        return self.decode(self._codes(images, batch_size), batch_size)

    def interpolate(self, a: One, b: One, steps: int = 8, batch_size: int = 256) -> np.ndarray:
        """Images on the way from one to another: the decoder's, of codes evenly spaced on the
        straight line between the codes of both.

        Args:
            a, b: one image each.
            steps: number of images, with the reconstructions of both at the ends.
            batch_size: number of images decoded at once.

        Returns:
            uint8, (steps, H, W) if images are grey, else (steps, H, W, 3); see `reconstruct`.

        Raises:
            UsageError: as for `encode`; or `steps` is out of range, or a or b is not one image.
        """
        check_range("steps", steps, 2, 1_000_000)
        ends = {name: self._codes(one, batch_size) for name, one in (("a", a), ("b", b))}
        for name, codes in ends.items():
            if len(codes) != 1:
                raise UsageError(f"{name}: these are {len(codes):,} images, not one.")
        part = torch.linspace(0, 1, steps)[:, None]
        return self.decode(torch.lerp(ends["a"], ends["b"], part), batch_size)

    def decode(self, codes: Tensor | np.ndarray, batch_size: int = 256) -> np.ndarray:
        """The decoder's images of codes (N, D), as `reconstruct` returns them.

        Raises:
            UsageError: the codes have another shape, or `batch_size` is out of range.
        """
        check_batch_size(batch_size)
        codes = torch.as_tensor(codes)
        size = self.bank.codes.shape[1]
        if codes.ndim != 2 or codes.shape[1] != size or not codes.is_floating_point():
            raise UsageError(f"codes: {tuple(codes.shape)} are not floats of shape (N, {size}).")
        with eval_mode(self.module), finite_predictions():
            parts = [
                pixels_of(self.module.decoder(some.to(self.module.device).float())).cpu()
                for some in codes.split(batch_size)
                if len(some)
            ]
        return as_pixels(torch.cat(parts) if parts else torch.empty(0, *self.image_shape))

    def sample(self, count: int = 1, noise: bool = False, batch_size: int = 256) -> np.ndarray:
        """Samples of the model: a stored code c, the prior's z ~ p(z|c), and x ~ r(x|z), drawn with
        torch's global random generator.

        Args:
            count: number of images.
            noise: whether to draw each pixel even if pixels are independent given the code;
                otherwise their means are returned. An autoregressive decoder, such as that of
                `folder`, always draws its pixels.
            batch_size: number of images decoded at once.

        Returns:
            uint8, (count, H, W) if images are grey, else (count, H, W, 3).

        Raises:
            UsageError: `count` or `batch_size` is out of range.
        """
        check_range("count", count, 1, 1_000_000)
        return as_pixels(draw_images(self.module, count, noise, batch_size))

    # ------------------------------------------------------------ what it is

    def _facts(self) -> dict[str, str]:
        """What it is, in words."""
        model, stored = self.config["model"], len(self.bank.rows)
        kinds = (f"{part} {model[part]['kind']}" for part in ("encoder", "prior", "decoder"))
        weights = sum(one.numel() for one in self.module.parameters())
        classes = f"{len(self.classes):,} classes" if len(self.classes) > 1 else "no classes"
        facts = {
            "images": f"{shape_words(self.image_shape)}, {classes}",
            "codes": f"{self.bank.codes.shape[1]:,} numbers each, {stored:,} stored",
            "networks": f"{', '.join(kinds)}; {weights:,} weights",
        }
        return facts | ({"read from": as_text(self.source)} if self.source else {})

    def __repr__(self) -> str:
        lines = [f"  {name}: {what}" for name, what in self._facts().items()]
        return "\n".join([f"TrainedACN({self.config['experiment']})", *lines])

    def _repr_html_(self) -> str:
        """A table, and what the decoder makes of some stored codes, a few of each class; nothing is
        drawn at random, and nothing if that would take a pass for each pixel."""
        title = html.escape(f"TrainedACN: {self.config['experiment']}")
        rows = [
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(what)}</td></tr>"
            for name, what in self._facts().items()
        ]
        table = f"<table><caption><b>{title}</b></caption>{''.join(rows)}</table>"
        picture = self._thumbnails()
        if picture is None:
            return f"<div>{table}</div>"
        return (
            f'<div>{table}<img alt="images decoded from stored codes" src="{picture}"><br>'
            f"<small>Decoded from {SHOWN} of the stored codes.</small></div>"
        )

    def _thumbnails(self) -> str | None:
        """The address of a picture of some stored codes; None if the decoder has no mean."""
        rows = self.bank.rows[self.bank.labels[self.bank.rows].argsort(stable=True)]
        rows = rows[torch.linspace(0, len(rows) - 1, SHOWN).long().to(rows.device)]
        with eval_mode(self.module):
            images = self.module.decoder(self.bank.codes[rows].to(self.module.device))
            try:
                shown = images.mean
            except NotImplementedError:
                return None
        file = io.BytesIO()
        grid(shown[None].nan_to_num().cpu()).save(file, "PNG")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def as_given(given: Any, tensor: Tensor) -> Any:
    """The tensor, on the device of `given` if that is one, else as an array."""
    if isinstance(given, Tensor):
        return tensor.to(given.device)
    return tensor.cpu().numpy()


def looked_up(names: Any, numbers: Tensor) -> np.ndarray:
    """The names at these places, in an array of the numbers' shape."""
    places = numbers.cpu().numpy()
    found = np.array([names[place] for place in places.flat], dtype=str)
    return found.reshape(places.shape)


def as_pixels(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) from 0 to 1 as bytes, (N, H, W) if they are grey, else (N, H, W, 3)."""
    array: np.ndarray = images.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return array[..., 0] if array.shape[3] == 1 else array
