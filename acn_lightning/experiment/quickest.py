"""Chooses how a training step runs fastest on this machine, by timing it: its precision, the memory
format of its networks, and whether it is compiled."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from acn_lightning.callbacks.agreement import plugin_for
from acn_lightning.callbacks.progress import duration
from acn_lightning.config.compose import Plain
from acn_lightning.data import ImageData
from acn_lightning.experiment.build import build_for, check_compiler
from acn_lightning.experiment.carried import config_of
from acn_lightning.experiment.trainer import make_timer, quickest_precision, quiet_trainer
from acn_lightning.module import ACN
from acn_lightning.utils.errors import UsageError, one_line
from acn_lightning.utils.progress import doing

AUTO = "auto"
"""The value of a key that is left to be measured."""

SECONDS = 1.5
"""How long steps are timed, after an untimed one of each way."""

FEWEST, MOST = 2, 20
"""Timed steps of each way."""

HOPELESS = 2.0
"""A way whose first timed step takes so many times the fastest one's is not timed again."""

BETTER = 1.03
"""How many times as fast as a plainer way another has to be: less may be the noise of a clock, and
a run in 32 bits can be repeated on more machines."""

WORTHWHILE = 1800.0
"""Seconds of the shortest run in which `compile=auto` tries to compile, which may take a minute."""


class Way(NamedTuple):
    """How a training step runs.

    Attributes:
        precision: one of Lightning's that keeps weights in 32 bits.
        channels_last: memory format of the networks.
        compile: whether its costs are compiled.
    """

    precision: str
    channels_last: bool
    compile: bool = False

    def words(self) -> str:
        """The way in words."""
        layout = "channels last" if self.channels_last else "contiguous"
        return f"{self.precision}, {layout}{', compiled' if self.compile else ''}"


class Timings(NamedTuple):
    """What was measured.

    Attributes:
        seconds: the shortest step of each way that works.
        failed: for each that does not, the error in one line.
    """

    seconds: dict[Way, float]
    failed: dict[Way, str]


class Chosen(NamedTuple):
    """How a run's steps are going to run, and why.

    Attributes:
        way: the one to take.
        timings: of those tried; none if there was nothing to choose.
        device: "cpu", "cuda", ...
        skipped: why compiling was not tried; empty if it was, or if nothing asked for it.
    """

    way: Way
    timings: Timings
    device: str
    skipped: str = ""

    def lines(self) -> list[str]:
        """What to tell the user: the choice with all times, and each way that failed."""
        seconds, failed = self.timings
        times = [f"{1000 * one:.1f} ms ({way.words()})" for way, one in seconds.items()]
        measured = f": a step takes {', '.join(times)}" if times else ": the only way"
        skipped = f"; not compiled, as {self.skipped}" if self.skipped else ""
        taken = f"This {self.device.upper()} trains in {self.way.words()}{measured}{skipped}."
        return [taken, *(f"{way.words()} does not work here: {why}" for way, why in failed.items())]

    def as_json(self) -> Plain:
        """The same for `about.json`."""
        seconds, failed = self.timings
        return {
            "device": self.device,
            "chosen": self.way.words(),
            "milliseconds": {way.words(): round(1000 * one, 3) for way, one in seconds.items()},
            "failed": {way.words(): why for way, why in failed.items()},
            "not_compiled": self.skipped or None,
        }


# ---------------------------------------------------------------- what is left to choose


def is_left(config: Plain) -> bool:
    """Whether anything is left to choose."""
    return AUTO in (
        config["trainer"].get("precision"), config["channels_last"], config["compile"]
    )  # fmt: skip


def with_way(config: Plain, way: Way) -> Plain:
    """The config with what it leaves to be measured taken from a way."""
    filled = dict(config)
    if config["trainer"].get("precision") == AUTO:
        filled["trainer"] = config["trainer"] | {"precision": way.precision}
    for name in ("channels_last", "compile"):
        if config[name] == AUTO:
            filled[name] = getattr(way, name)
    return filled


