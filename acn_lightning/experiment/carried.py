"""What a checkpoint decides: the model and its training. Where a command reads, writes, logs and
downloads, and what it runs, comes from the user or the defaults."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from omegaconf import OmegaConf

from acn_lightning.checkpoint import KEY
from acn_lightning.config.compose import (
    Plain,
    complete,
    compose,
    differences,
    experiments,
    flatten,
    layers,
    overlay,
    parse_overrides,
)
from acn_lightning.config.imports import ENCODER, ENCODER_KIND, ENCODER_PATH, imports_of
from acn_lightning.config.renamed import rename_keys, rename_words
from acn_lightning.data import ImageData, Source
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.registry import is_path, options
from acn_lightning.utils.text import printable

SECTIONS = ("seed", "channels_last", "model", "data", "neighbours", "refresh", "optimizer",
            "schedule", "finetune", "average", "early_stopping", "trainer")  # fmt: skip
"""What is taken from a checkpoint's config, save for these keys:"""

PLACES = {
    "data": ("root", "path", "download", "cache", "cache_folder"),
    "finetune": ("checkpoint",),
    "neighbours": ("device",),
}

READ = ("root", "path")
"""Keys of `data` that say where images are."""

TRAINER = ("max_epochs", "min_epochs", "max_steps", "min_steps", "precision",
           "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm",
           "limit_train_batches", "limit_val_batches", "check_val_every_n_epoch",
           "val_check_interval", "sync_batchnorm", "deterministic")  # fmt: skip
"""Arguments of the Trainer that are taken: they describe how a model was trained."""

UNNAMED = "checkpoint"
"""Experiment of a checkpoint whose own is none of this package's."""


# ---------------------------------------------------------------- the config in a checkpoint


def config_of(checkpoint: dict[str, Any]) -> Plain:
    """The config that a checkpoint was trained with, converted to the current keys.

    Raises:
        UsageError: it is not a config that acn writes.
    """
    config = checkpoint["hyper_parameters"][KEY]
    check_plain(config, "config")
    config = rename_keys(config, tell=False)
    for name in ("data", "model"):
        if name not in config:
            raise UsageError(f"The checkpoint's config has no section {name}.")
    for name in (*SECTIONS, "callbacks"):
        plain = name in ("seed", "channels_last")
        if name in config and isinstance(config[name], dict) is plain:
            raise UsageError(f"The checkpoint's config has a wrong {name}: acn did not write it.")
    if not isinstance(config["model"].get("encoder"), dict):
        raise UsageError("The checkpoint's config has no encoder: acn did not write it.")
    return in_todays_terms(config)


