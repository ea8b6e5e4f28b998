"""Experiment configs: YAML files plus `key=value` overrides, checked against the schema."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from acn_lightning.config import catalogue
from acn_lightning.config.keys import KINDS, TRAINER_DEFAULTS, kind_key
from acn_lightning.config.renamed import rename_keys, rename_words
from acn_lightning.config.schema import (
    check_keys,
    check_sections,
    chosen_options,
    explain,
    first_line,
    make_schema,
    misfit,
    schema_keys,
    section,
    trainer_options,
)
from acn_lightning.config.values import (
    read_word,
    read_yaml_file,
    refuse_characters,
    refuse_numbers,
)
from acn_lightning.utils.errors import UsageError, nearest
from acn_lightning.utils.registry import options
from acn_lightning.utils.text import words_to_go_on

FOLDER = Path(__file__).parents[1] / "conf"

KEY = re.compile(r"[^\s.\[\]]+(\.[^\s.\[\]]+|\[\w+\])*")
"""Names with dots between them. An item of a list has its number in brackets."""

Plain = dict[str, Any]
"""A config as dicts, lists, strings and numbers, which a checkpoint can hold."""


def experiments() -> dict[str, Path]:
    """The experiments that come with the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def layers() -> dict[str, Path]:
    """The layers that come with the package, by name."""
    return {path.stem: path for path in sorted((FOLDER / "layers").glob("*.yaml"))}


def compose(
    experiment: str, overrides: Sequence[str] = (), between: Mapping[str, Any] | None = None
) -> Plain:
    """The complete, checked config of an experiment.

    Args:
        experiment: a name from `conf/`, or the path of a YAML file. Each `+NAME` (from
            `conf/layers/`) or `+FILE.yaml` after it adds a layer on top: `mnist+small+pixelvae`.
        overrides: `section.key=value`, applied last. Text is taken as typed; other values are YAML.
        between: values applied after the experiment and before the overrides.

    Raises:
        UsageError: an experiment, layer or key is unknown, a layer is not for the experiment, or a
            value has the wrong type.
    """
    # A path may itself contain a plus.
    first, *rest = [experiment] if Path(experiment).is_file() else experiment.split("+")
    paths = [find("experiment", first, experiments())]
    paths += [find("layer", name, layers()) for name in rest]
    name = "+".join(path.stem for path in paths)
    base = OmegaConf.create({"experiment": name} | read_yaml(paths[0]))
    with on_one_line():
        for path in paths[1:]:
            base = overlay(base, OmegaConf.create(read_layer(path, first)))
        base = overlay(base, OmegaConf.create(dict(between or {})))
    return complete(cast(Plain, OmegaConf.to_container(base)), overrides)


def find(what: str, name: str, known: Mapping[str, Path]) -> Path:
    """The file with that name or path.

    Raises:
        UsageError: there is no such file.
    """
    path = known.get(name, Path(name))
    if name and what == "experiment" and (hint := meant(path)):
        raise UsageError(f"{name}: {hint}")
    if not path.is_file():
        why = "there is no such file" if path.suffix in (".yaml", ".yml") else f"unknown {what}"
        why = "this is a folder or a pipe, not a file" if name and path.exists() else why
        raise UsageError(
            f"{name or repr(name)}: {why}. Known {what}s: {', '.join(known)}.{nearest(name, known)}"
        )
    return path


def meant(path: Path) -> str:
    """What to type in place of a run, a checkpoint or a folder of images, where an experiment
    belongs; empty if the path is none of these."""
    if path.suffix == ".ckpt":
        words = shlex.join([f"resume={path}"])
        return f"this is a checkpoint, not an experiment. To resume it: acn fit {words}"
    if not path.is_dir():
        return ""
    if (path / "config.yaml").is_file() and (path / "checkpoints").is_dir():
        words = shlex.join(words_for(path))
        return f"this is a run, not an experiment. To go on with it: acn fit {words}"
    words = shlex.join([f"data.root={path}"])
    return f"this is a folder, not an experiment. For a folder of images: acn fit folder {words}"


def words_for(run: Path) -> list[str]:
    """What `acn fit` takes to go on with a run: in its folder, or in a new one if it was moved.

    Raises:
        UsageError: its config cannot be read.
    """
    config, name = run / "config.yaml", run.resolve().name
    with on_one_line():
        known = OmegaConf.create(read_yaml(config))
        root = OmegaConf.select(known, "trainer.default_root_dir") or "runs"
        place = os.path.join(str(root), str(known.get("experiment")), name)
    if os.path.abspath(place) == os.path.abspath(run):
        return words_to_go_on(run)
    return [f"resume={run}"]


