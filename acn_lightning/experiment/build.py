"""Builds the objects that a config or a checkpoint describes."""

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning import Callback, seed_everything
from torch import Tensor

from acn_lightning.checkpoint import KEY
from acn_lightning.config.compose import Plain
from acn_lightning.config.keys import KINDS
from acn_lightning.config.live import find_callback, refuse_stale
from acn_lightning.data import ImageData, Source
from acn_lightning.evaluation.costs import NEIGHBOURS
from acn_lightning.module import ACN
from acn_lightning.networks.base import Component
from acn_lightning.networks.decoders import Decoder
from acn_lightning.networks.encoders import Encoder
from acn_lightning.networks.likelihoods import Likelihood
from acn_lightning.networks.priors import Prior
from acn_lightning.networks.shapes import Shape
from acn_lightning.optimization import OptimizerFactory, Schedule
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import UsageError, check_range
from acn_lightning.utils.registry import find_class, make
from acn_lightning.utils.registry import options as keyword_options
from acn_lightning.utils.text import shape_words

LARGEST_SEED = 2**32 - 1
"""What `seed_everything` takes."""


def build(
    config: Plain, image_shape: tuple[int, ...] | None = None, source: Source | None = None
) -> tuple[ImageData, ACN]:
    """Reads the data and builds the module for it.

    Args:
        config: a complete config.
        image_shape: shape of the images that the networks take; None takes the data's.
        source: as for `read_data`.

    Raises:
        UsageError: the data cannot be read, an option is out of range, K is too large for the
            data, or the networks take images of another shape.
    """
    data = read_data(config, source)
    return data, build_for(data, config, image_shape)


def build_for(data: ImageData, config: Plain, image_shape: tuple[int, ...] | None = None) -> ACN:
    """The module of a config, for data that has been read.

    Raises:
        UsageError: as for `build`.
    """
    if image_shape and image_shape != data.image_shape:
        raise UsageError(
            f"The checkpoint's networks take images of {shape_words(image_shape)}, the data's are "
            f"{shape_words(data.image_shape)} (channels x height x width)."
        )
    if max(NEIGHBOURS) > len(data.rows):
        raise UsageError(
            f"data.root: {len(data.rows)} training images are too few: costs are reported with "
            f"{max(NEIGHBOURS)} neighbours."
        )
    about = DataSpec(data.image_shape, data.classes, data.labels, data.rows, data.binary)
    module = build_module(config, about)
    check_batches(module.shape, data.batch_size)
    return module


def read_data(config: Plain, source: Source | None = None) -> ImageData:
    """Seeds the random number generators, then reads the data of a config.

    Args:
        config: a complete config.
        source: reads the images; None makes the one that the config describes.

    Raises:
        UsageError: the data cannot be read, or an option is out of range.
    """
    refuse_stale()
    check_range("seed", config["seed"], 0, LARGEST_SEED)
    seed_everything(config["seed"], verbose=False)
    given = config["data"]
    if source is not None:
        given = {key: given[key] for key in keyword_options(ImageData)} | {"source": source}
    data = ImageData(config["seed"], **given)
    data.prepare_data()
    data.setup()
    return data


class DataSpec(NamedTuple):
    """What the networks and the code bank need to know about the data.

    Attributes:
        image_shape: (C, H, W).
        classes: class names.
        labels: label of each of the N training images, (N,).
        rows: which of these images are trained on.
        binary: whether all pixels are black or white.
    """

    image_shape: tuple[int, ...]
    classes: Sequence[str]
    labels: Tensor
    rows: Tensor
    binary: bool = True


def build_module(config: Plain, about: DataSpec) -> ACN:
    """The module of a config, for the data described.

    Raises:
        UsageError: an option is out of range, K is too large for the data, or the likelihood does
            not suit its pixels.
    """
    model = {key: value for key, value in config["model"].items() if f"model.{key}" not in KINDS}
    code_size = model.pop("code_size")
    check_range("model.code_size", code_size, 1, 65_536)
    check_range("seed", config["seed"], 0, LARGEST_SEED)
    index = make_index(config, code_size, len(about.rows))
    module = ACN(
        **make_networks(config["model"], code_size, about),
        bank=CodeBank(about.labels, about.rows, code_size, config["seed"]),
        index=index,
        classes=len(about.classes),
        optimizer=OptimizerFactory(**config["optimizer"]),
        schedule=make_schedule(config["schedule"]),
        **model,
    )
    if config["channels_last"]:
        module.to(memory_format=torch.channels_last)
    if config["compile"] is True:  # not "auto", as on a rank that did not measure
        check_compiler()
        module.compile()
    known = {KEY: config, "image_shape": list(about.image_shape), "classes": list(about.classes)}
    module.save_hyperparameters(known, logger=False)
    return module