def check_plain(value: Any, key: str) -> None:
    """Checks that a checkpoint's config is made of plain values under plain names. A stranger's
    file could otherwise have this machine's environment resolved, or hide the name of code to
    import under a key that reads like another one.

    Raises:
        UsageError: it holds an interpolation, an unusual key, or another type.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
                raise UsageError(f"The checkpoint's {key} has the key {name!r}, which is refused.")
            check_plain(inner, f"{key}.{name}".removeprefix("config."))
    elif isinstance(value, list):
        for inner in value:
            check_plain(inner, key)
    elif isinstance(value, str) and ("${" in value or value == "???"):
        raise UsageError(f"{key}: the checkpoint's config holds {value}, which is refused.")
    elif not isinstance(value, str | int | float | bool | None):
        raise UsageError(f"{key}: the checkpoint's config holds a {type(value).__name__}.")
    if key == "config" and not isinstance(value, dict):
        raise UsageError("The checkpoint's config is not a mapping: acn did not write it.")


def in_todays_terms(config: Plain) -> Plain:
    """Converts a config from before `model.encoder.float32` or `model.shape` existed. Imported
    encoders were in 16 bits where the run was. Without a shape, the encoder had the options
    `sphere` (whether codes lie on a sphere) and `spread` (how far apart they start). Without a
    sphere, `spread` only matters before training, so it is dropped."""
    model = dict(config["model"])
    encoder = dict(model["encoder"])
    if encoder.get("kind") == "import":
        encoder.setdefault("float32", False)
    if "shape" in model:
        return config | {"model": model | {"encoder": encoder}}
    spread, sphere = encoder.pop("spread", 1.0), encoder.pop("sphere", False)
    shape = {"kind": "sphere", "radius": spread} if sphere else {"kind": "free"}
    return config | {"model": model | {"encoder": encoder, "shape": shape}}


def divide(config: Plain) -> tuple[Plain, Plain]:
    """(what a checkpoint's config decides, the rest of it)."""
    taken: Plain = {}
    rest: Plain = {}
    for name, value in config.items():
        if name not in SECTIONS:
            rest[name] = value
        elif not isinstance(value, dict):
            taken[name] = value
        else:
            for key, inner in value.items():
                known = key in TRAINER if name == "trainer" else key not in PLACES.get(name, ())
                (taken if known else rest).setdefault(name, {})[key] = inner
    return taken, rest


def published(config: Plain) -> Plain:
    """What of a model's config a pack holds: what a checkpoint decides, without places of this
    machine, accounts and the like."""
    return divide(config)[0] | {"experiment": config["experiment"]}


def defaults_for(config: Plain) -> Plain:
    """What a checkpoint's config does not decide: the packaged experiment's own values if it names
    one, else none."""
    name = str(config.get("experiment"))
    first, *others = name.split("+")
    if first not in experiments() or not all(one in layers() for one in others):
        return {"experiment": UNNAMED}
    rest = dict(packaged(name))
    source = rest.pop("source")
    if source != config["data"].get("source"):
        rest.pop("data", None)
    return rest


@cache
def packaged(name: str) -> Plain:
    """Of a packaged experiment, what a checkpoint does not decide, and its `source`. Not to be
    modified."""
    config = compose(name)
    return divide(config)[1] | {"source": config["data"]["source"]}


def carried_config(
    checkpoint: dict[str, Any], given: Sequence[str], purpose: str = "data"
) -> Plain:
    """The config that a checkpoint carries, completed with options added since and with defaults in
    place of what a checkpoint does not decide.

    Args:
        checkpoint: possibly from an untrusted source.
        given: the user's overrides, `key=value`.
        purpose: as for `chosen_config`. Code that the purpose does not need is not imported.

    Raises:
        UsageError: building it would import code that the overrides do not name.
    """
    whole = config_of(checkpoint)
    config, _ = divide(whole)
    if purpose != "training":
        config = without_training(config)
    if purpose == "model":
        config = without_source(config)
    named = named_in(given)
    config = with_named(config, named)
    refuse_imports(config, named)
    kept = complete(merged(defaults_for(whole), config))
    if kept["model"]["encoder"]["kind"] == "import":
        kept["model"]["encoder"]["weights"] = None  # the checkpoint holds the trained ones
    return kept


def chosen_config(
    checkpoint: dict[str, Any],
    overrides: Sequence[str],
    purpose: str,
    fixed: Callable[[str], bool] = lambda key: key.startswith("model."),
) -> tuple[Plain, Plain]:
    """(the config that a checkpoint carries, the same with the user's overrides).

    Args:
        checkpoint: possibly from an untrusted source.
        overrides: `key=value`.
        purpose: "model" to use only its networks and codes; "data" to also read its images;
            "training" to train on.
        fixed: whether a key must agree with the checkpoint's.

    Raises:
        UsageError: an override is wrong or contradicts the checkpoint; or building would import
            code, or read images from a folder, that the overrides do not name.
    """
    refuse_other_networks(checkpoint, overrides)
    kept = carried_config(checkpoint, overrides, purpose)
    config = complete(kept, overrides)
    refuse_changes(kept, config, fixed)
    if purpose != "model":
        refuse_unnamed_root(divide(config_of(checkpoint))[1], config, named_in(overrides))
    return kept, config


def merged(base: Plain, top: Plain) -> Plain:
    """Both configs, which have no key in common below their sections."""
    sections = {name: base[name] | top[name] for name in base.keys() & top.keys()}
    return base | top | sections


def refuse_unnamed_root(rest: Plain, config: Plain, named: Mapping[str, Any]) -> None:
    """Checks that the user named the place that images are read from.

    Raises:
        UsageError: it is another than the default, and the user did not name any.
    """
    for key in READ:
        theirs = rest.get("data", {}).get(key)
        if theirs not in (None, config["data"].get(key)) and f"data.{key}" not in named:
            raise UsageError(
                f"data.{key}: say where the images are; a checkpoint does not decide what is read. "
                f"It was trained on those in data.{key}={shlex.quote(str(theirs))}."
            )


def not_taken(
    checkpoint: dict[str, Any], config: Plain, overrides: Sequence[str], section: str = ""
) -> list[str]:
    """A line that says what a run does not take from a checkpoint, to be repeated; no line if there
    is nothing.

    Args:
        checkpoint: its content.
        config: that of the run.
        overrides: the user's, which answer for their keys.
        section: only keys that begin so.
    """
    theirs = dict(flatten(divide(config_of(checkpoint))[1]))
    ours, named = dict(flatten(config)), named_in(overrides)
    silent = ("run", "resume", "experiment", *(f"data.{key}" for key in READ))
    lost = [
        shlex.quote(printable(f"{key}={value if isinstance(value, str) else json.dumps(value)}"))
        for key, value in theirs.items()
        if key.startswith(section)
        and key not in (*silent, *named)
        and value not in (None, ours.get(key))
    ]
    told = f"Not taken from the checkpoint: {' '.join(lost)}. Repeat those that you want."
    return [told] if lost else []


# ---------------------------------------------------------------- code from elsewhere


def named_in(given: Sequence[str]) -> Plain:
    """Values by dotted key, as the user's overrides set them."""
    parsed = parse_overrides(rename_words(given, tell=False), renamed=True)
    return dict(flatten(cast(Plain, OmegaConf.to_container(parsed))))


KNOWN_OF_DATA = ("source", *options(ImageData))


def refuse_imports(config: Plain, named: Mapping[str, Any]) -> None:
    """Checks that the user named all outside code that a config imports, and, for an encoder of
    any package, the arguments that it is called with.

    Args:
        config: the checkpoint's, with what the user replaces.
        named: values by key, as the user gave them.

    Raises:
        UsageError: the config imports code that the user did not name.
    """
    for key, path in imports_of(config).items():
        arguments = options_beside(config, key)
        needed = {key: path}
        if key == ENCODER_PATH:
            needed |= dict(flatten({f"{ENCODER}.arguments": arguments}))
        if any(named.get(one) != value for one, value in needed.items()):
            told = f" with {json.dumps(arguments)}" if arguments else ""
            words = [f"{key}={path}"]
            if key == ENCODER_PATH and arguments:
                words.append(shlex.quote(f"{ENCODER}.arguments={json.dumps(arguments)}"))
            raise UsageError(
                f"{key}: the checkpoint would import and run {path}{told}, which is code outside "
                f"of acn. If you trust that, add {' '.join(words)}."
            )


def options_beside(config: Plain, key: str) -> Plain:
    """What a config gives to the outside code that a key names."""
    if key == Source.key:
        return {name: one for name, one in config["data"].items() if name not in KNOWN_OF_DATA}
    section: Any = config
    for name in key.split(".")[:-1]:
        section = section[name]
    if key == ENCODER_PATH:
        return cast(Plain, section.get("arguments") or {})
    return {name: one for name, one in section.items() if name != "kind"}


def with_named(config: Plain, named: Mapping[str, Any]) -> Plain:
    """The config with the user's classes in place of outside code that the user replaces. What is
    replaced is not imported."""
    foreign = set(imports_of(config))
    if ENCODER_PATH in foreign:
        foreign.add(ENCODER_KIND)  # another kind has no path
    top = OmegaConf.create()
    for key in foreign & named.keys():
        OmegaConf.update(top, key, named[key])
    return cast(Plain, OmegaConf.to_container(overlay(OmegaConf.create(config), top)))


def refuse_other_networks(checkpoint: dict[str, Any], given: Sequence[str]) -> None:
    """Checks that the user's overrides name no other networks than the outside ones that a
    checkpoint was trained with.

    Raises:
        UsageError: one is another.
    """
    named, config = named_in(given), dict(flatten(config_of(checkpoint)))
    foreign = {key for key in imports_of(config_of(checkpoint)) if key.startswith("model.")}
    foreign |= {ENCODER_KIND} if ENCODER_PATH in foreign else set()
    kept = {key: config[key] for key in foreign & named.keys()}
    refuse_changes(kept, {key: named[key] for key in kept}, lambda key: True)


def without_training(config: Plain) -> Plain:
    """The config without outside code that only training runs."""
    foreign = [
        name for name in ("optimizer", "schedule") if is_path(config.get(name, {}).get("kind"))
    ]
    return {key: value for key, value in config.items() if key not in foreign}


def without_source(config: Plain) -> Plain:
    """The config without a data source from outside this package."""
    data = config["data"]
    if not is_path(data.get("source")):
        return config
    return config | {
        "data": {name: data[name] for name in options(ImageData) if name in data}
        | {"source": "digits"}
    }


def refuse_changes(
    kept: Plain, config: Plain, fixed: Callable[[str], bool], way_out: str = "Leave it out"
) -> None:
    """Checks that a config agrees with the checkpoint's in all `fixed` keys.

    Args:
        kept: the checkpoint's.
        config: the one to check.
        fixed: whether a key must agree.
        way_out: for the error.

    Raises:
        UsageError: it differs in one of them.
    """
    changes = differences(kept, config)
    # Kinds first: a different kind also brings different options.
    for key in sorted(changes, key=lambda key: not key.endswith(".kind")):
        old, new = changes[key]
        if fixed(key):
            raise UsageError(
                f"{key}: the checkpoint was trained with {old}, but the config says {new}. "
                f"{way_out}, or train a new model."
            )
