"""Training that fits the machine: sizes and epochs from a few timed steps."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning import Trainer

from acn_lightning.config.compose import Plain
from acn_lightning.data import ImageData
from acn_lightning.experiment.build import build_for, read_data
from acn_lightning.module import ACN
from acn_lightning.utils.errors import UsageError

STEPS = 4
"""That are timed, after one that is not."""

FEWEST = 20
"""Epochs that a larger network has to leave time for."""

SIZED = ("encoder", "decoder")
"""Parts whose `channels` may be null: to be chosen."""


class Choice(NamedTuple):
    """What fits.

    Attributes:
        channels: of the parts that left it open; None where none did.
        epochs: to train for.
        seconds: that one takes, about.
    """

    channels: int | None
    epochs: int
    seconds: float


def open_parts(config: Plain) -> list[str]:
    """Parts of the model whose `channels` are to be chosen."""
    return [part for part in SIZED if config["model"][part].get("channels", 0) is None]


def is_open(config: Plain) -> bool:
    """Whether something is left to be chosen."""
    return config["trainer"]["max_epochs"] is None or bool(open_parts(config))


def fitting(
    config: Plain,
    trainer: Trainer,
    *,
    minutes: float = 6.0,
    channels: list[int] = [8, 16, 32, 64],  # noqa: B006  # not changed
) -> Choice:
    """The largest networks that leave time for 20 epochs, and how many epochs there is time for.

    Args:
        config: complete, but for `trainer.max_epochs` and `channels` of encoder and decoder: what
            is null of these is chosen.
        trainer: knows the device and the precision.
        minutes: to train for, about. Times of a few steps tell; other programs on the machine make
            them longer.
        channels: to choose among, the smallest first.

    Raises:
        UsageError: an option is out of range, or there are several processes, each of which would
            choose for itself.
    """
    if not 0 < minutes < 1e6:
        raise UsageError(f"budget.minutes: {minutes} is not above 0.")
    if not channels or list(channels) != sorted(set(channels)) or channels[0] < 1:
        raise UsageError(f"budget.channels: {list(channels)} are no sizes, the smallest first.")
    if trainer.world_size > 1:
        raise UsageError(
            "trainer.max_epochs: a budget of minutes is for one process. Say how many epochs, and "
            "model.encoder.channels and model.decoder.channels where these are null."
        )
    data = read_data(config)
    sizes: Sequence[int | None] = channels if open_parts(config) else [None]
    best: Choice | None = None
    for size in sizes:
        module = build_for(data, filled(config, Choice(size, 1, 0.0)))
        seconds = epoch_seconds(data, module, trainer)
        fits = math.floor(60 * minutes / seconds)
        if best and fits < (config["trainer"]["max_epochs"] or FEWEST):
            break
        best = Choice(size, config["trainer"]["max_epochs"] or max(1, fits), seconds)
    assert best is not None
    return best


def filled(config: Plain, choice: Choice) -> Plain:
    """The config with what was chosen."""
    chosen = {part: {"channels": choice.channels} for part in SIZED}
    return as_before(config, {"model": chosen, "trainer": {"max_epochs": choice.epochs}})


def as_before(config: Plain, kept: Plain) -> Plain:
    """The config with what it leaves open as in another, which left nothing."""
    model = dict(config["model"])
    for part in open_parts(config):
        model[part] = model[part] | {"channels": kept["model"][part].get("channels")}
    epochs = config["trainer"]["max_epochs"] or kept["trainer"]["max_epochs"]
    return config | {"model": model, "trainer": config["trainer"] | {"max_epochs": epochs}}


def epoch_seconds(data: ImageData, module: ACN, trainer: Trainer) -> float:
    """How long an epoch takes, about: its steps, and encoding all images at its end."""
    device = trainer.strategy.root_device
    module.to(device)
    optimizer = torch.optim.Adam(module.parameters())
    stored = data.train_set.__getitems__(range(min(data.batch_size, len(data.train_set))))
    code = torch.randn(len(stored.index), module.bank.codes.shape[1], device=device)

    def step() -> None:
        image = stored.image.to(device).float() / 255
        with trainer.precision_plugin.forward_context():
            rate, distortion, mean = module.costs(image, code, data.transformed(image))
            loss = (rate + distortion).mean() + module.shape.penalty(mean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def encode() -> None:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            module(stored.image.to(device).float() / 255)

    steps = math.ceil(len(data.train_set) / data.batch_size)
    batches = math.ceil(len(data.fixed_set) / data.batch_size)
    return steps * seconds_of(step, device) + batches * seconds_of(encode, device)


def seconds_of(work: Any, device: torch.device) -> float:
    """The mean time of some calls."""
    work()
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        work()
    wait(device)
    return (time.perf_counter() - start) / STEPS
