"""Faults of a run that its figures show, each with the setting to change: functions of figures."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

GAP, CAUGHT_UP = 0.5, 1000
"""Nats per code dimension, above which running statistics no longer match the batch's, and the step
from which they should, or half of a run if that is less. Six healthy runs of `folder`, of which
the learning rate is 0.002, began with 2 to 11 nats per dimension, were above half a nat until step
450, and came to 0.02 to 0.07."""

DEAD = 0.25
"""Largest variance of codes in any direction, and share of active dimensions, below which codes
collapse. The posterior's own variance is 1; a white code's, 2.25."""

THREAD = 2.5
"""Effective code dimensions, below which codes lie on a thread; a quarter of all if that is less.
A run of digits without decorrelation came to 1.9; others had 12 to 15.8, folders 9 to 49 of 64."""

DRIFT = 1.5
"""Distance of stored codes from fresh ones, in distances to a neighbour. At 1.6 a KNN classifier
lost half of its accuracy to old codes, at 1.2 a fifth. Healthy runs of digits begin with 1.4 to 1.8
and come to 0.9 to 1.2 (their stored codes are of transformed copies), without copies to 0.2."""

GAIN = 0.5
"""Nats that its code must save an image, at least; and a twentieth of what it costs. Decoders
without codes saved 0.1 or less, poor PixelCNNs 0.7 after three epochs, good decoders 3 to 60."""

WORTH = 1 / 20
"""The twentieth."""

STEPS = 200
"""Steps in all, below which a model learns next to nothing. The smallest networks here needed them
until digits' codes gained 6 nats; after 60 it was 0.2."""

PATIENCE = 3
"""Epochs of a rising held-out cost."""

RISE = 0.01
"""Rise of the held-out cost above its lowest, as a share of it."""

GIVEN = 0.5
"""Share of its threads' time that a run is given, below which they wait for each other. On two
cores beside two busy programs, two threads were given a third, and took four times as long as one
thread did."""

BUSY = 1.1
"""Programs that are ready to run for each core, above which the cores are short."""

SETTLED = 3
"""Epochs in which codes may move far and say little, as in the first `STEPS`: all runs begin so."""


class Finding(NamedTuple):
    """A fault.

    Attributes:
        name: kind of the fault; a run reports each once.
        message: what was seen.
        remedy: the setting to change.
    """

    name: str
    message: str
    remedy: str


class Figures(NamedTuple):
    """What is known of a run at the end of an epoch.

    Attributes:
        logged: metrics by their names on a dashboard.
        history: (`val/total`, `train/total`) after each epoch in which both were measured, or
            those of them that `needed` keeps.
        epochs: number of epochs so far.
        images: number of training images.
        batch_size: number of images in a step.
        code_size: D.
        steps: number of steps planned; infinite if the end is open.
        done: number of steps so far.
        recall: recall that the index should have.
        advice: how to raise it.
    """

    logged: Mapping[str, float]
    history: Sequence[Sequence[float]] = ()
    epochs: int = 1
    images: int = 0
    batch_size: int = 1
    code_size: int = 1
    steps: float = math.inf
    done: int = 0
    recall: float = 0.0
    advice: str = ""

    @property
    def settled(self) -> bool:
        """Whether codes should have found their places."""
        return self.epochs >= SETTLED and self.done >= STEPS

    def get(self, name: str) -> float:
        """A logged figure; NaN, which is on neither side of a threshold, if there is none."""
        return self.logged.get(name, math.nan)


def find(figures: Figures) -> list[Finding]:
    """All faults that these figures show."""
    return [found for case in CASES if (found := case(figures))]


# ---------------------------------------------------------------- codes