def overlay(base: DictConfig, top: DictConfig) -> DictConfig:
    """Merges `top` into `base`. A network whose `kind` changes starts from the new kind's defaults.
    A data source, optimiser or schedule that changes keeps the options that all kinds share. No
    class outside of this package is looked up: a later layer may replace it.

    Raises:
        UsageError: in one of them a section is no mapping.
    """
    check_sections(base)
    check_sections(top)
    base = base.copy()
    for name, choice in KINDS.items():
        kind = OmegaConf.select(top, kind_key(name))
        before = OmegaConf.select(base, kind_key(name), default=choice.default)
        if kind is None or kind == before:
            continue
        if name.startswith("model."):
            OmegaConf.update(base, name, {}, merge=False)
            continue
        for key in list(OmegaConf.select(base, name) or {}):
            if str(key) not in shared_options(name, str(kind)):
                del base[name][key]
    return cast(DictConfig, OmegaConf.merge(base, top))


@contextmanager
def on_one_line() -> Iterator[None]:
    """Converts what OmegaConf raises.

    Raises:
        UsageError: configs do not fit together, or a value cannot be resolved.
    """
    try:
        yield
    except OmegaConfBaseException as error:
        raise UsageError(explain(error)) from error
    except TypeError as error:  # what OmegaConf raises if a list meets a mapping
        raise UsageError(f"a list and a mapping are given for one key ({error}).") from error


def shared_options(section: str, kind: str) -> set[str]:
    """Options of a section that hold for another kind as well."""
    if section == "data":
        sources = catalogue.KINDS["data"]
        own = sources[kind].options if kind in sources else {}
        return {*catalogue.SECTIONS["data"].options, *own}
    return {"optimizer": {"kind", "learning_rate"}, "schedule": {"kind", "warmup_steps"}}[section]