def with_way_of(config: Plain, checkpoint: dict[str, Any]) -> Plain:
    """The config with what it leaves to be measured taken from a checkpoint's config, where that
    has it: a run that resumes takes its steps as before."""
    kept, filled = config_of(checkpoint), dict(config)
    precision = kept.get("trainer", {}).get("precision") or "32-true"
    if config["trainer"].get("precision") == AUTO:
        filled["trainer"] = config["trainer"] | {"precision": precision}
    for name in ("channels_last", "compile"):
        if config[name] == AUTO and isinstance(kept.get(name), bool):
            filled[name] = kept[name]
    return filled


def ways(config: Plain, trainer: Trainer) -> list[Way]:
    """The ways to try, the plainest first; all of them eager.

    16 bits are tried only where the hardware multiplies them: a CPU that emulates them takes
    several times as long (8 times, measured with AVX2).
    """
    formats = [True, False] if config["channels_last"] == AUTO else [config["channels_last"]]
    precisions = [str(trainer.precision)]
    if config["trainer"].get("precision") == AUTO:
        native = quickest_precision(trainer.strategy.root_device.type)
        precisions = list(dict.fromkeys(["32-true", native]))
    return [Way(precision, one) for precision in precisions for one in formats]


# ---------------------------------------------------------------- choosing


def with_quickest(
    config: Plain, data: ImageData, checkpoint: dict[str, Any] | None = None
) -> tuple[Plain, Chosen | None]:
    """The config with nothing left to be measured, and how it was chosen; None if nothing was. Only
    rank 0 measures: the others get its choice by the callback `ShareWay`, and their config back.

    Draws no random numbers of the run's: a choice by itself changes nothing that is drawn.

    Args:
        config: a complete config.
        data: its data, which have been read.
        checkpoint: the one that the run resumes from, whose choice counts; None for a new run.
    """
    if checkpoint is not None and is_left(config):
        config = with_way_of(config, checkpoint)
    if not is_left(config):
        return config, None
    trainer = quiet_trainer(config)
    if trainer.global_rank:
        return config, None
    with isolate_rng(), doing("timing training steps"):
        chosen = choose(config, data, trainer)
    return with_way(config, chosen.way), chosen


def choose(config: Plain, data: ImageData, trainer: Trainer) -> Chosen:
    """Times the ways that a config leaves open; compiling only where the run is long enough."""
    eager, device = ways(config, trainer), trainer.strategy.root_device
    tried = Timings({}, {})
    compiling = config["compile"] == AUTO
    if len(eager) > 1 or compiling:
        plain = config | {"channels_last": False, "compile": False}
        module = build_for(data, plain).to(device)
        tried = timings(data, module, eager)
    way, skipped = quickest(tried, eager) if tried.seconds else eager[0], ""
    if compiling:
        skipped = reason_not_to_compile(config, data, trainer, tried.seconds[way])
        if not skipped:
            # Once more beside the eager ones: other programs may slow the machine down by now.
            every = [*tried.seconds, way._replace(compile=True)]
            again = timings(data, module, every)
            tried = Timings(again.seconds, tried.failed | again.failed)
            way = quickest(again, every)
            torch.compiler.reset()  # what it keeps of networks that are gone
    elif config["compile"]:
        way = way._replace(compile=True)
    return Chosen(way, tried, device.type, skipped)


def quickest(tried: Timings, among: Sequence[Way]) -> Way:
    """The way to take: the fastest, but the plainest, which is the first, where none is clearly
    faster. On a GPU too: a step of small networks takes the time of launching kernels, and 16 bits
    launch more of them.
    """
    working = [way for way in among if way in tried.seconds]
    first = working[0]
    best = min(working, key=tried.seconds.__getitem__)
    return best if BETTER * tried.seconds[best] <= tried.seconds[first] else first


def reason_not_to_compile(config: Plain, data: ImageData, trainer: Trainer, seconds: float) -> str:
    """Why it is not worth trying; empty if it is.

    Args:
        config: the run's.
        data: its data.
        trainer: knows the number of processes.
        seconds: of a step that is not compiled.
    """
    planned = planned_seconds(config, data, trainer, seconds)
    if planned < WORTHWHILE:
        return f"that may take a minute and the run takes about {duration(planned)}"
    try:
        check_compiler()
    except UsageError:
        return "there is no C++ compiler"
    return ""