def collapse(figures: Figures) -> Finding | None:
    """Codes hardly vary: `codes/eigenvalue_max` or the share of active dimensions is below 0.25."""
    active, largest = (
        figures.get(f"codes/{name}") for name in ("active_dimensions", "eigenvalue_max")
    )
    dead = active < DEAD * figures.code_size or largest < DEAD
    if not figures.settled or not dead:
        return None
    return Finding(
        "collapse",
        f"Codes hardly vary: {active:.0f} of {figures.code_size} dimensions do, at most with a "
        f"variance of {largest:.2g}, where that of the noise is 1.",
        "Use model.shape.kind=white, or a lower model.rate_weight or a model.warmup_epochs.",
    )


def thread(figures: Figures) -> Finding | None:
    """All dimensions say the same: `codes/effective_dimensions` is below 2.5, and codes vary."""
    effective, largest = (
        figures.get(f"codes/{name}") for name in ("effective_dimensions", "eigenvalue_max")
    )
    few = effective < min(THREAD, figures.code_size / 4)
    if not (figures.settled and few and largest > 1):
        return None
    return Finding(
        "thread",
        f"Codes lie on a thread: their {figures.code_size} dimensions vary as {effective:.1f} "
        "would.",
        "Raise model.shape.decorrelation.",
    )


def stale(figures: Figures) -> Finding | None:
    """Stored codes lie one and a half times as far from fresh ones, `codes/drift`, as from their
    neighbours."""
    drift = figures.get("codes/drift")
    if not figures.settled or not drift > DRIFT:
        return None
    return Finding(
        "stale_codes",
        f"Stored codes are out of date: the current weights move a code {drift:.1f} times as far "
        "as its neighbours are away, so neighbours are those of an earlier encoder.",
        "Leave out refresh.encode=false, or lower optimizer.learning_rate.",
    )


def gap(figures: Figures) -> Finding | None:
    """`codes/statistics_gap` is above half a nat per dimension, long after the beginning."""
    nats = figures.get("codes/statistics_gap")
    early = figures.done < min(CAUGHT_UP, figures.steps / 2)
    if not figures.settled or early or not nats > GAP * figures.code_size:
        return None
    return Finding(
        "statistics_gap",
        f"Codes by the running mean and variance lie {nats:.3g} nats from those by a batch's own: "
        "the running statistics lag behind the encoder, so held-out rates mean little.",
        "Lower optimizer.learning_rate or model.shape.decorrelation.",
    )


def ignored(figures: Figures) -> Finding | None:
    """The code saves the decoder nothing, `codes/gain`, or far less than it costs, `val/rate`."""
    gain, rate = figures.get("codes/gain"), figures.get("val/rate")
    if not figures.settled or not (gain < GAIN or gain < WORTH * rate):
        return None
    price = "" if math.isnan(rate) else f", which itself costs {rate:.2g}"
    return Finding(
        "ignored_codes",
        f"The decoder ignores the code: another image's code costs it {gain:.2g} nats more than "
        f"the image's own{price}.",
        "Use model.decoder.kind=conv or fewer model.decoder.layers, and model.shape.kind=white.",
    )


# ---------------------------------------------------------------- the bank


def unfilled(figures: Figures) -> Finding | None:
    """The epoch left out training images: `bank/refreshed` is below their number."""
    refreshed, unseen = figures.get("bank/refreshed"), figures.get("bank/unseen")
    if not refreshed < figures.images:
        return None
    return Finding(
        "unfilled_bank",
        f"Only {refreshed:,.0f} of {figures.images:,} codes were refreshed in this epoch; "
        f"{unseen:,.0f} never were.",
        "Raise trainer.limit_train_batches or trainer.max_steps, unless this is intended.",
    )


def recall(figures: Figures) -> Finding | None:
    """`bank/recall` is below `neighbours.recall`."""
    found = figures.get("bank/recall")
    if not found < figures.recall:
        return None
    return Finding(
        "recall",
        f"The neighbour index finds {found:.1%} of the true neighbours, less than "
        f"neighbours.recall={figures.recall:g}.",
        figures.advice,
    )


# ---------------------------------------------------------------- training


