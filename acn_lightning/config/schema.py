"""The schema that configs are checked against.

A section's keys are the keyword-only arguments of the class that it configures (`sections.py`),
with the same names, types and defaults. They are read from the catalogue, a list of them made by
`docs/make_reference.py`: importing the classes takes seconds.
"""

import copy
import dataclasses
import inspect
import keyword
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from acn_lightning.config import catalogue
from acn_lightning.config.keys import (
    CODE_SIZE,
    KINDS,
    LEARNING_RATE,
    RUN,
    TRAINER_DEFAULTS,
    TRAINER_OURS,
    WANDB,
    kind_key,
    usual_key,
)
from acn_lightning.config.values import members, storable
from acn_lightning.utils.errors import UsageError, nearest
from acn_lightning.utils.registry import Option

ANNOTATION = "annotation"
"""Under this name a field of the schema keeps its option's annotation."""


# ---------------------------------------------------------------- the schema


def make_schema(chosen: DictConfig) -> type:
    """The dataclass that a config is checked against, given the kinds that it chooses.

    Raises:
        UsageError: there is no such kind.
    """
    sections: dict[str, Option | type] = {
        name: section(name, one.options) for name, one in catalogue.SECTIONS.items()
    }
    sections["data"] = section(
        "data", catalogue.SECTIONS["data"].options | chosen_options("data", chosen)
    )
    sections["model"] = section(
        "model",
        {"code_size": CODE_SIZE, **catalogue.SECTIONS["model"].options, **model_parts(chosen)},
    )
    sections["optimizer"] = section("optimizer", optimizer_schema(chosen))
    sections["schedule"] = kind_section("schedule", chosen)
    sections["callbacks"] = section("callbacks", callback_schemas(chosen))
    sections["trainer"] = section("trainer", trainer_schema(), plain_type)
    return section("config", {**RUN, **sections, "wandb": section("wandb", WANDB.options)})


def kind_of(chosen: DictConfig, name: str) -> str:
    """The kind that a config chooses for a section."""
    key = kind_key(name)
    kind = OmegaConf.select(chosen, key, default=KINDS[name].default)
    if not isinstance(kind, str):
        raise UsageError(f"{key}: {kind} is not the name of a class.")
    return kind


def chosen_options(name: str, chosen: DictConfig) -> dict[str, Option]:
    """The options of the class that a config chooses for a section.

    Raises:
        UsageError: there is no such kind.
    """
    return kind_options(name, kind_of(chosen, name))


def kind_options(name: str, kind: str) -> dict[str, Option]:
    """The options of a kind: from the catalogue, or from a class that is not in it.

    Raises:
        UsageError: there is no such kind.
    """
    if kind in catalogue.KINDS[name] and (name != "optimizer" or is_current("torch")):
        return catalogue.KINDS[name][kind].options
    from acn_lightning.config import live  # imports torch

    return live.kind_options(name, kind)


def is_current(package: str) -> bool:
    """Whether the catalogue was made with the installed version of a package."""
    return version(package).partition("+")[0] == catalogue.VERSIONS[package]


def model_parts(chosen: DictConfig) -> dict[str, type]:
    """A section for each network of the model."""
    names = [name.partition(".")[2] for name in KINDS if name.startswith("model.")]
    return {name: kind_section(f"model.{name}", chosen) for name in names}


def kind_section(name: str, chosen: DictConfig) -> type:
    """A section for the class that a config chooses."""
    kind = Option(str, kind_of(chosen, name))
    return section(name.rpartition(".")[2], {"kind": kind} | chosen_options(name, chosen))


def optimizer_schema(chosen: DictConfig) -> dict[str, Option]:
    """The optimiser's keys. Its own arguments are null unless set, and are then left to PyTorch,
    which compares texts with numbers."""
    own = unset(chosen_options("optimizer", chosen))
    kind = Option(str, kind_of(chosen, "optimizer"))
    return {"kind": kind, "learning_rate": LEARNING_RATE, **own}


def unset(own: Mapping[str, Option]) -> dict[str, Option]:
    """Arguments of another package's class as options: null leaves one to that class."""
    return {
        name: Option(Any if (kind := plain_type(of)) is Any else kind | None, None)
        for name, (of, *_) in own.items()
    }


def callback_schemas(chosen: DictConfig) -> dict[str, type]:
    """A section for each callback that the config adds.

    Raises:
        UsageError: a callback has no kind, or its kind is not a Lightning callback.
    """
    schemas = {}
    given = OmegaConf.select(chosen, "callbacks")
    for name in map(str, given if isinstance(given, DictConfig) else ()):
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UsageError(f"callbacks: {name!r} is not a name of letters, digits and _.")
        one = given[name]
        kind = one.get("kind") if isinstance(one, DictConfig) else None
        if not isinstance(kind, str):
            raise UsageError(
                f"callbacks.{name}.kind: say which class: callbacks.{name}.kind=package.module:Name"
            )
        from acn_lightning.config import live  # imports torch

        own = unset(live.callback_options(kind, name))
        schemas[name] = section(name, {"kind": Option(str, kind), **own})
    return schemas


