"""Fits training to the machine: chooses sizes and epochs from a few timed steps."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from acn_lightning.callbacks.agreement import plugin_for
from acn_lightning.config.compose import Plain
from acn_lightning.config.sections import Budget
from acn_lightning.data import ImageData
from acn_lightning.experiment.build import build_for
from acn_lightning.experiment.quickest import (
    Way,
    batches_of,
    make_step,
    quickest,
    seconds_of,
    timings,
    ways,
)
from acn_lightning.experiment.trainer import quiet_trainer
from acn_lightning.module import ACN
from acn_lightning.networks.layers import eval_mode
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.progress import doing
from acn_lightning.utils.text import counted

REPEATS = 5
"""How often each part of an epoch is timed, after an untimed time."""

BESIDES = 1.2
"""An epoch's time, over that of its steps, held-out costs and encodings: probes and pictures, which
are due in some epochs, and checkpoints take the rest (1.1 to 1.3, measured with 5,000 images)."""

EACH = 0.2
"""Seconds that an epoch takes besides, however few its images and fast its device: to search, draw
figures and write checkpoints (0.10 to 0.15 s, and 0.3 to 0.45 s more in each fifth, measured with
digits)."""

FEWEST_EPOCHS, FEWEST_IMAGES = 5, 300_000
"""Epochs, and images in all of them, that a larger network must leave time for. With 4,050 images,
27 epochs with 32 channels gave worse codes than 33 with 8, of which none saw 150,000 images. On
MNIST, a decoder of 16 channels was ahead after 230,000 images (`docs/trials.md`)."""

SIZED = {"encoder": 2, "decoder": 1}
"""Parts whose `channels` may be null, to be chosen here, and how wide each is relative to the size
that is chosen. An encoder sees an image once, most of it at a lower resolution. With 5,000 images
one of 16 channels served better than one of 8, a wider decoder did not (`docs/trials.md`)."""


class Choice(NamedTuple):
    """Sizes that fit the budget.

    Attributes:
        channels: of a decoder that left them open, half of an encoder's; None if no part did.
        epochs: how many to train for.
        seconds: approximate time of an epoch.
    """

    channels: int | None
    epochs: int
    seconds: float


def open_parts(config: Plain) -> list[str]:
    """Parts of the model whose `channels` are still to be chosen."""
    return [part for part in SIZED if config["model"][part].get("channels", 0) is None]


def is_open(config: Plain) -> bool:
    """Whether anything is left to choose."""
    return config["trainer"]["max_epochs"] is None or bool(open_parts(config))


def fitting(config: Plain, data: ImageData, trainer: Trainer, budget: Budget) -> Choice:
    """The largest networks that leave time for `trainer.max_epochs` epochs (as many as
    `fewest_epochs` if null), and how many epochs to train for.

    Args:
        config: complete, except that `trainer.max_epochs` and the `channels` of encoder and decoder
            may be null; those are chosen here.
        data: its data, which have been read.
        trainer: sets the device, and the precision if the config does not leave it to be measured.
        budget: how long training may take.

    Raises:
        UsageError: there are several processes, which would each choose for themselves; or a part
            cannot have one of the sizes.
    """
    check_alone(trainer)
    sizes: Sequence[int | None] = budget.channels if open_parts(config) else [None]
    planned = config["trainer"]["max_epochs"]
    limits = trainer.limit_train_batches, trainer.limit_val_batches
    images = data.batch_size * batches_of(len(data.train_set), data.batch_size, limits[0])
    images = max(1, min(images, len(data.train_set)))
    # 0 epochs and those without end say nothing of the time that networks need.
    fewest = planned if planned and planned > 0 else fewest_epochs(images)
    best: Choice | None = None
    for size in sizes:
        try:
            with naming_budget(config):
                module = build_for(data, with_choice(config, Choice(size, 1, 0.0)))
            module.to(trainer.strategy.root_device)
            seconds = epoch_seconds(data, module, ways(config, trainer), limits)
        except torch.OutOfMemoryError:  # of a GPU, which smaller networks may fit
            if best is None:
                raise
            break
        fits = math.floor(60 * budget.minutes / seconds)
        if best and fits < fewest:
            break
        best = Choice(size, max(1, fits) if planned is None else planned, seconds)
    assert best is not None
    return best


def check_alone(trainer: Trainer) -> None:
    """Checks that a run that chooses its sizes has one process.

    Raises:
        UsageError: there are several, which would each choose for themselves.
    """
    if trainer.world_size > 1:
        raise UsageError(
            "trainer.max_epochs: a budget of minutes is for one process. Use trainer.devices=1, "
            "without torchrun or srun, or set the number of epochs, and model.encoder.channels and "
            "model.decoder.channels if they are null."
        )


@contextmanager
def naming_budget(config: Plain) -> Iterator[None]:
    """Puts the key that the user can set in front of errors about sizes that were chosen here.

    Raises:
        UsageError: a part cannot have that size.
    """
    keys = tuple(f"model.{part}.channels:" for part in open_parts(config))
    try:
        yield
    except UsageError as error:
        if str(error).startswith(keys):
            raise UsageError(f"budget.channels: {error}") from error
        raise


def fewest_epochs(images: int) -> int:
    """How many epochs of so many training images a larger network must leave time for.

    Example:
        >>> fewest_epochs(4_050), fewest_epochs(58_000)
        (75, 6)
    """
    return max(FEWEST_EPOCHS, math.ceil(FEWEST_IMAGES / images))


def with_sizes(config: Plain, data: ImageData) -> Plain:
    """The config with all sizes and epochs filled in: what it leaves open is chosen to fit this
    machine, and printed. Draws no random numbers of the run's.

    Args:
        config: a complete config.
        data: its data, which have been read.

    Raises:
        UsageError: as for `fitting`.
    """
    if not is_open(config):
        return config
    trainer = quiet_trainer(config)
    with isolate_rng(), doing("timing networks that fit the budget"):
        choice = fitting(config, data, trainer, Budget(**config["budget"]))
    epochs = counted(choice.epochs, "epoch")
    widths = [f"{part} of {count}" for part, count in widths_of(config, choice).items()]
    sizes = f"{' and '.join(widths)} channels, " if widths else ""
    tried = {way.precision for way in ways(config, trainer)}
    bits = f" in {tried.pop()}" if len(tried) == 1 else ""
    rank_zero_only(print)(
        f"{config['experiment']}: {sizes}{epochs} of about {choice.seconds:.0f} s on "
        f"this {trainer.strategy.root_device.type.upper()}{bits}, for "
        f"budget.minutes={config['budget']['minutes']:g}",
        flush=True,
    )
    if choice.epochs < FEWEST_EPOCHS and config["trainer"]["max_epochs"] is None:
        rank_zero_only(print)(FEW, flush=True)
    return with_choice(config, choice)


FEW = (
    "That is few. A larger budget.minutes allows more; smaller images (data.image_size) and "
    "model.decoder.kind=conv take less time."
)
"""What is said if the smallest networks leave time for few epochs only."""


def with_choice(config: Plain, choice: Choice) -> Plain:
    """The config with the choice filled in."""
    chosen = {part: {"channels": count} for part, count in widths_of(config, choice).items()}
    return with_sizes_of(config, {"model": chosen, "trainer": {"max_epochs": choice.epochs}})


def widths_of(config: Plain, choice: Choice) -> dict[str, int]:
    """The channels of each part of the model that left them open."""
    if choice.channels is None:
        return {}
    return {part: SIZED[part] * choice.channels for part in open_parts(config)}


def with_sizes_of(config: Plain, kept: Plain) -> Plain:
    """The config with its open values taken from `kept`, which has none."""
    model = dict(config["model"])
    for part in open_parts(config):
        model[part] = model[part] | {"channels": kept["model"][part].get("channels")}
    planned, chosen = config["trainer"]["max_epochs"], kept["trainer"]["max_epochs"]
    epochs = chosen if planned is None else planned
    return config | {"model": model, "trainer": config["trainer"] | {"max_epochs": epochs}}


def about_kept(config: Plain, kept: Plain) -> tuple[str, ...]:
    """A line on what a run that resumes does not choose again; none if its config chooses nothing.

    Args:
        config: what it was started with.
        kept: its checkpoint's.
    """
    if config["trainer"]["max_epochs"] is not None:
        return ()
    epochs = kept["trainer"]["max_epochs"]
    if not epochs or epochs < 0:  # it ends by time or by steps
        return ()
    return (
        f"{config['experiment']}: a run that resumes keeps its networks and its number of epochs, "
        f"{epochs}, whatever budget.minutes is; trainer.max_epochs={2 * epochs} trains longer.",
    )


def epoch_seconds(
    data: ImageData,
    module: ACN,
    tried: Sequence[Way],
    limits: tuple[int | float, int | float] = (1.0, 1.0),
) -> float:
    """The approximate time of an epoch in the fastest of some ways: its steps, the held-out costs,
    encoding all images at its end, and `BESIDES` and `EACH`.

    Args:
        data: its images.
        module: the ACN, on its device.
        tried: the ways.
        limits: of batches for training and for validation, as the Trainer has them.
    """
    way = quickest(timings(data, module, tried), tried)
    stored = data.train_set.__getitems__(range(min(data.batch_size, len(data.train_set))))
    image = stored.image.to(module.device).float() / 255
    code = torch.zeros(len(image), module.bank.codes.shape[1], device=module.device)
    context = plugin_for(way.precision, module.device)

    def evaluating(work: Callable[..., Any], *inputs: Tensor) -> Callable[[], None]:
        def run() -> None:
            with eval_mode(module), context.forward_context():
                work(*inputs)

        return run

    def seconds(images: Sized, work: Callable[[], None], limit: int | float = 1.0) -> float:
        work()  # fills caches
        # Not the shortest time, which tells ways apart but is too short for an epoch.
        each = statistics.median(seconds_of(work, module, way) for _ in range(REPEATS))
        return each * batches_of(len(images), data.batch_size, limit)

    return EACH + BESIDES * (
        seconds(data.train_set, make_step(data, module, way), limits[0])
        + seconds(data.validation_set, evaluating(module.costs, image, code), limits[1])
        + seconds(data.fixed_set, evaluating(module, image))
    )


def budget_hint(last: Tensor, lowest: Tensor, minutes: float) -> str:
    """Whether more time would help, judged by when the held-out cost was lowest.

    Args:
        last: the cost after the last epoch.
        lowest: the lowest cost of all epochs.
        minutes: the budget.
    """
    if last <= lowest:
        return (
            "The cost was lowest after the last epoch, so more time should help: a new run with "
            f"budget.minutes={5 * minutes:g} trains longer, and with larger networks if they fit."
        )
    return (
        "The cost was lowest before the last epoch, so more time alone may not help: try more "
        "images, or a larger data.augment_strength."
    )
