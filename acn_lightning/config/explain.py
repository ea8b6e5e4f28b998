"""Tells a user about keys: in a terminal, and as comments of a YAML file. Imports no torch."""

import ast
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from acn_lightning.config import catalogue
from acn_lightning.config.compose import Plain, on_one_line, parse_overrides, to_yaml
from acn_lightning.config.keys import (
    CODE_SIZE,
    KINDS,
    LEARNING_RATE,
    RUN,
    WANDB,
    Described,
    kind_key,
    usual_key,
)
from acn_lightning.config.schema import kind_of, kind_options, trainer_schema
from acn_lightning.utils.docstrings import arguments, lines_about, takes
from acn_lightning.utils.errors import UsageError, nearest
from acn_lightning.utils.registry import Option

CALLBACKS = Described(
    "Callbacks of your own: callbacks.NAME.kind=package.module:Name, and the arguments of its "
    "constructor as callbacks.NAME.KEY.",
    {},
)

# ---------------------------------------------------------------- what there is


@cache
def sections() -> dict[str, Described]:
    """The sections by their dotted names, with the keys that they always have. Those outside of
    sections are under ""."""
    found = {"": Described("Keys outside of all sections.", RUN)}
    for name, one in catalogue.SECTIONS.items():
        found[name] = one
        if name == "model":
            found[name] = Described(one.text, {"code_size": CODE_SIZE, **one.options})
            found |= {part: chosen_by(part) for part in KINDS if part.startswith("model.")}
    found["optimizer"] = Described(
        "The optimiser, by its kind, with PyTorch's own arguments for it.",
        {"kind": KINDS["optimizer"], "learning_rate": LEARNING_RATE},
    )
    found["schedule"] = chosen_by("schedule")
    found["callbacks"] = CALLBACKS
    found["trainer"] = Described("The arguments of Lightning's Trainer.", trainer_keys())
    return found | {"wandb": WANDB}


def chosen_by(name: str) -> Described:
    """A section whose only fixed key chooses a class; the section's text says for what."""
    text = KINDS[name].text
    return Described(text[:1].upper() + text[1:], {"kind": KINDS[name]._replace(text="")})


def trainer_keys() -> dict[str, Option]:
    """The arguments of the Trainer, with what Lightning says about them, and "auto" for the
    precision, which this package adds."""
    said = lightning_says()
    found = {
        name: option._replace(text=said.get(name, "")) for name, option in trainer_schema().items()
    }
    of, default, text = found["precision"]
    auto = f"{text} auto takes 16 bits where that is faster, by timing steps.".lstrip()
    return found | {"precision": Option(Literal["auto"] | of, default, auto)}


