"""Writes configuration.md: every key, from the constructors that a config's sections configure.

python docs/make_reference.py
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from acn_lightning import callbacks
from acn_lightning.commands import use
from acn_lightning.config import compose as config
from acn_lightning.data import ImageData
from acn_lightning.experiment.budget import fitting
from acn_lightning.inference.sampling import draw
from acn_lightning.module import ACN
from acn_lightning.networks.decoders import Decoder
from acn_lightning.networks.encoders import Encoder
from acn_lightning.networks.likelihoods import Likelihood
from acn_lightning.networks.priors import Prior
from acn_lightning.networks.shapes import Shape
from acn_lightning.retrieval.index import NeighbourIndex

HEAD = """\
# Configuration

A config is an experiment's YAML file with defaults below it and `key=value` on top: `acn show NAME`
prints it whole. Its keys are the keyword-only arguments of the classes that they configure; this
page is made from their docstrings by `make docs`. A command refuses a key that is not here, and
names the nearest that is.

## The run

| key | default | |
|---|---|---|
| `experiment` | | name of the experiment: what `acn fit NAME` fills in |
| `seed` | 0 | of weights, order, draws: all that is random |
| `logger` | csv | `csv`, `wandb` or `tensorboard`; `metrics.csv` is always written |
| `run` | null | name of the run's folder; null for the time and a short id |
| `resume` | null | a checkpoint to go on from; `auto` for the newest of the run's own folder |
| `compile` | false | `torch.compile` of a training step's costs |
| `channels_last` | true | memory format of the networks |
| `model.code_size` | 16 | numbers in a code, D |

## trainer

Arguments of [Lightning's Trainer](https://lightning.ai/docs/pytorch/stable/common/trainer.html), by
their own names, but for callbacks, loggers and plugins. `trainer.max_epochs` is 10 and
`trainer.default_root_dir` is `runs` where an experiment says nothing else. `trainer.precision=auto`
takes 16 bits where the machine multiplies them.
"""

SECTIONS: list[tuple[str, Callable[..., Any]]] = [
    ("budget", fitting),
    ("data", ImageData),
    ("model", ACN),
    ("neighbours", NeighbourIndex),
    ("refresh", callbacks.RefreshNeighbours),
    ("finetune", callbacks.Finetune),
    ("checkpoints", callbacks.LastCheckpoint),
    ("evaluation", callbacks.MeasureTest),
    ("pictures", callbacks.DrawPictures),
    ("probe", callbacks.ProbeCodes),
    ("dashboard", callbacks.Dashboard),
    ("sampling", draw),
    ("wandb", config.Wandb),
]

FAMILIES = [
    ("encoder", Encoder),
    ("shape", Shape),
    ("prior", Prior),
    ("decoder", Decoder),
    ("likelihood", Likelihood),
]

COMMANDS = [use.neighbours, use.export, use.explore, use.onnx]


def reference() -> str:
    """The page."""
    parts = [HEAD]
    for name, constructor in SECTIONS:
        parts.append(f"## {name}\n\n{first_words(constructor)}\n\n{table(constructor)}")
        if name == "model":
            for key, family in FAMILIES:
                parts += [
                    f"### model.{key}.kind={kind}\n\n{first_words(one)}\n\n{table(one)}".rstrip()
                    for kind, one in family.kinds.items()
                    if one.__module__.startswith("acn_lightning.")
                ]
    parts.append(
        "## Options of commands\n\nBeside keys of the config these commands take options of their "
        "own, which no run remembers."
    )
    parts += [f"### acn {one.__name__}\n\n{first_words(one)}\n\n{table(one)}" for one in COMMANDS]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def first_words(thing: Any) -> str:
    """Its docstring's first paragraph, as one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def table(constructor: Callable[..., Any]) -> str:
    """Its options, with defaults and what the docstring says of them."""
    described = arguments(inspect.getdoc(constructor) or "")
    options = config.options(constructor) or {
        name: (parameter.annotation, parameter.default)  # a dataclass has no keyword-only ones
        for name, parameter in inspect.signature(constructor).parameters.items()
        if constructor is config.Wandb
    }
    rows = [
        f"| `{name}` | {plain(default)} | {described.get(name, '')} |".replace("  |", " |")
        for name, (_, default) in options.items()
    ]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows]) if rows else ""


def plain(default: Any) -> str:
    """As YAML says it."""
    if not isinstance(default, str | int | float | list | dict | None):  # a dataclass's factory
        return "[]"
    return default or '""' if isinstance(default, str) else json.dumps(default)


def arguments(docstring: str) -> dict[str, str]:
    """What its Args (or a dataclass's Attributes) section says of each name."""
    return dict(_arguments(docstring))


def _arguments(docstring: str) -> Iterator[tuple[str, str]]:
    found = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", docstring, re.M)
    if not found:
        return
    for entry in re.split(r"\n(?=    \w)", found[1].rstrip()):
        names, _, text = entry.strip().partition(": ")
        for name in names.split(", "):
            yield name, " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    path = Path(__file__).with_name("configuration.md")
    path.write_text(reference(), "utf-8")
    print(path)
