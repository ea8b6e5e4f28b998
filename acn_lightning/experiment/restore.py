"""Restores the model that a checkpoint holds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from omegaconf import OmegaConf

from acn_lightning.checkpoint import KEY, read_checkpoint
from acn_lightning.config.compose import (
    Plain,
    complete,
    differences,
    flatten,
    overlay,
    parse_overrides,
)
from acn_lightning.config.renamed import rename_keys, rename_words
from acn_lightning.data import ImageData, Source
from acn_lightning.experiment.build import DataSpec, build, build_module
from acn_lightning.module import ACN
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.registry import is_path, options


def config_of(checkpoint: dict[str, Any]) -> Plain:
    """The config that a checkpoint was trained with, converted to the current keys.

    Raises:
        UsageError: it holds an interpolation. acn writes values; a stranger's file could have this
            machine's environment resolved, or hide the name of code to import.
    """
    config: Plain = checkpoint["hyper_parameters"][KEY]
    for key, value in flatten(config):
        if "${" in str(value):
            raise UsageError(f"{key}: the checkpoint's config holds {value}, which is refused.")
    return in_todays_terms(rename_keys(config, tell=False))


def in_todays_terms(config: Plain) -> Plain:
    """Converts a config from before `model.shape` existed. Its encoder had the options `sphere`
    (whether codes lie on a sphere) and `spread` (how far apart they start). Without a sphere,
    `spread` only matters before training, so it is dropped."""
    model = dict(config["model"])
    if "shape" in model:
        return config
    encoder = dict(model["encoder"])
    spread, sphere = encoder.pop("spread", 1.0), encoder.pop("sphere", False)
    shape = {"kind": "sphere", "radius": spread} if sphere else {"kind": "free"}
    return config | {"model": model | {"encoder": encoder, "shape": shape}}


def carried_config(
    checkpoint: dict[str, Any], given: Sequence[str], purpose: str = "data"
) -> Plain:
    """The config that a checkpoint carries, completed with options added since, ready to build.

    Args:
        checkpoint: possibly from an untrusted source.
        given: the user's overrides, `key=value`.
        purpose: "model" to use only its networks and codes; "data" to also read its images;
            "training" to train on. Code that the purpose does not need is not imported.

    Raises:
        UsageError: building it would import code that the overrides do not name.
    """
    config = config_of(checkpoint) | {"run": None, "resume": None}
    if purpose != "training":
        config = without_training(config)
    if purpose == "model":
        config = without_source(config)
    words = rename_words(given, tell=False)
    named = {key: value for key, _, value in (word.partition("=") for word in words)}
    refuse_imports(config, named)
    config = complete(with_named(config, named))
    if config["model"]["encoder"]["kind"] == "import":
        config["model"]["encoder"]["weights"] = None  # the checkpoint holds the trained ones
    return config


def imports_of(config: Plain) -> dict[str, str]:
    """Code outside this package that building a config imports: import paths by key."""
    found = {}
    for key, value in flatten(config):
        if (key.endswith(".kind") or key == Source.key) and is_path(value):
            found[key] = value
        if key == "model.encoder.path" and config["model"]["encoder"]["kind"] == "import":
            found[key] = value
    return found


def refuse_imports(config: Plain, named: Mapping[str, Any]) -> None:
    """Checks that the user named all outside code that a checkpoint's config imports.

    Args:
        config: the checkpoint's config.
        named: values by key, as the user gave them.

    Raises:
        UsageError: the config imports code that the user did not name.
    """
    for key, path in imports_of(config).items():
        other_encoder = named.get("model.encoder.kind", "import") != "import"
        if key not in named and not (key == "model.encoder.path" and other_encoder):
            raise UsageError(
                f"{key}: the checkpoint would import and run {path}, which is code outside of acn. "
                f"If you trust that, add {key}={path}."
            )


def with_named(config: Plain, named: Mapping[str, str]) -> Plain:
    """The config with the user's classes in place of outside code that the user replaces. What is
    replaced is not imported."""
    replaced = [
        f"{key}={named[key]}"
        for key, path in imports_of(config).items()
        if key in named and named[key] != path
    ]
    laid = overlay(OmegaConf.create(config), parse_overrides(replaced)) if replaced else config
    return cast(Plain, OmegaConf.to_container(laid)) if replaced else config


def refuse_other_networks(checkpoint: dict[str, Any], given: Sequence[str]) -> None:
    """Checks that the user's overrides name the outside networks that a checkpoint was trained
    with, and no others.

    Raises:
        UsageError: one is another.
    """
    words = rename_words(given, tell=False)
    named = {key: value for key, _, value in (word.partition("=") for word in words)}
    kept = {key: path for key, path in imports_of(config_of(checkpoint)).items() if key in named}
    chosen = {key: named[key] for key in kept}
    refuse_changes(kept, chosen, lambda key: key.startswith("model."))


def without_training(config: Plain) -> Plain:
    """The config without outside code that only training runs."""
    own = {
        name: config[name]
        for name in ("optimizer", "schedule")
        if name in config and not is_path(config[name].get("kind"))
    }
    dropped = ("optimizer", "schedule", "callbacks")
    return {key: value for key, value in config.items() if key not in dropped} | own


def without_source(config: Plain) -> Plain:
    """The config without a data source from outside this package."""
    data = config["data"]
    if not is_path(data.get("source")):
        return config
    return config | {
        "data": {name: data[name] for name in options(ImageData) if name in data}
        | {"source": "digits"}
    }


def refuse_changes(kept: Plain, config: Plain, fixed: Callable[[str], bool]) -> None:
    """Checks that a config agrees with the checkpoint's in all `fixed` keys.

    Raises:
        UsageError: it differs in one of them.
    """
    changes = differences(kept, config)
    # Kinds first: a different kind also brings different options.
    for key in sorted(changes, key=lambda key: not key.endswith(".kind")):
        old, new = changes[key]
        if fixed(key):
            raise UsageError(
                f"{key}: the checkpoint was trained with {old}, but the command says {new}. Leave "
                "it out, or train a new model."
            )


def from_checkpoint(path: str, overrides: list[str], bank: bool) -> tuple[Plain, ImageData, ACN]:
    """A checkpoint's config with overrides applied, its data, and its module with weights loaded.

    With `bank`, the module also gets the checkpoint's code bank. The data then keep the
    checkpoint's seed, so that they are the images of the bank; an overridden seed only affects what
    is drawn.

    Raises:
        UsageError: the checkpoint cannot be read, the overrides contradict its networks, or its
            networks cannot take the data.
    """
    checkpoint = read_checkpoint(path)
    refuse_other_networks(checkpoint, overrides)
    kept = carried_config(checkpoint, overrides)
    config = complete(kept, overrides)
    refuse_changes(kept, config, lambda key: key.startswith("model."))
    built = config | {"seed": kept["seed"]} if bank else config
    data, module = build(built, tuple(checkpoint["hyper_parameters"]["image_shape"]))
    load_state(module, checkpoint, bank)
    return config, data, module


def load_state(module: ACN, checkpoint: Mapping[str, Any], bank: bool) -> None:
    """Loads the weights and, with `bank`, the code bank.

    Raises:
        UsageError: they do not fit the module.
    """
    try:
        module.load_state_dict(checkpoint["state_dict"])
        if bank:
            module.on_load_checkpoint(dict(checkpoint))
    except (RuntimeError, KeyError) as error:
        raise UsageError(
            f"The checkpoint does not fit its own config: {' '.join(str(error).split())[:300]}"
        ) from error


def restore(
    checkpoint: dict[str, Any], overrides: Sequence[str] = (), purpose: str = "model"
) -> ACN:
    """A checkpoint's module with its weights, its code bank and an index of it, on the CPU. The
    training images are not needed.

    Args:
        checkpoint: as `read_checkpoint` returns it.
        overrides: changes to its config, `section.key=value`.
        purpose: see `carried_config`.

    Raises:
        UsageError: the overrides contradict the checkpoint's networks, or the checkpoint does not
            fit its own config.
    """
    refuse_other_networks(checkpoint, overrides)
    kept = carried_config(checkpoint, overrides, purpose)
    config = complete(kept | {"compile": False}, overrides)
    refuse_changes(kept, config, lambda key: key.startswith("model."))
    known, bank = checkpoint["hyper_parameters"], checkpoint["code_bank"]
    # Older checkpoints have no class names: class numbers stand in for them.
    classes = known.get("classes", range(int(bank["labels"].max()) + 1))
    names = [str(name) for name in classes]
    module = build_module(
        config, DataSpec(tuple(known["image_shape"]), names, bank["labels"], bank["rows"])
    )
    load_state(module, checkpoint, bank=True)
    module.bank.rebuild(module.index)
    return module.eval()
