"""Writes what is told about options, from the signatures and docstrings of the classes that they
belong to: the page configuration.md, and the catalogue that the command reads.

python docs/make_reference.py
"""

from collections.abc import Mapping
from pathlib import Path

from acn_lightning.commands import all_commands
from acn_lightning.config import live
from acn_lightning.config.keys import (
    CODE_SIZE,
    KINDS,
    LEARNING_RATE,
    RUN,
    WANDB,
    Described,
    kind_key,
)
from acn_lightning.config.values import members
from acn_lightning.data.augment import RECIPES
from acn_lightning.utils.docstrings import first_words, type_text, value_text
from acn_lightning.utils.registry import Option, options

HEAD = """\
# Configuration

A config is an experiment's YAML file with defaults below it and `key=value` on top: `acn show NAME`
prints it whole. Its keys are the keyword-only arguments of the classes that they configure; this
page is made from their docstrings by `make docs`. `acn options` prints the same in a terminal. A
command refuses a key that is not here, and names the nearest that is.

A key that takes text gets what you type: `run=007`, `data.root="photos #2"` (the quotes are the
shell's). The rest is YAML: `data.image_size=[64,48]`. `null`, or nothing, is no value where a key
allows that, `${seed}` stands for another key's value, and quotes around a whole text are dropped.
In a file, write text that YAML takes for a number in quotes: `run: "007"`. Zeros in front of a
number mean nothing: `seed=010` is 10.

## The run"""

TRAINER = """\
## trainer

Arguments of [Lightning's Trainer](https://lightning.ai/docs/pytorch/stable/common/trainer.html), by
their own names, but for callbacks, loggers and plugins. `trainer.max_epochs` is 10,
`trainer.devices` is 1 and `trainer.default_root_dir` is `runs` where an experiment says nothing
else. `trainer.precision=auto` takes 16 bits where that is faster, by timing steps. `acn options
trainer` lists them all."""

OPTIMIZER = """\
## optimizer

Of PyTorch. Besides these keys, all arguments of its constructor by their own names, such as
`optimizer.weight_decay`."""

SCHEDULE = """\
## schedule

How the learning rate changes along a run, by `schedule.kind`; or package.module:Name of a
`Schedule`."""

CALLBACKS = """\
## callbacks

Callbacks of your own: `callbacks.NAME.kind=package.module:Name` of a `lightning.Callback`, and the
arguments of its constructor as `callbacks.NAME.KEY`."""

CATALOGUE = '''\
"""The options of a config, with types, defaults and descriptions.

Made by docs/make_reference.py from the classes themselves. Do not edit it: change the classes.
"""

from typing import Any, Literal

from acn_lightning.config.keys import Described
from acn_lightning.utils.registry import Option
'''

COMMANDS = [command for command in all_commands().values() if options(command)]

# ---------------------------------------------------------------- the page


def reference() -> str:
    """Returns the page."""
    kinds = live.kinds()
    parts = [HEAD, table(RUN), TRAINER]
    for name, one in (live.sections() | {"wandb": WANDB}).items():
        own = {"code_size": CODE_SIZE, **one.options} if name == "model" else one.options
        parts.append(f"## {name}\n\n{one.text}\n\n{table(own)}")
        if name == "data":
            parts.append(transforms())
        for section in KINDS:
            if section.partition(".")[0] == name:
                parts += [chapter(f"{kind_key(section)}={kind}", kinds[section][kind])
                          for kind in kinds[section]]  # fmt: skip
    parts.append(
        f"{OPTIMIZER}\n\n{table({'kind': KINDS['optimizer'], 'learning_rate': LEARNING_RATE})}"
    )
    parts += [
        SCHEDULE,
        *(chapter(f"schedule.kind={kind}", one) for kind, one in kinds["schedule"].items()),
    ]
    parts.append(CALLBACKS)
    parts.append(
        "## Options of commands\n\nBeside keys of the config these commands take options of their "
        "own, which no run remembers."
    )
    parts += [
        chapter(f"acn {one.__name__}", Described(first_words(one), options(one)))
        for one in COMMANDS
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def chapter(title: str, one: Described) -> str:
    """Returns a section about something that has options."""
    return f"### {title}\n\n{one.text}\n\n{table(one.options)}".rstrip()


def table(own: Mapping[str, Option]) -> str:
    """Returns a table of options: name, type, default and description."""
    rows = [
        row(f"`{name}`", type_text(one.annotation), value_text(one.default), one.text)
        for name, one in own.items()
    ]
    head = ["| key | type | default | |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]).replace("|  |", "| |") if rows else ""


def row(*cells: str) -> str:
    """Returns a row of a table. A pipe in a cell would begin the next one."""
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def transforms() -> str:
    """Returns a table of what `data.augment_transforms` takes."""
    rows = [
        row(f"`{recipe}`", f"`{name}`", f"{one.size:g}", f"0 to {one.most:g}", one.what)
        for recipe, known in RECIPES.items()
        for name, one in known.items()
    ]
    head = [
        "| `data.augment` | transform | size at strength 1 | range | |",
        "|---|---|---|---|---|",
    ]
    return "\n".join(["### Transforms of augmentation", "", *head, *rows])


# ---------------------------------------------------------------- the catalogue


def catalogue() -> str:
    """Returns the module that lists the options of the config."""
    lines = [CATALOGUE, "SECTIONS = {"]
    for name, one in live.sections().items():
        lines += entry(name, one, 1)
    lines += ["}", "", "KINDS: dict[str, dict[str, Described]] = {"]
    for section, kinds in live.kinds().items():
        lines += [f"    {section!r}: {{"]
        for kind, one in kinds.items():
            lines += entry(kind, one, 2)
        lines += ["    },"]
    lines += ["}", "", "TRAINER = {", *entries(live.trainer(), 1), "}"]
    lines += ["", f"VERSIONS = {live.versions()!r}"]
    return "\n".join(lines) + "\n"


def entry(name: str, one: Described, depth: int) -> list[str]:
    """Returns the lines of a section or kind."""
    space = "    " * depth
    if not one.options:
        return [f"{space}{name!r}: Described({one.text!r}, {{}}),"]
    start = f"{space}{name!r}: Described({one.text!r}, {{"
    return [start, *entries(one.options, depth + 1), f"{space}}}),"]


def entries(own: Mapping[str, Option], depth: int) -> list[str]:
    """Returns a line for each option."""
    return [
        f"{'    ' * depth}{name!r}: Option({annotation(one)}, {one.default!r}, {one.text!r}),"
        for name, one in own.items()
    ]


def annotation(one: Option) -> str:
    """Returns a type as Python writes it."""
    return " | ".join(
        kind.__name__ if type(kind) is type else str(kind).replace("typing.", "")
        for kind in members(one.annotation)
    ).replace("NoneType", "None")


if __name__ == "__main__":
    here = Path(__file__).parent
    listed = here.parent / "acn_lightning" / "config" / "catalogue.py"
    for path, text in ((listed, catalogue()), (here / "configuration.md", reference())):
        path.write_text(text, "utf-8")
        print(path)
