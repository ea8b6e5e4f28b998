"""The schema that configs are checked against.

It does not repeat the options: a section's keys are the keyword-only arguments of the class that it
configures (`sections.py`), with the same names, types and defaults.
"""

import dataclasses
import inspect
import keyword
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from acn_lightning.config.sections import PARTS, SECTIONS, Wandb
from acn_lightning.data import Source
from acn_lightning.optimization import Schedule, optimizer_options
from acn_lightning.utils.errors import UsageError, nearest
from acn_lightning.utils.registry import (
    Option,
    Registered,
    find_class,
    foreign_options,
    import_object,
    options,
    whose,
)

TRAINER_DEFAULTS = {"max_epochs": 10, "default_root_dir": "runs"}
"""Defaults that differ from Lightning's."""

TRAINER_OURS = ("callbacks", "logger", "plugins")
"""Arguments of the Trainer that the framework sets."""

RUN: dict[str, Option] = {
    "experiment": (str, dataclasses.MISSING),
    "seed": (int, 0),
    "logger": (str, "csv"),
    "run": (str | None, None),
    "resume": (str | None, None),
    "compile": (bool, False),
    "channels_last": (bool, True),
}
"""Keys outside all sections."""

ANNOTATION = "annotation"
"""Under this name a field of the schema keeps its option's annotation."""


# ---------------------------------------------------------------- the schema


def make_schema(chosen: DictConfig) -> type:
    """The dataclass that a config is checked against, given the kinds that it chooses.

    Raises:
        UsageError: there is no such kind.
    """
    sections: dict[str, Option | type] = {
        name: section(name, options(configured)) for name, configured in SECTIONS.items()
    }
    sections["data"] = section("data", options(SECTIONS["data"]) | source_options(chosen))
    sections["model"] = section(
        "model", {"code_size": (int, 16), **options(SECTIONS["model"]), **model_parts(chosen)}
    )
    sections["optimizer"] = section("optimizer", optimizer_schema(chosen))
    sections["schedule"] = family_section("schedule", Schedule, kind_of(chosen, "schedule"))
    sections["callbacks"] = section("callbacks", callback_schemas(chosen))
    sections["trainer"] = section("trainer", trainer_schema(), plain_type)
    return section("config", {**RUN, **sections, "wandb": Wandb})


def kind_of(chosen: DictConfig, name: str, default: str = "constant") -> str:
    """The value of `NAME.kind`."""
    kind = OmegaConf.select(chosen, f"{name}.kind", default=default)
    if not isinstance(kind, str):
        raise UsageError(f"{name}.kind: {kind} is not the name of a class.")
    return kind


def source_options(chosen: DictConfig) -> dict[str, Option]:
    """The options of the chosen data source."""
    return options(find_class(Source, OmegaConf.select(chosen, Source.key, default="digits")))


def model_parts(chosen: DictConfig) -> dict[str, type]:
    """A section for each network of the model."""
    return {
        name: family_section(name, part.family, kind_of(chosen, f"model.{name}", part.default))
        for name, part in PARTS.items()
    }


def family_section(name: str, family: type[Registered], kind: str) -> type:
    """A section for the class of that kind."""
    return section(name, {"kind": (str, kind)} | options(find_class(family, kind)))


def optimizer_schema(chosen: DictConfig) -> dict[str, Option]:
    """The optimiser's keys. Its own arguments are null unless set, and are then left to PyTorch."""
    kind = kind_of(chosen, "optimizer", "adam")
    own = dict.fromkeys(optimizer_options(kind), (Any, None))
    return {"kind": (str, kind), "learning_rate": (float, 1e-3), **own}


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
        own = dict.fromkeys(foreign_options(find_callback(kind, name)), (Any, None))
        schemas[name] = section(name, {"kind": (str, kind), **own})
    return schemas


def find_callback(kind: str, name: str) -> type[Callback]:
    """The class at package.module:Name.

    Raises:
        UsageError: it does not exist, or is not a Lightning callback.
    """
    found = import_object(kind, f"callbacks.{name}.kind")
    if not (isinstance(found, type) and issubclass(found, Callback)):
        raise UsageError(f"callbacks.{name}.kind: {kind} is not a lightning.Callback.")
    return found


def trainer_options() -> dict[str, inspect.Parameter]:
    """The arguments of Lightning's Trainer that a config may set."""
    parameters = inspect.signature(Trainer).parameters
    return {name: value for name, value in parameters.items() if name not in TRAINER_OURS}


def trainer_schema() -> dict[str, Option]:
    """These arguments as options, with our defaults."""
    return {
        name: (parameter.annotation, TRAINER_DEFAULTS.get(name, parameter.default))
        for name, parameter in trainer_options().items()
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
        annotation, default = value
        given: dict[str, Any] = {"default": default}
        if isinstance(default, list):
            given = {"default_factory": default.copy}
        own = dataclasses.field(**given, metadata={ANNOTATION: annotation})
        fields.append((key, check(annotation), own))
    return dataclasses.make_dataclass(name.capitalize(), fields, kw_only=True)


def checked(annotation: Any) -> Any:
    """A type that OmegaConf can check. It is Any if a user's class has no annotation, or has it as
    text."""
    known = isinstance(annotation, type | types.UnionType) or typing.get_origin(annotation)
    if annotation is inspect.Parameter.empty or not (known or annotation is Any):
        return Any
    return Any if mentions(annotation, Source) else annotation


def mentions(annotation: Any, cls: type) -> bool:
    """Whether a union contains `cls`, which only Python code can pass."""
    return cls in typing.get_args(annotation)


def plain_type(annotation: Any) -> Any:
    """The type if OmegaConf can check it: numbers, strings, None and unions of them. Otherwise Any,
    which leaves the check to the Trainer."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if is_union else (annotation,)
    members = tuple(dict.fromkeys(str if member is Path else member for member in members))
    known = (int, float, bool, str, type(None))
    if not all(member in known for member in members):
        return Any
    return typing.Union[members]  # noqa: UP007


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
                    raise UsageError(f"{full} is a section: set its keys, {full}.KEY=VALUE.")
                check(child, f"{full}.")

    check(config, "")


def unknown(full: str, known: Mapping[str, Any], config: DictConfig) -> str:
    """The error for an unknown key: which kinds have it, or which key is nearest."""
    section, _, key = full.rpartition(".")
    if section == "trainer" and key in TRAINER_OURS:
        loggers = "use logger=csv, logger=wandb or logger=tensorboard"
        way = {"logger": loggers, "callbacks": "use the section callbacks"}.get(key)
        return f" cannot be set in a config: {way or 'use it in Python'}."
    if family := family_of(section):
        chosen = OmegaConf.select(config, family.key)
        kinds = whose(family, key, {})
        if kinds:
            of = f"; {family.key}={chosen} does not have it" if chosen else ""
            return f": there is no such key{of}.{kinds}"
    names = {one.rpartition(".")[2]: one for one in known}
    guess = nearest(full, known) or (f" Did you mean '{names[key]}'?" if key in names else "")
    return f": there is no such key.{guess or ' acn show lists all.'}"


def family_of(section: str) -> type[Registered] | None:
    """The family of classes whose options a section holds; None for other sections."""
    parts = {f"model.{name}": part.family for name, part in PARTS.items()}
    return {**parts, "data": Source, "schedule": Schedule}.get(section)


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
    key = getattr(error, "full_key", None)
    return f"{key}: {first_line(error)}" if key else first_line(error)


def first_line(error: Exception) -> str:
    """The first line of an error: OmegaConf's span several."""
    return (str(error).splitlines() or [type(error).__name__])[0]
