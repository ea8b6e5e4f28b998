"""Optional packages that only some commands need."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from acn_lightning.utils.errors import UsageError


def require_packages(what: str, extra: str, *names: str) -> list[Any]:
    """Imports and returns these modules.

    Args:
        what: what needs them; the error begins with it.
        extra: this package's extra that installs them.
        names: names of the modules.

    Raises:
        UsageError: one is not installed.

    Example:
        >>> require_packages("acn fly", "fly", "kite")
        Traceback (most recent call last):
        acn_lightning.utils.errors.UsageError: acn fly needs kite: pip install 'acn-lightning[fly]'.
    """
    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        raise UsageError(
            f"{what} needs {error.name}: pip install 'acn-lightning[{extra}]'."
        ) from error


def package_if_installed(name: str) -> Any | None:
    """Imports and returns a package; None if it is not installed."""
    return import_module(name) if find_spec(name) else None
