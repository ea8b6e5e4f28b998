"""From a config, or a checkpoint, to the objects that it describes."""

import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning import seed_everything
from torch import Tensor

from acn_lightning.checkpoint import KEY, carried_config, read_checkpoint, refuse_changes
from acn_lightning.config.compose import Plain, complete
from acn_lightning.data import ImageData
from acn_lightning.evaluation.costs import NEIGHBOURS
from acn_lightning.module import ACN
from acn_lightning.networks.component import Component
from acn_lightning.networks.decoders import Decoder
from acn_lightning.networks.encoders import Encoder
from acn_lightning.networks.likelihoods import Likelihood
from acn_lightning.networks.priors import Prior
from acn_lightning.networks.shapes import Shape
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import UsageError


def build(
    config: Plain,
    image_shape: tuple[int, ...] | None = None,
    data_kind: type[ImageData] = ImageData,
) -> tuple[ImageData, ACN]:
    """Data, read, and the module for it.

    Args:
        config: complete.
        image_shape: that the networks are for; None takes the data's.
        data_kind: what reads the data: `ImageData`, or a subclass.

    Raises:
        UsageError: the data cannot be read, an option is out of range, K is too large for the
            data, or the networks are for other images.
    """
    data = read_data(config, data_kind)
    return data, build_for(data, config, image_shape)


def build_for(data: ImageData, config: Plain, image_shape: tuple[int, ...] | None = None) -> ACN:
    """The module of a config, for data that were read.

    Raises:
        UsageError: as for `build`.
    """
    if image_shape and image_shape != data.image_shape:
        raise UsageError(
            f"The checkpoint's networks take images of {by(image_shape)}, the data's are "
            f"{by(data.image_shape)} (channels x height x width)."
        )
    if max(NEIGHBOURS) > len(data.rows):
        raise UsageError(
            f"data.root: {len(data.rows)} training images are too few: costs are reported with "
            f"{max(NEIGHBOURS)} neighbours."
        )
    about = About(data.image_shape, data.classes, data.labels, data.rows, data.binary)
    module = build_module(config, about)
    check_batches(module.shape, data.batch_size)
    return module


def read_data(config: Plain, data_kind: type[ImageData] = ImageData) -> ImageData:
    """The data of a config, read. Random numbers are seeded before.

    Raises:
        UsageError: they cannot be read, or an option is out of range.
    """
    if not 0 <= config["seed"] < 2**32:
        raise UsageError(f"seed: {config['seed']} is not from 0 to 4294967295.")
    seed_everything(config["seed"], verbose=False)
    data = data_kind(config["seed"], **config["data"])
    data.prepare_data()
    data.setup()
    return data


class About(NamedTuple):
    """What networks and bank have to know of the data.

    Attributes:
        image_shape: (C, H, W).
        classes: their names.
        labels: of each of the N training images, (N,).
        rows: those that are trained on.
        binary: whether pixels are black or white.
    """

    image_shape: tuple[int, ...]
    classes: Sequence[str]
    labels: Tensor
    rows: Tensor
    binary: bool = True


def build_module(config: Plain, about: About) -> ACN:
    """The module of a config, for such data.

    Raises:
        UsageError: an option is out of range, K is too large for the data, or the likelihood is
            for other pixels.
    """
    shape = about.image_shape
    model = dict(config["model"])
    code_size = model.pop("code_size")
    if code_size < 1:
        raise UsageError(f"model.code_size: {code_size} is below 1.")
    likelihood = component(Likelihood, model.pop("likelihood"), shape[0])
    index = NeighbourIndex(code_size, config["seed"], **config["neighbours"])
    if index.k >= len(about.rows):
        raise UsageError(
            f"neighbours.k: {index.k} neighbours of an image need more than {index.k} training "
            f"images; there are {len(about.rows)}."
        )
    if likelihood.binary and not about.binary:
        raise UsageError(
            f"model.likelihood.kind: {config['model']['likelihood']['kind']} is for pixels of two "
            "values, and the images have more. Use categorical or logistic_mixture, or "
            "data.binarisation=dynamic."
        )
    code_shape = component(Shape, model.pop("shape"), code_size)
    prior = component(Prior, model.pop("prior"), code_size)
    check_price(code_shape, prior)
    module = ACN(
        component(Encoder, model.pop("encoder"), shape, code_size),
        code_shape,
        prior,
        component(Decoder, model.pop("decoder"), shape, code_size, likelihood),
        CodeBank(about.labels, about.rows, code_size, config["seed"]),
        index,
        len(about.classes),
        **model,
    )
    if config["channels_last"]:
        module.to(memory_format=torch.channels_last)
    if config["compile"]:
        check_compiler()
        module.compile()
    known = {KEY: config, "image_shape": list(shape), "classes": list(about.classes)}
    module.save_hyperparameters(known, logger=False)
    return module


