"""What may come next on a command line: commands, experiments and layers, keys, values, files."""

import argparse
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any

from acn_lightning.commands._help import CONF, bare_options, positional, section_of, takes_config
from acn_lightning.utils.docstrings import arguments, choices

FILES = ("root", "path", "weights", "checkpoint", "resume", "out", "default_root_dir")
"""Keys, without their sections, whose values are files or folders."""


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell by argcomplete's protocol, and exits."""
    import argcomplete

    argcomplete.autocomplete(
        parser,
        always_complete_options=False,
        default_completer=words,  # type: ignore[arg-type]  # any callable will do
    )


def words(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The words that may come next; argcomplete asks for them."""
    before = [word for word in parsed_args.words or () if "=" not in word]
    return candidates(parsed_args.command, before, prefix)


def candidates(command: Callable[..., Any], before: list[str], prefix: str) -> list[str]:
    """The words that may come next.

    Args:
        command: the command.
        before: its arguments so far, without those of the form key=value.
        prefix: the beginning of the word.
    """
    key, equals, value = prefix.partition("=")
    if equals:
        return [f"{key}={one}" for one in values(command, key, value)]
    parameters = positional(command)
    several = bool(parameters) and parameters[-1].annotation == list[str]
    place = min(len(before), len(parameters) - 1) if several else len(before)
    found = keys_after(command, prefix)
    if place < len(parameters):
        found = [*arguments_like(command, parameters[place], prefix), *found]
    found = [one for one in found if one.startswith(prefix)]
    # A shell puts a space behind a word that is the only one: go on into a section.
    section = found[0] if len(found) == 1 and found[0].endswith(".") else prefix
    return found if section == prefix else candidates(command, before, section)


# ---------------------------------------------------------------- arguments


def arguments_like(
    command: Callable[..., Any], parameter: inspect.Parameter, prefix: str
) -> list[str]:
    """What a positional argument may be."""
    said = arguments(inspect.getdoc(command) or "").get(parameter.name, "")
    if parameter.name == "key":
        from acn_lightning.config.explain import keys, sections

        return [*filter(None, sections()), *keys()] if "." in prefix else list(sections())[1:]
    if words := choices(str, said):
        return words
    if parameter.name == "name":
        return [*experiments(prefix), *files(prefix, ("yaml", "yml"))]
    if parameter.name in ("checkpoint", "run", "runs"):
        return files(prefix, ("ckpt",))
    return [*(experiments(prefix) if "experiment" in said else ()), *files(prefix)]


def experiments(prefix: str) -> list[str]:
    """Experiments; after a whole one, also with layers on top."""
    names = sorted(path.stem for path in CONF.glob("*.yaml"))
    base, plus, _ = prefix.rpartition("+")
    stacked = base if plus else prefix
    if not plus and prefix not in names:
        return names
    layers = sorted(path.stem for path in (CONF / "layers").glob("*.yaml"))
    new = [one for one in layers if one not in stacked.split("+")]
    return [*names, *(f"{stacked}+{one}" for one in new)]


def files(prefix: str, kinds: Iterable[str] = ()) -> list[str]:
    """Files of these kinds, and folders."""
    from argcomplete.completers import FilesCompleter

    return FilesCompleter(list(kinds))(prefix)


# ---------------------------------------------------------------- keys and values


def keys_after(command: Callable[..., Any], prefix: str) -> list[str]:
    """A command's own options, and the config's keys, each with its `=`."""
    own = [f"{name}=" for name in bare_options(command)]
    if not takes_config(command) or any(one.name == "key" for one in positional(command)):
        return own  # `acn options` has keys among its arguments
    from acn_lightning.config.explain import keys

    section = section_of(command)
    given = [f"{section}.{one.name}" for one in positional(command)]
    return [*own, *next_keys((key for key in keys() if key not in given), prefix)]


def next_keys(known: Iterable[str], prefix: str) -> list[str]:
    """Keys and sections that continue a prefix, up to the next dot.

    Example:
        >>> next_keys(["seed", "data.root", "model.code_size", "model.prior.width"], "mo")
        ['model.']
        >>> next_keys(["seed", "data.root", "model.code_size", "model.prior.width"], "model.")
        ['model.code_size=', 'model.prior.']
    """
    found: dict[str, None] = {}
    for key in known:
        if key.startswith(prefix):
            name, dot, _ = key[len(prefix) :].partition(".")
            found[f"{prefix}{name}{dot or '='}"] = None
    return list(found)


def values(command: Callable[..., Any], key: str, value: str) -> list[str]:
    """What a key may be set to."""
    from acn_lightning.config.catalogue import KINDS
    from acn_lightning.config.explain import keys

    section, _, last = key.rpartition(".")
    option = bare_options(command).get(key) or keys().get(key)
    if not option:
        return []
    if last in FILES:
        return [*(["auto"] if key == "resume" else []), *files(value)]
    if key in ("data.source", f"{section}.kind"):
        words = list(KINDS.get(section, ()))
    else:
        words = choices(option.annotation, option.text)
    nothing = ["null"] if type(None) in typing.get_args(option.annotation) else []
    return [one for one in [*words, *nothing] if one.startswith(value)]