def make_networks(model: Plain, code_size: int, about: DataSpec) -> dict[str, Any]:
    """Encoder, shape, prior and decoder.

    Raises:
        UsageError: as for `build_module`.
    """
    image_shape = about.image_shape
    likelihood = make_network(Likelihood, model["likelihood"], image_shape[0])
    if likelihood.binary and not about.binary:
        raise UsageError(
            f"model.likelihood.kind: {model['likelihood']['kind']} is for pixels of two values, "
            "but the images have more. Use categorical or logistic_mixture, or "
            "data.binarisation=dynamic."
        )
    shape = make_network(Shape, model["shape"], code_size)
    prior = make_network(Prior, model["prior"], code_size)
    check_price(shape, prior)
    return {
        "encoder": make_network(Encoder, model["encoder"], image_shape, code_size),
        "shape": shape,
        "prior": prior,
        "decoder": make_network(Decoder, model["decoder"], image_shape, code_size, likelihood),
    }


def make_index(config: Plain, code_size: int, images: int) -> NeighbourIndex:
    """An empty neighbour index.

    Raises:
        UsageError: K is too large for this many training images, or an option is out of range.
    """
    index = NeighbourIndex(code_size, config["seed"], **config["neighbours"])
    if index.k >= images:
        raise UsageError(
            f"neighbours.k: {index.k} neighbours of an image need more than {index.k} training "
            f"images; there are {images}."
        )
    return index


def check_price(shape: Shape, prior: Prior) -> None:
    """Checks that the prior suits the scale of the codes.

    Raises:
        UsageError: the prior would charge much more for the codes than they can hold.
    """
    if shape.scale is not None and shape.scale > prior.max_scale:
        raise UsageError(
            f"model.shape.scale: with {shape.scale:g} the prior charges {shape.scale**2 / 2:.1f} "
            "nats for each dimension of a code, which can hold only "
            f"{math.log(1 + shape.scale**2) / 2:.1f}. Use at most {prior.max_scale:g}, or "
            "model.prior.kind=mixture."
        )


def check_batches(shape: Shape, batch_size: int) -> None:
    """Checks that a batch is large enough for the shape's statistics.

    Raises:
        UsageError: the batch is too small.
    """
    if batch_size < shape.min_batch:
        raise UsageError(
            "data.batch_size: codes get their mean and variance from a batch, of at least "
            f"{shape.min_batch} images; here it has {batch_size}. Use more, or "
            "model.shape.kind=free."
        )


def check_compiler() -> None:
    """Checks that there is a compiler for `torch.compile`.

    Raises:
        UsageError: there is none.
    """
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl"]
    if not any(name and shutil.which(name) for name in names):
        raise UsageError(
            "compile: torch.compile needs a C++ compiler, and there is none here. Install g++ or "
            "clang++, or leave compile=true out."
        )


def make_network(family: type[Component], options: Mapping[str, Any], *wiring: Any) -> Any:
    """The network of the `kind` that the options name."""
    options = dict(options)
    return make(find_class(family, options.pop("kind")), family.key, *wiring, **options)


def make_schedule(options: Mapping[str, Any]) -> Schedule:
    """The schedule of the `kind` that the options name."""
    options = dict(options)
    schedule: Schedule = make(find_class(Schedule, options.pop("kind")), Schedule.key, **options)
    return schedule


def make_callbacks(config: Plain) -> list[Callback]:
    """The callbacks that a config adds.

    Raises:
        UsageError: a callback rejects its arguments.
    """
    callbacks = []
    for name, options in config["callbacks"].items():
        kind, key = options["kind"], f"callbacks.{name}"
        own = {option: value for option, value in options.items() if option != "kind"}
        callbacks.append(make(find_callback(kind, name), key, **own))
    return callbacks
