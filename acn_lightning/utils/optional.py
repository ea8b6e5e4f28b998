"""Packages that only some commands take."""

from importlib import import_module
from typing import Any

from acn_lightning.utils.errors import UsageError


def require(what: str, extra: str, *names: str) -> list[Any]:
    """These modules, imported.

    Args:
        what: takes them; the error begins with it.
        extra: of this package, that installs them.
        names: of the modules.

    Raises:
        UsageError: one is not installed.

    Example:
        >>> require("acn fly", "fly", "kite")
        Traceback (most recent call last):
        acn_lightning.utils.errors.UsageError: acn fly needs kite: pip install 'acn-lightning[fly]'.
    """
    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        raise UsageError(
            f"{what} needs {error.name}: pip install 'acn-lightning[{extra}]'."
        ) from error
