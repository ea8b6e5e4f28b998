"""Renamed config keys. The old names still work."""

import sys
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

RENAMED = {
    "model.learning_rate": "optimizer.learning_rate",
    "model.schedule": "schedule.kind",
}


def rename_keys(config: dict[str, Any], tell: bool = True) -> dict[str, Any]:
    """The config with current key names. The config passed in is not modified.

    Args:
        config: a nested config.
        tell: whether to print a line for each renamed key.
    """
    found = {old: new for old, new in RENAMED.items() if has(config, old) and fits(config, new)}
    if not found:
        return config
    config = deepcopy(config)
    for old, new in found.items():
        section, _, key = old.partition(".")
        value = config[section].pop(key)
        section, _, key = new.partition(".")
        config[section] = {key: value} | (config.get(section) or {})
        if tell:
            say(old, new)
    return config


def fits(config: dict[str, Any], key: str) -> bool:
    """Whether the section of this dotted key can take it."""
    return isinstance(config.get(key.partition(".")[0]) or {}, dict)


def has(config: dict[str, Any], key: str) -> bool:
    """Whether the config has this dotted key, `section.name`."""
    section, _, name = key.partition(".")
    return isinstance(config.get(section), dict) and name in config[section]


def rename_words(words: Sequence[str], tell: bool = True) -> list[str]:
    """Overrides, `key=value`, with current key names; `tell` as in `rename_keys`."""
    renamed = []
    for word in words:
        key, equals, value = word.partition("=")
        if key in RENAMED and tell:
            say(key, RENAMED[key])
        renamed.append(f"{RENAMED.get(key, key)}{equals}{value}")
    return renamed


def say(old: str, new: str) -> None:
    """Prints which name to use, on rank 0."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    told = f"acn: {old} is now {new}; the old name still works."
    rank_zero_only(print)(told, file=sys.stderr)
