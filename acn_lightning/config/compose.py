"""Experiment configs: YAML files, `key=value` overrides and the schema that both are held to.

The schema is no second list of options. It is read off the constructors: a section of a config
holds the keyword-only arguments of the class that it configures, under their names, with their
types and defaults (`trainer` those of Lightning's Trainer).
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from acn_lightning.utils.errors import UsageError, check_choice, nearest

FOLDER = Path(__file__).parents[1] / "conf"

COMPONENTS = ("encoder", "shape", "prior", "decoder", "likelihood")
"""Sections of `model` that choose a class by `kind`."""

Plain = dict[str, Any]
"""A config as dicts, lists, strings and numbers: what a checkpoint may hold."""


# ---------------------------------------------------------------- composing


def experiments() -> dict[str, Path]:
    """The experiments that come with the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def layers() -> dict[str, Path]:
    """What may be laid on top of an experiment, by name."""
    return {path.stem: path for path in sorted((FOLDER / "layers").glob("*.yaml"))}


def compose(
    experiment: str, overrides: Sequence[str] = (), between: Mapping[str, Any] | None = None
) -> Plain:
    """The whole, checked config of an experiment.

    Args:
        experiment: a name from `conf/`, or a path of a YAML file; `+NAME` or `+FILE.yaml` behind it
            lays another on top, from `conf/layers/`: `mnist+small+pixelvae`.
        overrides: `section.key=value`, the value in YAML; on top of all.
        between: laid on top of the experiment and below the overrides.

    Raises:
        UsageError: unknown experiment, layer or key, a value of the wrong type.
    """
    # A path may have a plus in it as well.
    first, *rest = [experiment] if Path(experiment).is_file() else experiment.split("+")
    paths = [find("experiment", first, experiments())]
    paths += [find("layer", name, layers()) for name in rest]
    name = "+".join(path.stem for path in paths)
    base = OmegaConf.create({"experiment": name} | read_yaml(paths[0]))
    try:
        for path in paths[1:]:
            base = lay(base, OmegaConf.create(read_yaml(path)))
        base = lay(base, OmegaConf.create(dict(between or {})))
    except OmegaConfBaseException as error:
        raise UsageError(explain(error)) from error
    return complete(cast(Plain, OmegaConf.to_container(base)), overrides)


def find(what: str, name: str, known: Mapping[str, Path]) -> Path:
    """The file of that name or path.

    Raises:
        UsageError: there is none.
    """
    path = known.get(name, Path(name))
    if not path.is_file():
        why = "there is no such file" if path.suffix in (".yaml", ".yml") else f"unknown {what}"
        raise UsageError(
            f"{name or repr(name)}: {why}. Known {what}s: {', '.join(known)}.{nearest(name, known)}"
        )
    return path


def lay(base: DictConfig, top: DictConfig) -> DictConfig:
    """One config on top of another. A component of another `kind` than the base's starts from its
    own defaults."""
    base = base.copy()
    for name in COMPONENTS:
        kind = OmegaConf.select(top, f"model.{name}.kind")
        if kind is not None and kind != OmegaConf.select(base, f"model.{name}.kind"):
            OmegaConf.update(base, f"model.{name}", {}, merge=False)
    return cast(DictConfig, OmegaConf.merge(base, top))


def complete(base: Mapping[str, Any], overrides: Sequence[str] = ()) -> Plain:
    """Overrides on top of a config, held to the schema, with defaults filled in and
    interpolations (`${seed}`) resolved.

    Raises:
        UsageError: unknown key, value of the wrong type.
    """
    changes = parse_overrides(overrides)
    try:
        asked = lay(OmegaConf.create(dict(base)), changes)
        schema = make_schema(asked)
        check_keys(asked, schema)
        config = OmegaConf.merge(OmegaConf.structured(schema), asked)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UsageError(explain(error)) from error
    assert isinstance(plain, dict)
    # What is left to Lightning says nothing: it would bury the dozen keys that do.
    ours, defaults = plain["trainer"], trainer_options()
    plain["trainer"] = {
        key: value
        for key, value in ours.items()
        if key in TRAINER_DEFAULTS or value != defaults[key].default
    }
    return cast(Plain, plain)


