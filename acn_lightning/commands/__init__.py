"""The `acn` commands, one file each.

A command is a function in the file of the same name. Its positional arguments are words of the
command line; the last one, `overrides`, collects the `key=value` words. Its keyword-only arguments
are its own options, such as `k=8`, which are not saved with a run. `acn --help` reads all of this
from the signature and docstring. The return value is printed. Files whose name begins with an
underscore are shared helpers.

A constant of the file, `SECTION`, names a section of the config whose keys the command takes
without it, such as `kind=daydream`: help lists them.

Heavy packages are imported inside the function, as `acn --help` imports all of these files.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any


def all_commands() -> dict[str, Callable[..., Any]]:
    """All commands, by name."""
    names = [module.name for module in iter_modules(__path__) if not module.name.startswith("_")]
    return {name: getattr(import_module(f"{__name__}.{name}"), name) for name in names}


def module_of(command: Callable[..., Any]) -> ModuleType | None:
    """The file of a command."""
    return sys.modules.get(command.__module__)
