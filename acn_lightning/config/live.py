"""Reads options from the classes themselves: for the catalogue, and for classes that it lacks.

Importing this module imports all that a config configures, which takes seconds.
"""

import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from acn_lightning.config.keys import (
    KINDS,
    PACKAGES,
    TRAINER_OURS,
    Described,
    kind_key,
)
from acn_lightning.config.sections import FAMILIES, SECTIONS
from acn_lightning.config.values import storable
from acn_lightning.optimization import OPTIMIZERS, optimizer_options
from acn_lightning.utils.docstrings import first_words
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.registry import (
    Option,
    find_class,
    foreign_options,
    import_object,
    options,
)

# ---------------------------------------------------------------- the catalogue


def sections() -> dict[str, Described]:
    """The sections whose class is fixed."""
    return {
        name: Described(first_words(configured), stored(options(configured)))
        for name, configured in SECTIONS.items()
    }


def kinds() -> dict[str, dict[str, Described]]:
    """For each section that chooses a class: this package's kinds."""
    found = {
        section: {
            kind: Described(first_words(one), stored(options(one)))
            for kind, one in sorted(family.kinds.items())  # whatever was imported first
            if one.__module__.startswith("acn_lightning.")
        }
        for section, family in FAMILIES.items()
    }
    found["optimizer"] = {
        kind: Described(f"torch.optim.{one.__name__}", stored(optimizer_options(kind)))
        for kind, one in OPTIMIZERS.items()
    }
    return {section: found[section] for section in KINDS}


def trainer() -> dict[str, Option]:
    """The arguments of Lightning's Trainer that a config may set."""
    own = stored(foreign_options(Trainer))
    return {name: option for name, option in own.items() if name not in TRAINER_OURS}


def versions() -> dict[str, str]:
    """Of the packages whose own arguments are in the catalogue."""
    return {name: version(name).partition("+")[0] for name in PACKAGES}


def stored(own: dict[str, Option]) -> dict[str, Option]:
    """Options as the catalogue holds them: with types that YAML can hold."""
    return {
        name: option._replace(annotation=storable(option.annotation))
        for name, option in own.items()
    }


def refuse_stale() -> None:
    """Checks that the catalogue has this package's options as they are: in a checkout someone may
    have changed one.

    Raises:
        UsageError: an option is new or gone, or has another type or default.
    """
    from acn_lightning.config import catalogue  # late: what makes it must run without it

    listed, found = by_name(catalogue.SECTIONS, catalogue.KINDS), by_name(sections(), kinds())
    for name in listed.keys() | found.keys():
        one, other = listed.get(name, {}), found.get(name, {})
        for key in one.keys() | other.keys():
            if key not in one or key not in other or one[key][:2] != other[key][:2]:
                raise UsageError(
                    f"{name}: the option {key} has changed in the code. Run "
                    "python docs/make_reference.py, which lists the options anew."
                )


def by_name(
    fixed: dict[str, Described], chosen: dict[str, dict[str, Described]]
) -> dict[str, dict[str, Option]]:
    """This package's options by section, such as "data", and kind, such as "data.source=npz"."""
    return {name: one.options for name, one in fixed.items()} | {
        f"{kind_key(section)}={kind}": one.options
        for section in FAMILIES
        for kind, one in chosen[section].items()
    }


# ---------------------------------------------------------------- what the catalogue lacks


def kind_options(section: str, kind: str) -> dict[str, Option]:
    """The options of a class of others, or of a kind that the catalogue does not have. Those whose
    default YAML cannot hold, such as a class, are left to Python.

    Raises:
        UsageError: there is no such kind, or it is not of the section's family.
    """
    if section == "optimizer":
        return optimizer_options(kind)
    own = options(find_class(FAMILIES[section], kind)).items()
    return {name: option for name, option in own if is_storable(option.default)}


def is_storable(default: Any) -> bool:
    """Whether YAML can hold a default, or there is none."""
    if isinstance(default, dict):
        return all(map(is_storable, (*default, *default.values())))
    if isinstance(default, list | tuple):
        return all(map(is_storable, default))
    none = inspect.Parameter.empty
    return default is none or isinstance(default, str | int | float | Path | None)


def callback_options(kind: str, name: str) -> dict[str, Option]:
    """The arguments of a callback's class.

    Raises:
        UsageError: it does not exist, or is not a Lightning callback.
    """
    return foreign_options(find_callback(kind, name))


def find_callback(kind: str, name: str) -> type[Callback]:
    """The class at package.module:Name.

    Raises:
        UsageError: it does not exist, or is not a Lightning callback.
    """
    found = import_object(kind, f"callbacks.{name}.kind")
    if not (isinstance(found, type) and issubclass(found, Callback)):
        raise UsageError(f"callbacks.{name}.kind: {kind} is not a lightning.Callback.")
    return found