def trainer_options() -> dict[str, Option]:
    """The arguments of Lightning's Trainer that a config may set."""
    if is_current("lightning"):
        return catalogue.TRAINER
    from acn_lightning.config import live  # imports Lightning

    return live.trainer()


def trainer_schema() -> dict[str, Option]:
    """These arguments with our defaults."""
    return {
        name: option._replace(default=TRAINER_DEFAULTS.get(name, option.default))
        for name, option in trainer_options().items()
    }


# ---------------------------------------------------------------- dataclasses


def section(
    name: str, content: Mapping[str, Option | type], check: Callable[[Any], Any] | None = None
) -> type:
    """A dataclass of these options; a value that is itself a dataclass becomes a section. Fields
    keep their full annotation, as OmegaConf checks only some types.

    Args:
        name: of the section.
        content: its options and sections, by key.
        check: from an annotation to a type that OmegaConf can check; by default `checked`.
    """
    check = check or checked
    fields: list[tuple[str, Any, Any]] = []
    for key, value in content.items():
        if isinstance(value, type):
            fields.append((key, value, dataclasses.field(default_factory=value)))
            continue
        annotation, default, _ = value
        default = list(default) if isinstance(default, tuple) else default
        given: dict[str, Any] = {"default": default}
        if isinstance(default, list | dict):
            given = {"default_factory": partial(copy.deepcopy, default)}
        elif default is inspect.Parameter.empty:
            given = {"default": MISSING}
        own = dataclasses.field(**given, metadata={ANNOTATION: annotation})
        fields.append((key, check(annotation), own))
    return dataclasses.make_dataclass(name.capitalize(), fields, kw_only=True)


def checked(annotation: Any) -> Any:
    """The type if OmegaConf can check it. Otherwise Any: a user's class may have no annotation, or
    that of a type of which YAML knows nothing."""
    known = (one in (Any, Path) or storable(one) == one for one in members(annotation))
    return annotation if all(known) else Any


def plain_type(annotation: Any) -> Any:
    """The type if OmegaConf can check it: numbers, strings, None and unions of them. Otherwise Any,
    which leaves the check to the Trainer."""
    taken = tuple(dict.fromkeys(str if one is Path else one for one in members(annotation)))
    if not all(one in (int, float, bool, str, type(None)) for one in taken):
        return Any
    return typing.Union[taken]  # noqa: UP007


# ---------------------------------------------------------------- error messages


def check_keys(config: DictConfig, schema: type) -> None:
    """Checks that the schema has all keys of a config.

    Raises:
        UsageError: a key is unknown (the nearest known key is suggested), or a section is set as
            if it were a key.
    """
    known = dict(schema_keys(schema))

    def check(node: Any, prefix: str) -> None:
        for key in node:
            full = f"{prefix}{key}"
            if full not in known:
                raise UsageError(f"{full}{unknown(full, known, config)}")
            if is_section(known[full]):
                child = OmegaConf.select(node, str(key), throw_on_resolution_failure=False)
                if not isinstance(child, DictConfig):
                    raise no_key(full)
                check(child, f"{full}.")

    check(config, "")


def check_sections(config: DictConfig) -> None:
    """Checks that sections are mappings, as far as they are set: others cannot be merged.

    Raises:
        UsageError: one is set as if it were a key.
    """
    for name in (*catalogue.SECTIONS, *KINDS, "callbacks", "trainer", "wandb"):
        found = OmegaConf.select(config, name, throw_on_resolution_failure=False)
        if found is not None and not isinstance(found, DictConfig):
            raise no_key(name)


def no_key(section: str) -> UsageError:
    """The error for a section that is set as if it were a key."""
    return UsageError(f"{section} is a section: set its keys, {section}.KEY=VALUE.")


def unknown(full: str, known: Mapping[str, Any], config: DictConfig) -> str:
    """The error for an unknown key: which kinds have it, what other programs mean by it, or which
    key is nearest; a section is none unless it has keys."""
    section, _, key = full.rpartition(".")
    if section == "trainer" and key in TRAINER_OURS:
        loggers = "use logger=csv, logger=wandb or logger=tensorboard"
        way = {"logger": loggers, "callbacks": "use the section callbacks"}.get(key)
        return f" cannot be set in a config: {way or 'use it in Python'}."
    if kinds := [kind for kind, one in catalogue.KINDS.get(section, {}).items() if key in one[1]]:
        choice = kind_key(section)
        chosen = OmegaConf.select(config, choice)
        of = f"; {choice}={chosen} does not have it" if chosen else ""
        return f": there is no such key{of}. It is for {choice}={', '.join(kinds)}."
    given = OmegaConf.select(config, full, throw_on_resolution_failure=False)
    keys = [one for one, of in known.items() if isinstance(given, DictConfig) or not is_section(of)]
    names = {one.rpartition(".")[2]: one for one in keys}
    usual = usual_key(full)
    guess = "" if usual in keys else nearest(full, keys)
    meant = usual if usual in keys else names.get(key)
    guess = guess or (f" Did you mean '{meant}'?" if meant else "")
    return f": there is no such key.{guess or ' acn show lists all.'}"