def lightning_says() -> dict[str, str]:
    """What the installed Lightning says about each argument of its Trainer: the first sentence.
    Its file is read, as importing it takes seconds."""
    spec = find_spec("lightning")
    where = spec.submodule_search_locations if spec else None
    path = Path(where[0]) / "pytorch" / "trainer" / "trainer.py" if where else Path()
    if not path.is_file():
        return {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            said = arguments(ast.get_docstring(node) or "")
            return {
                name: f"{text.partition('. ')[0].rstrip('.')}.".replace("``", "`")
                for name, text in said.items()
            }
    return {}


@cache
def keys() -> dict[str, Option]:
    """Every dotted key. One that several kinds have stands for the first of them."""
    found = {
        f"{name}.{key}".lstrip("."): option
        for name, section in sections().items()
        for key, option in section.options.items()
    }
    for name in KINDS:
        for kind in catalogue.KINDS[name]:
            for key, option in kind_options(name, kind).items():
                found.setdefault(f"{name}.{key}", option)
    return found


# ---------------------------------------------------------------- in a terminal


def overview() -> str:
    """A line for each section."""
    lines = [f"Keys: {', '.join(RUN)}.", "", "Sections:"]
    for name, one in sections().items():
        text = textwrap.shorten(one.text.split(". ")[0].rstrip(":."), 76, placeholder=" ...")
        lines += [f"  {name:<18}{text}"] if name else []
    lines += [
        "",
        "acn options SECTION explains its keys, and those of each kind that it can choose.",
        "acn options SECTION.KEY explains one. acn options model.decoder.kind=mine:Name explains a",
        "class of your own. acn show NAME prints an experiment's values.",
    ]
    return "\n".join(lines)


def about(name: str, words: Sequence[str] = ()) -> str:
    """What there is to say about a section or a key.

    Args:
        name: dotted.
        words: the kind to tell of, such as `model.decoder.kind=pixelcnn` or `kind=pixelcnn`; by
            default all of the package's.

    Raises:
        UsageError: there is no such section, key or kind; or a word is about something else.
    """
    asked, (section, _, key) = name, name.rpartition(".")
    if section in KINDS and name == kind_key(section):
        name = section
    part = name if name in KINDS else section
    words = [in_full(word, part) for word in words]
    kinds = kinds_of(part, parse_overrides(words))
    if name in sections():
        lines = list(about_section(name, kinds))
    elif section in sections() and key in sections()[section].options:
        lines = about_key(name, sections()[section].options[key])
    else:
        lines = []
        for kind, own in kinds.items():
            if key in own.options:
                lines += ["", f"{kind_key(section)}={kind}", *about_key(name, own.options[key])]
    if not lines:
        raise UsageError(f"{asked}: there is no such section or key.{like(asked)}")
    known = kind_key(part) if part in KINDS else asked
    if wrong := [word for word in words if word.partition("=")[0] not in (asked, known)]:
        only = f"only {known}=KIND" if part in KINDS else "no other words"
        raise UsageError(f"'{wrong[0]}': with {asked}, acn options takes {only}.")
    return "\n".join(lines).removeprefix("\n")


def in_full(word: str, section: str) -> str:
    """A word that chooses a kind, with the name of the section: kind=conv."""
    short = kind_key(section).rpartition(".")[2] if section in KINDS else ""
    return f"{section}.{word}" if short and word.startswith(f"{short}=") else word


def like(name: str) -> str:
    """A question about a name that no section or key has, or where to look."""
    if name in keys():
        return f" It is of another kind: acn options {name} says of which."
    if (usual := usual_key(name)) in keys():
        return f" Did you mean '{usual}'?"
    known = [*keys(), *filter(None, sections())]
    last = {one.rpartition(".")[2]: one for one in reversed(known)}
    guess = last.get(name.rpartition(".")[2])
    return nearest(name, known) or (
        f" Did you mean '{guess}'?" if guess else " acn options lists all sections."
    )


def about_section(name: str, kinds: Mapping[str, Described]) -> Iterator[str]:
    """Yields what there is to say about a section: its keys, then those of each kind."""
    one = sections()[name]
    yield from textwrap.wrap(one.text, 98)
    for key, option in one.options.items():
        yield from about_key(f"{name}.{key}".lstrip("."), option)
    for kind, own in kinds.items():
        yield from ["", f"{kind_key(name)}={kind}"]
        yield from textwrap.wrap(own.text, 96, initial_indent="  ", subsequent_indent="  ")
        for key, option in own.options.items():
            yield from about_key(f"{name}.{key}", option)
    below = [other for other in sections() if other.startswith(f"{name}.") and name]
    if below:
        yield from ["", f"Sections in it: {', '.join(below)}."]


def about_key(name: str, option: Option) -> list[str]:
    """Lines about a key."""
    return lines_about(name, option.default, taken(name, option), option.text)


def taken(name: str, option: Option) -> str:
    """What a key takes."""
    section = name.rpartition(".")[0]
    if section in KINDS and name == kind_key(section):
        return ", ".join([*catalogue.KINDS[section], "package.module:Name"])
    return takes(option.annotation, option.text)


def kinds_of(section: str, chosen: DictConfig) -> dict[str, Described]:
    """The kinds of a section that a config chooses; by default all of the package's.

    Raises:
        UsageError: there is no such kind.
    """
    if section not in KINDS:
        return {}
    own = catalogue.KINDS[section]
    kinds = list(own)
    with on_one_line():
        if OmegaConf.select(chosen, kind_key(section)) is not None:
            kinds = [kind_of(chosen, section)]
    return {
        kind: Described(own[kind].text if kind in own else "", kind_options(section, kind))
        for kind in kinds
    }


# ---------------------------------------------------------------- in a file


def explained(config: Plain) -> str:
    """A complete config as YAML, each key under a comment that tells what it is."""
    return "\n".join(commented(config, config, "")).strip("\n")


def commented(config: Plain, part: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Yields the lines of a part of a config, which is that of the prefix."""
    space = "  " * prefix.count(".")
    for key, value in part.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name in sections():
            yield from ["", *comment(sections()[name].text, space)]
            yield f"{space}{key}:" + ("" if value else " {}")
            yield from commented(config, value, f"{name}.")
            continue
        if option := option_of(config, name):
            yield from comment(f"{option.text} ({taken(name, option)})".strip(), space)
        yield from (f"{space}{line}" for line in to_yaml({key: value}).rstrip("\n").split("\n"))


def option_of(config: Plain, name: str) -> Option | None:
    """The option that a key of a config sets; None for arguments of callbacks."""
    section, _, key = name.rpartition(".")
    if section not in sections():
        return None
    own = sections()[section].options
    if section in KINDS:
        chosen: Any = config
        for word in kind_key(section).split("."):
            chosen = chosen[word]
        own = kind_options(section, chosen) | own
    return own.get(key)


def comment(text: str, space: str) -> list[str]:
    """A text as comment lines."""
    start = f"{space}# "
    return textwrap.wrap(text.strip(), 100, initial_indent=start, subsequent_indent=start)
