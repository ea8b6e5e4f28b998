"""What `acn COMMAND --help` prints, and what is near to a mistyped word: from the signature and the
docstring of the command."""

import inspect
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from acn_lightning.commands import module_of
from acn_lightning.config.keys import usual_key
from acn_lightning.utils.docstrings import arguments, lines_about, takes
from acn_lightning.utils.errors import nearest
from acn_lightning.utils.registry import Option, options

CONF = Path(__file__).parents[1] / "conf"

OTHER_NAMES = {
    "train": "fit", "run": "fit", "eval": "test", "evaluate": "test", "validate": "test",
    "generate": "sample", "draw": "sample", "search": "neighbours", "neighbors": "neighbours",
    "embed": "export", "encode": "export", "config": "show", "print": "show", "list": "options",
    "keys": "options", "autocomplete": "completion",
}  # fmt: skip
"""Words by which other programs call what a command does."""

# ---------------------------------------------------------------- a command's parts


def positional(command: Callable[..., Any]) -> list[inspect.Parameter]:
    """A command's positional parameters, without the overrides."""
    return [
        parameter
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "overrides"
    ]


def section_of(command: Callable[..., Any]) -> str | None:
    """The section whose keys a command takes without its name: its module's SECTION."""
    return getattr(module_of(command), "SECTION", None)


def bare_options(command: Callable[..., Any]) -> dict[str, Option]:
    """The options that a command takes by a name without dots: its keyword-only parameters, and
    the keys of its section, without one that its positional parameters set."""
    own = options(command)
    if section := section_of(command):
        from acn_lightning.config.catalogue import SECTIONS

        own |= SECTIONS[section].options
    given = [one.name for one in positional(command)]
    return {name: option for name, option in own.items() if name not in given}


def takes_config(command: Callable[..., Any]) -> bool:
    """Whether a command takes keys of the config."""
    return arguments(inspect.getdoc(command) or "").get("overrides") != "none."


def usage(command: Callable[..., Any]) -> str:
    """The usage, such as `CHECKPOINT IMAGE ... [key=value ...]`."""
    words = []
    for parameter in positional(command):
        word = parameter.name.upper()
        word += " ..." if parameter.annotation == list[str] else ""
        words.append(f"[{word}]" if parameter.annotation == (str | None) else word)
    takes_keys = takes_config(command) or bare_options(command)
    return " ".join([*words, "[key=value ...]"] if takes_keys else words)


# ---------------------------------------------------------------- help


def describe(command: Callable[..., Any]) -> str:
    """Help on a command's arguments and options, with types, defaults and texts from the docstring,
    and on how to find the config's keys."""
    said = arguments(inspect.getdoc(command) or "")
    lines = ["arguments:"] if positional(command) else []
    for one in positional(command):
        lines += entry(one.name.upper(), said.get(one.name, ""))
    if own := bare_options(command):
        lines += ["", "options:"]
        for name, option in own.items():
            lines += lines_about(name, option.default, takes(*option[::2]), option.text)
    if takes_config(command):
        lines += ["", "config:", *entry("key=value", said.get("overrides", ""))]
        lines += [
            "      acn options lists all keys; acn options SECTION explains those of a section.",
            "      acn show NAME prints an experiment's values, with explain=true in comments.",
        ]
    return "\n".join(lines).strip("\n")


def entry(name: str, text: str) -> list[str]:
    """Lines about an argument."""
    space = " " * 6
    return [f"  {name}", *textwrap.wrap(text, 94, initial_indent=space, subsequent_indent=space)]


def names_of_configs() -> str:
    """Help on the experiments and layers that come with the package."""

    def stems(paths: Iterable[Path]) -> str:
        return ", ".join(sorted(path.stem for path in paths))

    return (
        f"experiments (NAME): {stems(CONF.glob('*.yaml'))}, or a YAML file\n"
        f"layers on top (NAME+LAYER): {stems((CONF / 'layers').glob('*.yaml'))}, or a YAML file"
    )


# ---------------------------------------------------------------- did you mean


def nearest_command(word: str, commands: Iterable[str]) -> str:
    """A question about a word that is no command; empty if none is close."""
    known = {**OTHER_NAMES, **{name: name for name in commands}}
    known = {other: name for other, name in known.items() if name in commands}
    guess = nearest(word, known)
    meant = guess.partition("'")[2].partition("'")[0]
    return f" Did you mean '{known[meant]}'?" if guess else ""


def mistyped(command: Callable[..., Any], words: Iterable[str]) -> str | None:
    """An error about the first word that has dashes, or whose key is none of the config's sections
    or keys, but near to an option of the command; None if there is no such word."""
    own = bare_options(command)
    for word in words:
        key, equals, _ = word.partition("=")
        if (bare := word.lstrip("-")) and bare != word:
            return f"'{word}': write {without_dashes(bare, own)}, without dashes."
        if not equals or "." in key or key in own or key in config_names():
            continue
        if guess := nearest(key, own):
            return f"{key}: acn {command.__name__} has no such option.{guess}"
    return None


def without_dashes(bare: str, own: Iterable[str]) -> str:
    """What to write for a word with dashes, here without them: under the key that its name stands
    for, if no option of the command and no key has it."""
    name, _, value = bare.partition("=")
    name = name.replace("-", "_") if name not in own else name
    known = {*own, *config_names()}
    if name not in known and "." not in name:
        name = usual_key(name) or one_key(name) or bare.partition("=")[0]
    return f"{name}={value or 'VALUE'}"


def one_key(name: str) -> str | None:
    """The key of that name in the Trainer's section or in data's; None if neither has it."""
    from acn_lightning.config.catalogue import SECTIONS, TRAINER

    if name in TRAINER:
        return f"trainer.{name}"
    return f"data.{name}" if name in SECTIONS["data"].options else None


def config_names() -> set[str]:
    """The keys of a config outside of sections, and the sections."""
    from acn_lightning.config.catalogue import SECTIONS
    from acn_lightning.config.keys import KINDS, RUN

    return {*RUN, *SECTIONS, *KINDS, "wandb", "trainer", "callbacks"}
