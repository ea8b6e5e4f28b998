"""What no class tells about the keys of a config."""

import dataclasses
from typing import Literal, NamedTuple

from acn_lightning.utils.registry import Option


class Described(NamedTuple):
    """A section, or a class that a section can choose.

    Attributes:
        text: what it is.
        options: its own keys.
    """

    text: str
    options: dict[str, Option]


RUN = {
    "experiment": Option(str, dataclasses.MISSING, "name of the experiment: acn fit NAME sets it."),
    "seed": Option(int, 0, "of weights, order, draws: all that is random."),
    "logger": Option(
        str, "csv", '"csv", "wandb" or "tensorboard"; `metrics.csv` is always written.'
    ),
    "run": Option(str | None, None, "name of the run's folder; null for the time and a short id."),
    "resume": Option(
        str | None, None,
        "a checkpoint to go on from; `auto` for the newest of the run's own folder.",
    ),
    "compile": Option(
        bool | Literal["auto"], False,
        "`torch.compile` of a training step's costs; `auto` where the run is long enough for it to "
        "pay, by timing steps.",
    ),
    "channels_last": Option(
        bool | Literal["auto"], True,
        "memory format of the networks; `auto` for the faster one, by timing steps.",
    ),
}  # fmt: skip
"""Keys outside all sections."""

CODE_SIZE = Option(int, 16, "numbers in a code, D.")
"""`model.code_size`: the framework passes it to each network."""

KINDS = {
    "data": Option(str, "digits"),
    "model.encoder": Option(str, "conv", "the network that maps an image to a code."),
    "model.shape": Option(str, "white", "what all codes together look like."),
    "model.prior": Option(str, "mixture", "what a neighbour's code tells about a code."),
    "model.decoder": Option(str, "conv", "the network that describes an image, given a code."),
    "model.likelihood": Option(str, "bernoulli", "the distribution of a pixel."),
    "optimizer": Option(
        str, "adam", '"adam", "adamw" or "sgd"; or package.module:Name of a torch.optim.Optimizer.'
    ),
    "schedule": Option(str, "constant", "how the learning rate changes along a run."),
}
"""Sections that choose a class by a word, and the key `kind` of each; for data it is `source`,
which `ImageData` describes itself."""

LEARNING_RATE = Option(float, 1e-3, "at the start.")
"""`optimizer.learning_rate`: PyTorch's `lr`."""

WANDB = Described(
    "Settings for Weights & Biases, used with `logger=wandb`.",
    {
        "project": Option(str, "acn_lightning", "as in `wandb.init`."),
        "entity": Option(str | None, None, "as in `wandb.init`."),
        "group": Option(str | None, None, "as in `wandb.init`."),
        "name": Option(str | None, None, "as in `wandb.init`."),
        "tags": Option(list[str], [], "as in `wandb.init`."),
        "mode": Option(
            str | None, None,
            '"online", "offline" or "disabled"; null takes WANDB_MODE from the environment, or, if '
            'that is unset, "offline" ("online" in a sweep).',
        ),
    },
)  # fmt: skip
"""The section `wandb`."""

TRAINER_DEFAULTS = {"max_epochs": 10, "default_root_dir": "runs"}
"""Defaults that differ from Lightning's."""

TRAINER_OURS = ("callbacks", "logger", "plugins")
"""Arguments of the Trainer that the framework sets."""

PACKAGES = ("lightning", "torch")
"""Whose own arguments are keys: of the Trainer and of optimisers."""


def kind_key(section: str) -> str:
    """The key that chooses the class of a section."""
    return "data.source" if section == "data" else f"{section}.kind"
