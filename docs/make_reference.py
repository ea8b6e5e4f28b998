"""Writes configuration.md: every key, from the constructors that the config's sections configure.

python docs/make_reference.py
"""

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from acn_lightning.cli import docstring_arguments
from acn_lightning.commands import all_commands
from acn_lightning.config.sections import PARTS, SECTIONS, Wandb
from acn_lightning.data import Source
from acn_lightning.optimization import Schedule
from acn_lightning.utils.registry import Registered, options

FAMILIES = {"data": [Source], "model": [part.family for part in PARTS.values()]}

HEAD = """\
# Configuration

A config is an experiment's YAML file with defaults below it and `key=value` on top: `acn show NAME`
prints it whole. Its keys are the keyword-only arguments of the classes that they configure; this
page is made from their docstrings by `make docs`. A command refuses a key that is not here, and
names the nearest that is.

A key that takes text gets what you type: `run=007`, `data.root="photos #2"` (the quotes are the
shell's). The rest is YAML: `data.image_size=[64,48]`. `null`, or nothing, is no value where a key
allows that, `${seed}` stands for another key's value, and quotes around a whole text are dropped.
In a file, write text that YAML takes for a number in quotes: `run: "007"`.

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

OPTIMIZER = """\
## optimizer

Of PyTorch. Besides these keys, all arguments of its constructor by their own names, such as
`optimizer.weight_decay`.

| key | default | |
|---|---|---|
| `kind` | adam | `adam`, `adamw` or `sgd`; or package.module:Name of a `torch.optim.Optimizer` |
| `learning_rate` | 0.001 | at the start |

## schedule

How the learning rate changes along a run, by `schedule.kind`; or package.module:Name of a
`Schedule`."""

CALLBACKS = """\
## callbacks

Callbacks of your own: `callbacks.NAME.kind=package.module:Name` of a `lightning.Callback`, and the
arguments of its constructor as `callbacks.NAME.KEY`."""

COMMANDS = [command for command in all_commands().values() if options(command)]


def reference() -> str:
    """Returns the page."""
    parts = [HEAD]
    for name, constructor in (SECTIONS | {"wandb": Wandb}).items():
        parts.append(f"## {name}\n\n{first_words(constructor)}\n\n{table(constructor)}")
        parts += [kind for family in FAMILIES.get(name, ()) for kind in kinds(family)]
    parts.append(OPTIMIZER)
    parts += kinds(Schedule)
    parts.append(CALLBACKS)
    parts.append(
        "## Options of commands\n\nBeside keys of the config these commands take options of their "
        "own, which no run remembers."
    )
    parts += [f"### acn {one.__name__}\n\n{first_words(one)}\n\n{table(one)}" for one in COMMANDS]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def kinds(family: type[Registered]) -> Iterator[str]:
    """Yields a section for each of this package's kinds of a family."""
    for kind, one in family.kinds.items():
        if one.__module__.startswith("acn_lightning."):
            yield f"### {family.key}={kind}\n\n{first_words(one)}\n\n{table(one)}".rstrip()


def first_words(thing: Any) -> str:
    """Returns the first paragraph of the docstring, as one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def table(constructor: Callable[..., Any]) -> str:
    """Returns a table of the options: name, default and description from the docstring."""
    described = docstring_arguments(inspect.getdoc(constructor) or "")
    own = options(constructor) or {
        name: (parameter.annotation, parameter.default)  # a dataclass has no keyword-only arguments
        for name, parameter in inspect.signature(constructor).parameters.items()
        if constructor is Wandb
    }
    rows = [
        f"| `{name}` | {plain(default)} | {described.get(name, '')} |".replace("  |", " |")
        for name, (_, default) in own.items()
    ]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows]) if rows else ""


def plain(default: Any) -> str:
    """Returns a default as YAML writes it."""
    if not isinstance(default, str | int | float | list | dict | None):  # a dataclass's factory
        return "[]"
    return default or '""' if isinstance(default, str) else json.dumps(default)


if __name__ == "__main__":
    path = Path(__file__).with_name("configuration.md")
    path.write_text(reference(), "utf-8")
    print(path)