def schema_keys(schema: type, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys, each with its annotation; that of a section is its dataclass."""
    for field in dataclasses.fields(schema):
        annotation = field.metadata.get(ANNOTATION, field.type)
        yield prefix + field.name, annotation
        if is_section(annotation):
            yield from schema_keys(annotation, f"{prefix}{field.name}.")


def is_section(annotation: Any) -> bool:
    """Whether a key is a section of keys."""
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def explain(error: OmegaConfBaseException) -> str:
    """OmegaConf's error on one line, after the key that it is about."""
    key, text = getattr(error, "full_key", None), first_line(error)
    if isinstance(error, MissingMandatoryValue):
        text = "it needs a value."
    return f"{key}: {text}" if key else text


def misfit(
    error: Exception, config: DictConfig, known: Mapping[str, Any], typed: Mapping[str, str]
) -> str:
    """The error about a value of a type that its key does not take, in the words of a config; empty
    if the error is about something else.

    Args:
        error: what OmegaConf raised when it put the config into the schema.
        config: the config.
        known: the type of each key.
        typed: the values on the command line, as text.
    """
    if isinstance(error, TypeError):  # a list meets a mapping; OmegaConf does not say where
        return next(filter(None, (swapped(key, config, known[key]) for key in known)), "")
    key = getattr(error, "full_key", None) or ""
    of, item, _ = key.partition("[")
    if of not in known or is_section(known[of]):
        return ""
    annotation = item_type(known[of]) if item else known[of]
    value = OmegaConf.select(config, key, throw_on_resolution_failure=False)
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{key}: {unfit(key, value, typed.get(key, shown)[:60], annotation)}"


def swapped(key: str, config: DictConfig, annotation: Any) -> str:
    """The error about a mapping in place of a list or the reverse; empty if there is none."""
    value = OmegaConf.select(config, key, throw_on_resolution_failure=False)
    kinds = {typing.get_origin(one) or one for one in members(annotation)}
    if isinstance(value, DictConfig) and kinds & {list, tuple} and dict not in kinds:
        return f"{key}: {value} is not a list. Write {key}=[VALUE]."
    if isinstance(value, ListConfig) and dict in kinds and not kinds & {list, tuple}:
        return f"{key}: {value} is not a mapping. Set its keys, {key}.KEY=VALUE."
    return ""


def unfit(key: str, value: Any, text: str, annotation: Any) -> str:
    """What is wrong with a value that a key does not take.

    Args:
        key: dotted.
        value: the value.
        text: the value as the user typed it.
        annotation: the key's type.
    """
    if value is None:
        return "it needs a value."
    shown = f"'{text}'" if isinstance(value, str) else text
    words = list(dict.fromkeys(word for one in members(annotation) for word in in_words(one)))
    if "a number" in words and "a whole number" in words:
        words.remove("a whole number")
    if len(alone := [word for word in words if word != "null"]) > 1:
        return f"{shown} is none of {', '.join(words)}."
    way = ""
    if alone == ["a list"]:
        way = f" Write {key}=[{text}]."
    elif alone == ["a mapping"]:
        way = f" Set its keys, {key}.KEY=VALUE."
    elif alone == ["a whole number"] and isinstance(value, float) and value.is_integer():
        way = f" Write {int(value)}."
    return f"{shown} is not {alone[0]}.{way}"


def in_words(one: Any) -> list[str]:
    """What a member of a union takes, in the words of a config."""
    kind = typing.get_origin(one) or one
    if kind is typing.Literal:
        return [str(word) for word in typing.get_args(one)]
    return IN_WORDS.get(kind, ["of that kind"])


def item_type(annotation: Any) -> Any:
    """The type of the items of a list."""
    found = [one for one in members(annotation) if typing.get_origin(one) in (list, tuple)]
    return typing.get_args(found[0])[0] if found else Any


IN_WORDS: dict[Any, list[str]] = {
    bool: ["true", "false"], int: ["a whole number"], float: ["a number"], str: ["a text"],
    Path: ["a text"], list: ["a list"], tuple: ["a list"], dict: ["a mapping"],
    type(None): ["null"],
}  # fmt: skip
"""The types of values in a config."""


def first_line(error: Exception) -> str:
    """The first line of an error: OmegaConf's span several."""
    return (str(error).splitlines() or [type(error).__name__])[0]