def parse_overrides(overrides: Sequence[str]) -> DictConfig:
    """Raises:
    UsageError: one of them is no `key=value`, or its value no YAML.
    """
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key.strip("-"):
            raise UsageError(f"'{override}' is no key=value.")
        if key.startswith("-"):
            raise UsageError(f"'{override}': write {override.lstrip('-')}, without dashes.")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError) as error:
        raise UsageError(f"{' '.join(overrides)}: {first_line(error)}") from error


def read_yaml(path: Path) -> Plain:
    """Raises:
    UsageError: not readable, or no mapping of keys.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no keys and values.")
    return cast(Plain, content)


def to_yaml(config: Plain) -> str:
    """As a file that `acn fit` takes."""
    return OmegaConf.to_yaml(OmegaConf.create(config))


def differences(one: Plain, other: Plain) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values."""
    first, second = dict(flatten(one)), dict(flatten(other))
    return {
        key: (first.get(key), second.get(key))
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys and values of nested mappings."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# ---------------------------------------------------------------- the schema


@dataclasses.dataclass
class Wandb:
    """What Weights & Biases is told; used with `logger=wandb`.

    Attributes:
        project, entity, group, name, tags: as in `wandb.init`.
        mode: "online", "offline" or "disabled"; null takes the environment's WANDB_MODE, and
            "offline" where there is none.
    """

    project: str = "acn_lightning"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: list[str] = dataclasses.field(default_factory=list)
    mode: str | None = None


TRAINER_DEFAULTS = {"max_epochs": 10, "default_root_dir": "runs"}
"""Where we differ from Lightning."""

TRAINER_OURS = ("callbacks", "logger", "plugins")
"""Arguments of the Trainer that the framework fills."""


def make_schema(chosen: DictConfig) -> type:
    """The dataclass that a config of these kinds of components is held to."""
    from acn_lightning import callbacks
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

    components: dict[str, Option | type] = {}
    families = (Encoder, Shape, Prior, Decoder, Likelihood)
    defaults = ("conv", "white", "mixture", "conv", "bernoulli")
    for name, family, default in zip(COMPONENTS, families, defaults, strict=True):
        kind = OmegaConf.select(chosen, f"model.{name}.kind", default=default)
        check_choice(f"model.{name}.kind", kind, family.kinds)
        components[name] = section(name, {"kind": (str, kind)} | options(family.kinds[kind]))
    return section(
        "config",
        {
            "experiment": (str, dataclasses.MISSING),
            "seed": (int, 0),
            "logger": (str, "csv"),
            "run": (str | None, None),
            "resume": (str | None, None),
            "compile": (bool, False),
            "channels_last": (bool, True),
            "budget": section("budget", options(fitting)),
            "data": section("data", options(ImageData)),
            "model": section("model", {"code_size": (int, 16), **options(ACN), **components}),
            "neighbours": section("neighbours", options(NeighbourIndex)),
            "refresh": section("refresh", options(callbacks.RefreshNeighbours)),
            "finetune": section("finetune", options(callbacks.Finetune)),
            "checkpoints": section("checkpoints", options(callbacks.LastCheckpoint)),
            "evaluation": section("evaluation", options(callbacks.MeasureTest)),
            "dashboard": section("dashboard", options(callbacks.Dashboard)),
            "pictures": section("pictures", options(callbacks.DrawPictures)),
            "probe": section("probe", options(callbacks.ProbeCodes)),
            "sampling": section("sampling", options(draw)),
            "trainer": section("trainer", trainer_schema()),
            "wandb": Wandb,
        },
    )


Option = tuple[Any, Any]
"""(type, default)."""


def section(name: str, content: Mapping[str, Option | type]) -> type:
    """A dataclass of these options and, where the value is a dataclass, sections."""
    fields: list[tuple[str, Any, Any]] = []
    for key, value in content.items():
        if isinstance(value, type):
            fields.append((key, value, dataclasses.field(default_factory=value)))
        elif value[1] is dataclasses.MISSING:
            fields.append((key, value[0], dataclasses.field()))
        elif isinstance(value[1], list):
            fields.append((key, value[0], dataclasses.field(default_factory=value[1].copy)))
        else:
            fields.append((key, value[0], dataclasses.field(default=value[1])))
    return dataclasses.make_dataclass(name.capitalize(), fields)


def options(constructor: Callable[..., Any]) -> dict[str, Option]:
    """The keyword-only arguments of a constructor."""
    return {
        name: (parameter.annotation, parameter.default)
        for name, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def own_options(command: Callable[..., Any], words: Sequence[str]) -> tuple[Plain, list[str]]:
    """A command's own options, which no run remembers, and the words that are none of them.

    Args:
        command: its keyword-only arguments are the options.
        words: `key=value`.

    Raises:
        UsageError: a value of the wrong type.
    """
    known = options(command)
    ours = [word for word in words if word.partition("=")[0] in known]
    try:
        schema = OmegaConf.structured(section(command.__name__, known))
        given = OmegaConf.merge(schema, parse_overrides(ours))
        values = OmegaConf.to_container(given, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(explain(error)) from error
    return cast(Plain, values), [word for word in words if word not in ours]


def trainer_options() -> dict[str, inspect.Parameter]:
    """The arguments of Lightning's Trainer that a config may set."""
    from lightning import Trainer

    parameters = inspect.signature(Trainer).parameters
    return {name: value for name, value in parameters.items() if name not in TRAINER_OURS}


def trainer_schema() -> dict[str, Option]:
    """The same as options, with our defaults."""
    return {
        name: (plain_type(parameter.annotation), TRAINER_DEFAULTS.get(name, parameter.default))
        for name, parameter in trainer_options().items()
    }


def plain_type(annotation: Any) -> Any:
    """What OmegaConf can check of a type: numbers, strings, None and unions of them. Anything
    else is left to the Trainer to refuse."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if is_union else (annotation,)
    members = tuple(dict.fromkeys(str if member is Path else member for member in members))
    known = (int, float, bool, str, type(None))
    if not all(member in known for member in members):
        return Any
    return typing.Union[members]  # noqa: UP007


# ---------------------------------------------------------------- saying what is wrong


def check_keys(config: DictConfig, schema: type) -> None:
    """Raises:
    UsageError: a key is none of the schema's; the nearest is named.
    """
    known = dict(schema_keys(schema))
    names = {key.rpartition(".")[2]: key for key in known}

    def check(node: Any, prefix: str) -> None:
        for key in node:
            full = f"{prefix}{key}"
            if full not in known:
                if prefix == "trainer." and key in TRAINER_OURS:
                    loggers = "use logger=csv, logger=wandb or logger=tensorboard"
                    way = loggers if key == "logger" else "use it in Python"
                    raise UsageError(f"{full} is not for configs: {way}.")
                guess = nearest(full, known) or (
                    f" Did you mean '{names[str(key)]}'?" if key in names else ""
                )
                raise UsageError(f"{full}: there is no such key.{guess or ' acn show lists all.'}")
            if known[full] is not None:
                child = OmegaConf.select(node, str(key), throw_on_resolution_failure=False)
                if not isinstance(child, DictConfig):
                    raise UsageError(f"{full} is a section: set its keys, {full}.KEY=VALUE.")
                check(child, f"{full}.")

    check(config, "")


def schema_keys(schema: type, prefix: str = "") -> Iterable[tuple[str, type | None]]:
    """Dotted keys; with a section its dataclass, else None."""
    for field in dataclasses.fields(schema):
        is_section = isinstance(field.type, type) and dataclasses.is_dataclass(field.type)
        yield prefix + field.name, field.type if is_section else None  # type: ignore[misc]
        if is_section:
            yield from schema_keys(field.type, f"{prefix}{field.name}.")  # type: ignore[arg-type]


def explain(error: OmegaConfBaseException) -> str:
    """One line, with the key that it is about."""
    key = getattr(error, "full_key", None)
    return f"{key}: {first_line(error)}" if key else first_line(error)


def first_line(error: Exception) -> str:
    """OmegaConf explains itself over several."""
    return (str(error).splitlines() or [type(error).__name__])[0]