def complete(base: Mapping[str, Any], overrides: Sequence[str] = ()) -> Plain:
    """Applies overrides to a config, checks it against the schema, fills in defaults and resolves
    interpolations (`${seed}`).

    Raises:
        UsageError: a key is unknown, or a value has the wrong type.
    """
    words = rename_words(overrides)
    given = OmegaConf.create(rename_keys(dict(base)))
    with on_one_line():
        # The kinds that are chosen determine the keys, and these how the words are read.
        asked = without_idle(overlay(given, parse_overrides(words, True)))
        schema = make_schema(asked)
        check_keys(asked, schema)
        known = dict(schema_keys(schema))
        asked = without_idle(overlay(given, parse_overrides(words, True, known)))
        refuse_numbers(flatten(cast(Plain, OmegaConf.to_container(asked))), known)
        config = fitted(schema, asked, words)
        plain = cast(Plain, OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    refuse_characters(flatten(plain))
    return without_foreign_defaults(plain, asked)


def fitted(schema: type, asked: DictConfig, words: Sequence[str]) -> DictConfig:
    """A config with the schema's defaults.

    Args:
        schema: a dataclass.
        asked: what is set.
        words: `key=value` of the command line, which are in it.

    Raises:
        UsageError: a value has the wrong type.
    """
    try:
        return cast(DictConfig, OmegaConf.merge(OmegaConf.structured(schema), asked))
    except (OmegaConfBaseException, TypeError) as error:
        typed = {key: text for key, _, text in (word.partition("=") for word in words)}
        if said := misfit(error, asked, dict(schema_keys(schema)), typed):
            raise UsageError(said) from error
        raise


def without_idle(config: DictConfig) -> DictConfig:
    """The config without other data sources' options that are at their defaults. They have no
    effect. Configs written when all sources shared their options still contain them."""
    data = OmegaConf.select(config, "data")
    if not isinstance(data, DictConfig):
        return config
    own = chosen_options("data", config)
    others = {
        name: option.default
        for source in catalogue.KINDS["data"].values()
        for name, option in source.options.items()
        if name not in own
    }
    for name in [str(name) for name in data]:
        if name in others and data[name] in (None, others[name]):
            del data[name]
    return config


def without_foreign_defaults(config: Plain, asked: DictConfig) -> Plain:
    """The config without values left to Lightning and PyTorch, which would bury the keys that
    matter."""
    defaults = trainer_options()
    config["trainer"] = {
        key: value
        for key, value in config["trainer"].items()
        if key in TRAINER_DEFAULTS or value != defaults[key].default
    }
    optimizer = asked.get("optimizer") or {}
    config["optimizer"] = {
        key: value
        for key, value in config["optimizer"].items()
        if key in ("kind", "learning_rate") or key in optimizer
    }
    config["callbacks"] = {
        name: {key: value for key, value in one.items() if key in asked["callbacks"][name]}
        for name, one in config["callbacks"].items()
    }
    return config


def parse_overrides(
    overrides: Sequence[str], renamed: bool = False, known: Mapping[str, Any] | None = None
) -> DictConfig:
    """Parses `key=value` overrides.

    Args:
        overrides: the words.
        renamed: whether they have current key names already.
        known: the type of each key. Without it, as long as no kinds are chosen, a value that is
            not valid YAML is text.

    Raises:
        UsageError: one is not of the form `key=value`, or its value is not valid YAML.
    """
    changes = OmegaConf.create()
    for word in overrides if renamed else rename_words(overrides):
        key, equals, text = word.partition("=")
        if not equals or not key.strip("-"):
            raise UsageError(f"'{word}' is not of the form key=value.")
        if key.startswith("-"):
            raise UsageError(f"'{word}': write {word.lstrip('-')}, without dashes.")
        if not KEY.fullmatch(key):
            raise UsageError(f"'{word}': '{key}' is not the name of a key, such as data.root.")
        try:
            value = read_early(key, text) if known is None else read_word(key, text, known.get(key))
            OmegaConf.update(changes, key, value)
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{word}: {first_line(error)}") from error
    return changes


def read_early(key: str, text: str) -> Any:
    """A value whose type is not known yet. Kinds are text, in all families."""
    try:
        value = read_word(key, text, str if key == "data.source" or key.endswith(".kind") else Any)
    except UsageError:
        return text
    # A comment is nothing to YAML; "#ff0000" is text if its key takes text.
    return text if value is None and text.strip().startswith("#") else value


def read_yaml(path: Path) -> Plain:
    """Reads a config file, with current key names.

    Raises:
        UsageError: the file cannot be read or is not valid YAML, or not a mapping of keys to
            values.
    """
    content = read_yaml_file(path)
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a mapping of keys to values.")
    return rename_keys(cast(Plain, content))


def read_layer(path: Path, experiment: str) -> Plain:
    """Reads a layer. Its key `for` may list those of the package's experiments that it fits.

    Raises:
        UsageError: as for `read_yaml`; or it is not for this experiment.
    """
    content = read_yaml(path)
    fitting = content.pop("for", list(experiments()))
    if not (isinstance(fitting, list) and all(isinstance(one, str) for one in fitting)):
        raise UsageError(f"{path}: for: list the experiments that it is for, as [mnist, cifar10].")
    if experiment in experiments() and experiment not in fitting:
        raise UsageError(
            f"{experiment}+{path.stem}: the layer {path.stem} is for {', '.join(fitting)}, and not "
            f"for {experiment}. Leave it out.{nearest(experiment, fitting)}"
        )
    return content


def to_yaml(config: Plain) -> str:
    """A config as the text of a YAML file that `acn fit` accepts. Characters that cannot be printed
    are escaped."""
    if json.dumps(config, ensure_ascii=False, default=str).isprintable():
        return OmegaConf.to_yaml(OmegaConf.create(config))
    return yaml.dump(config, Dumper=Escaping, sort_keys=False)


class Escaping(yaml.SafeDumper):
    """Writes all text in quotes, and what is not ASCII as escapes."""


Escaping.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def differences(one: Plain, other: Plain) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values."""
    first, second = dict(flatten(one)), dict(flatten(other))
    return {
        key: (first.get(key), second.get(key))
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    }


def flatten(config: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys and values of nested mappings."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def own_options(command: Callable[..., Any], words: Sequence[str]) -> tuple[Plain, list[str]]:
    """(values of a command's own options, which are not saved with a run; the other words).

    Args:
        command: its keyword-only arguments are the options.
        words: `key=value`.

    Raises:
        UsageError: a value has the wrong type.
    """
    known = options(command)
    ours = [word for word in words if word.partition("=")[0] in known]
    with on_one_line():
        schema = section(command.__name__, known)
        changes = parse_overrides(ours, known=dict(schema_keys(schema)))
        given = fitted(schema, changes, ours)
        values = cast(Plain, OmegaConf.to_container(given, resolve=True))
    refuse_characters(flatten(values))
    return values, [word for word in words if word not in ours]