def planned_seconds(config: Plain, data: ImageData, trainer: Trainer, step: float) -> float:
    """About how long the steps of a run take; infinite if it has no end.

    Args:
        config: the run's.
        data: its data.
        trainer: knows the number of processes.
        step: seconds of a step.
    """
    share = data.batch_size * trainer.world_size
    batches = batches_of(len(data.train_set), share, trainer.limit_train_batches)
    epochs = trainer.max_epochs if trainer.max_epochs is not None else -1
    ends = [epochs * batches] if epochs >= 0 else []
    if trainer.max_steps >= 0:
        ends.append(trainer.max_steps * trainer.accumulate_grad_batches)
    left = make_timer(config).time_remaining()
    return min([*(step * one for one in ends), *([] if left is None else [left])], default=math.inf)


def batches_of(images: int, batch_size: int, limit: int | float) -> int:
    """How many batches an epoch takes of so many images.

    Args:
        images: how many there are.
        batch_size: of all processes together.
        limit: the Trainer's: a number of batches, or a fraction of them.

    Example:
        >>> batches_of(130, 64, 1.0), batches_of(130, 64, 2), batches_of(130, 64, 0.5)
        (3, 2, 1)
    """
    batches = math.ceil(images / batch_size)
    return min(batches, limit) if isinstance(limit, int) else int(limit * batches)


# ---------------------------------------------------------------- timing


def timings(data: ImageData, module: ACN, ways: Sequence[Way]) -> Timings:
    """Times steps in each way by turns, so that other programs slow all ways down alike; the
    shortest step counts. A way that raises an error is left out.

    The weights are trained along. If all ways raise one, the last is raised: so would a run.

    Args:
        data: a batch of it is used.
        module: on the device, not compiled.
        ways: to try.
    """
    found: dict[Way, list[float]] = {way: [] for way in ways}
    failed: dict[Way, str] = {}
    steps = {way: make_step(data, module, way) for way in ways}
    for way, step in steps.items():
        try:
            seconds_of(step, module, way)  # fills caches, and compiles
        except Exception as error:  # whatever the library of a device raises
            if len(failed) == len(ways) - 1:
                raise
            failed[way] = one_line(error)  # in words: the error itself keeps the step's tensors
        if way in failed:
            torch.cuda.empty_cache()
    running = [way for way in ways if way not in failed]
    end = time.perf_counter() + SECONDS
    for turn in range(MOST):
        if turn >= FEWEST and time.perf_counter() > end:
            break
        for way in running:
            found[way].append(seconds_of(steps[way], module, way))
        fastest = min(found[way][0] for way in running)
        running = [way for way in running if found[way][0] < HOPELESS * fastest]
    seconds = {way: min(each) for way, each in found.items() if each}
    return Timings(seconds, failed)


def make_step(data: ImageData, module: ACN, way: Way) -> Callable[[], None]:
    """A training step of a batch: the costs as they are in a run, their gradient, the optimiser;
    without clipping, which a fused optimiser does not go with."""
    device = module.device
    optimizer = module.optimizer.make(module.parameters(), fused=True)
    context = plugin_for(way.precision, device)
    stored = data.train_set.__getitems__(range(min(data.batch_size, len(data.train_set))))
    code = torch.randn(len(stored.index), module.bank.codes.shape[1], device=device)
    costs = module.costs
    if way.compile:
        module.compile()
        costs = module.step_costs

    def step() -> None:
        image = stored.image.to(device).float() / 255
        with context.forward_context():
            rate, distortion, mean = costs(image, code, data.transformed(image))
            loss = (rate + distortion).mean() + module.shape.penalty(mean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def seconds_of(work: Callable[[], None], module: ACN, way: Way) -> float:
    """The time of a call, with the networks in the memory format of a way."""
    last = torch.channels_last if way.channels_last else torch.contiguous_format
    module.to(memory_format=last)
    wait(module.device)
    start = time.perf_counter()
    work()
    wait(module.device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Waits for what a device still has to do."""
    if device.type in ("cuda", "mps"):
        torch.accelerator.synchronize(device)