def few_steps(figures: Figures) -> Finding | None:
    """The run is planned with fewer than 200 steps."""
    if not figures.steps < STEPS:
        return None
    an_epoch = math.ceil(figures.images / figures.batch_size)
    large = figures.batch_size > 16 and an_epoch < 20
    smaller = "a smaller data.batch_size or " if large else ""
    return Finding(
        "few_steps",
        f"Steps of this run: {figures.steps:.0f}, {an_epoch} an epoch. That is too few to learn "
        f"much ({STEPS} are a beginning).",
        f"Use {smaller}more trainer.max_epochs.",
    )


def needed(history: Sequence[list[float]]) -> list[list[float]]:
    """What `overfitting` reads of the costs of all epochs: the lowest held-out one and the last."""
    before, last = history[: -PATIENCE - 1], history[-PATIENCE - 1 :]
    return [*([min(before)] if before else []), *last]


def overfitting(figures: Figures) -> Finding | None:
    """`val/total` is rising for three epochs, and `train/total` falling."""
    if len(figures.history) <= PATIENCE:
        return None
    held_out, train = zip(*figures.history, strict=True)
    lowest = min(held_out)
    last = held_out[-PATIENCE - 1 :]
    rising = all(after > before for before, after in pairwise(last))
    risen = held_out[-1] > lowest + RISE * abs(lowest)
    if not (rising and risen and train[-1] < train[-PATIENCE - 1]):
        return None
    return Finding(
        "overfitting",
        f"The held-out cost rises, from {lowest:.2f} to {held_out[-1]:.2f} nats, while that of the "
        "training images falls.",
        "best.ckpt keeps the best epoch. Use another data.augment, smaller networks or fewer "
        "trainer.max_epochs.",
    )


def shared_cores(share: float, threads: int, load: float, cores: int) -> Finding | None:
    """Threads of a run on a CPU are given less than half of the time that they would need, while
    more programs are ready to run than there are cores.

    Args:
        share: CPU seconds of the process, divided by seconds and threads.
        threads: number of threads of torch.
        load: mean number of processes and threads that are ready to run, on the whole machine.
        cores: number of cores of the machine.
    """
    if threads < 2 or not (share < GIVEN and load > BUSY * cores):
        return None
    return Finding(
        "shared_cores",
        f"The {threads} threads of this run get {share:.0%} of the time that they need: more are "
        f"at work than there are cores (load {load:.1f}, {cores} cores), perhaps of another "
        "program. Threads that wait for each other are slower than one.",
        "Set OMP_NUM_THREADS=1, or the number of cores that are free, and start again with "
        "resume=auto.",
    )


def below_pixels(representations: Mapping[str, Any], images: int) -> Finding | None:
    """After a test: codes do worse than pixels or principal components, which need no model.

    Args:
        representations: results of `classifiers.measure` by name; None if not measured.
        images: number of test images with a label.
    """
    codes, pixels, pca = (representations[name] for name in ("codes", "pixels", "pca"))
    if not codes or not pixels or codes["linear"] > max(pixels["linear"], pca["linear"]):
        return None
    best, name = (
        (pca, "principal components") if pca["linear"] > pixels["linear"] else (pixels, "pixels")
    )
    more = round(images * (best["linear"] - codes["linear"]))
    # What only one of two classifiers gets right is at most what either gets wrong.
    deviation = math.sqrt(images * (2 - best["linear"] - codes["linear"]))
    luck = ", which may be luck" if more < 2 * deviation else ""
    return Finding(
        "codes_below_pixels",
        f"A linear classifier gets {more:,} more of {images:,} test images right from {name} than "
        f"from the codes{luck}."
        if more
        else f"A linear classifier does as well on {name} as on the codes.",
        "Train longer, or try another data.augment or model.rate_weight.",
    )


CASES: tuple[Callable[[Figures], Finding | None], ...] = (
    collapse, thread, stale, gap, ignored, unfilled, recall, few_steps, overfitting,
)  # fmt: skip
"""What is looked for."""
