"""Optional packages that only some commands need."""

import re
import shlex
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
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
        acn_lightning.utils.errors.UsageError: acn fly needs kite: pip install kite
    """
    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        packages = shlex.join(packages_of(extra) or [str(error.name)])
        raise UsageError(f"{what} needs {error.name}: pip install {packages}") from error


def packages_of(extra: str) -> list[str]:
    """What an extra of this package installs, such as `onnx>=1.17`; by name, since the package
    itself is on no index. Empty if the package is not installed or has no such extra."""
    try:
        listed = requires("acn-lightning") or []
    except PackageNotFoundError:
        return []
    own = re.compile(rf"""extra == ['"]{re.escape(extra)}['"]""")
    return [one.partition(";")[0].strip() for one in listed if own.search(one)]


def package_if_installed(name: str) -> Any | None:
    """Imports and returns a package; None if it is not installed."""
    return import_module(name) if find_spec(name) else None
