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
        UsageError: it is not a config that acn writes.
    """
    config = checkpoint["hyper_parameters"][KEY]
    check_plain(config, "config")
    config = rename_keys(config, tell=False)
    optional = [name for name in ("optimizer", "schedule", "callbacks") if name in config]
    for name in ("data", "model", *optional):
        if not isinstance(config.get(name), dict):
            raise UsageError(f"The checkpoint's config has no section {name}.")
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
    named = named_in(given)
    config = with_named(config, named)
    refuse_imports(config, named)
    config = complete(config)
    if config["model"]["encoder"]["kind"] == "import":
        config["model"]["encoder"]["weights"] = None  # the checkpoint holds the trained ones
    return config


def named_in(given: Sequence[str]) -> Plain:
    """Values by dotted key, as the user's overrides set them."""
    parsed = parse_overrides(rename_words(given, tell=False), renamed=True)
    return dict(flatten(cast(Plain, OmegaConf.to_container(parsed))))


def imports_of(config: Plain) -> dict[str, str]:
    """Code outside this package that building a config imports: import paths by key."""
    return {
        key: value
        for key, value in flatten(config)
        if is_path(value) and (key.endswith(".kind") or key in (Source.key, ENCODER_PATH))
    }


ENCODER_KIND, ENCODER_PATH = "model.encoder.kind", "model.encoder.path"


def refuse_imports(config: Plain, named: Mapping[str, Any]) -> None:
    """Checks that the user named all outside code that a config imports.

    Args:
        config: the checkpoint's, with what the user replaces.
        named: values by key, as the user gave them.

    Raises:
        UsageError: the config imports code that the user did not name.
    """
    for key, path in imports_of(config).items():
        if named.get(key) != path:
            raise UsageError(
                f"{key}: the checkpoint would import and run {path}, which is code outside of acn. "
                f"If you trust that, add {key}={path}."
            )


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
    known, bank = checkpoint["hyper_parameters"], checkpoint.get("code_bank")
    if bank is None or "image_shape" not in known:
        raise UsageError("The checkpoint has no code bank or image shape: acn did not write it.")
    # Older checkpoints have no class names: class numbers stand in for them.
    classes = known.get("classes", range(int(bank["labels"].max()) + 1))
    names = [str(name) for name in classes]
    module = build_module(
        config, DataSpec(tuple(known["image_shape"]), names, bank["labels"], bank["rows"])
    )
    load_state(module, checkpoint, bank=True)
    module.bank.rebuild(module.index)
    return module.eval()