def check_price(shape: Shape, prior: Prior) -> None:
    """Raises:
    UsageError: the prior would charge much more for codes of that shape than they can hold.
    """
    if shape.scale is not None and shape.scale > prior.widest:
        raise UsageError(
            f"model.shape.scale: with {shape.scale:g} the prior charges {shape.scale**2 / 2:.1f} "
            f"nats for each dimension of a code, which holds {math.log(1 + shape.scale**2) / 2:.1f}"
            f". Use at most {prior.widest:g}, or model.prior.kind=mixture."
        )


def check_batches(shape: Shape, batch_size: int) -> None:
    """Raises:
    UsageError: too few images a step for what the shape learns of them.
    """
    if batch_size < shape.least:
        raise UsageError(
            f"data.batch_size: codes get their mean and variance from a batch, of at least "
            f"{shape.least} images; here it has {batch_size}. Use more, or model.shape.kind=free."
        )


def check_compiler() -> None:
    """Raises:
    UsageError: there is no compiler that `torch.compile` could hand its code to.
    """
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl"]
    if not any(name and shutil.which(name) for name in names):
        raise UsageError(
            "compile: torch.compile needs a C++ compiler, and there is none here. Install g++ or "
            "clang++, or leave compile=true out."
        )


def component(family: type[Component], options: Mapping[str, Any], *wiring: Any) -> Any:
    """The network of the `kind` that the options name."""
    options = dict(options)
    return family.kinds[options.pop("kind")](*wiring, **options)


def by(shape: Iterable[int]) -> str:
    """(1, 28, 28) in words."""
    return " x ".join(map(str, shape))


def from_checkpoint(path: str, overrides: list[str], bank: bool) -> tuple[Plain, ImageData, ACN]:
    """The config that a checkpoint carries, overrides on top, and what it describes, with the
    checkpoint's weights and, where asked for, its code bank. With its bank come its images: another
    seed then is for what is drawn, not for which images there are.

    Raises:
        UsageError: the checkpoint cannot be read, the overrides contradict its networks, or its
            networks cannot take the data.
    """
    checkpoint = read_checkpoint(path)
    kept = carried_config(checkpoint, overrides)
    config = complete(kept, overrides)
    refuse_changes(kept, config, lambda key: key.startswith("model."))
    built = config | {"seed": kept["seed"]} if bank else config
    data, module = build(built, tuple(checkpoint["hyper_parameters"]["image_shape"]))
    load(module, checkpoint, bank)
    return config, data, module


def load(module: ACN, checkpoint: Mapping[str, Any], bank: bool) -> None:
    """Weights, and the code bank where asked for.

    Raises:
        UsageError: they do not fit.
    """
    try:
        module.load_state_dict(checkpoint["state_dict"])
        if bank:
            module.on_load_checkpoint(dict(checkpoint))
    except (RuntimeError, KeyError) as error:
        raise UsageError(
            f"The checkpoint does not fit its own config: {' '.join(str(error).split())[:300]}"
        ) from error


def restore(checkpoint: dict[str, Any], overrides: Sequence[str] = ()) -> ACN:
    """A checkpoint's module with its weights, its code bank and an index of it, on the CPU. Its
    images are not needed.

    Args:
        checkpoint: as `read_checkpoint` has it.
        overrides: of its config, `section.key=value`.

    Raises:
        UsageError: the overrides contradict its networks, or it does not fit its own config.
    """
    kept = carried_config(checkpoint, overrides)
    config = complete(kept | {"compile": False}, overrides)
    refuse_changes(kept, config, lambda key: key.startswith("model."))
    known, bank = checkpoint["hyper_parameters"], checkpoint["code_bank"]
    # A checkpoint of before they were noted has their numbers.
    classes = known.get("classes", range(int(bank["labels"].max()) + 1))
    names = [str(name) for name in classes]
    module = build_module(
        config, About(tuple(known["image_shape"]), names, bank["labels"], bank["rows"])
    )
    load(module, checkpoint, bank=True)
    module.bank.rebuild(module.index)
    return module.eval()
