"""The registry: classes that a config chooses by name or by import path."""

import importlib
import inspect
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from acn_lightning.utils.docstrings import arguments
from acn_lightning.utils.errors import UsageError, check_choice, nearest, one_line


class Option(NamedTuple):
    """An option of a constructor or a command.

    Attributes:
        annotation: its type.
        default: its default.
        text: what the docstring says about it.
    """

    annotation: Any
    default: Any
    text: str = ""


class Registered:
    """A class that a config chooses by `kind`.

    A subclass with a `key` is a family. Its own subclasses name their `kind`, and are listed in
    `Family.kinds`:

        class Encoder(Registered, key="model.encoder.kind"): ...
        class ConvEncoder(Encoder, kind="conv"): ...

    Positional constructor arguments are wiring that other parts of the model determine (an image
    shape, the code size). Keyword-only arguments are options of the config: their names are its
    keys, their annotations its types, their defaults its defaults.

    Attributes:
        key: config key whose value is a kind of this family.
        kind: the name that a class has in its family.
        kinds: classes of the family, by kind.
    """

    key: ClassVar[str]
    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type]]

    def __init_subclass__(cls, *, key: str | None = None, kind: str | None = None) -> None:
        super().__init_subclass__()
        if key is not None:
            cls.key, cls.kinds = key, {}
        if kind is not None:
            cls.kind = kind
            cls.kinds[kind] = cls


def find_class(family: type[Registered], kind: str) -> type:
    """The class of that kind, or the one imported from `package.module:Name`.

    Raises:
        UsageError: there is none, or it is not of this family.
    """
    if not is_path(kind):
        check_choice(family.key, kind, family.kinds)
        return family.kinds[kind]
    found = import_object(kind, family.key)
    if not (isinstance(found, type) and issubclass(found, family)):
        raise UsageError(f"{family.key}: {kind} is not a subclass of {family.__name__}.")
    return found


def is_path(kind: Any) -> bool:
    """Whether a config's value is an import path, package.module:Name."""
    return isinstance(kind, str) and ":" in kind


def import_object(path: str, key: str) -> Any:
    """Imports the object at `package.module:Name`. The current folder is searched too.

    Args:
        path: package.module:Name.
        key: config key that the error begins with.

    Raises:
        UsageError: there is no such object, or its module fails.
    """
    package, colon, name = path.partition(":")
    if not (package and colon and name):
        raise UsageError(f"{key}: '{path}' is not of the form package.module:Name.")
    here = str(Path.cwd())
    sys.path.append(here)  # after all installed packages
    try:
        return operator.attrgetter(name)(importlib.import_module(package))
    except Exception as error:  # the module runs, and may raise anything
        raise UsageError(f"{key}: {path} cannot be imported: {one_line(error)}") from error
    finally:
        sys.path.remove(here)


def make(cls: Callable[..., Any], key: str, *wiring: Any, **options: Any) -> Any:
    """Makes an object of a class that may be the user's own.

    Raises:
        UsageError: the user's class rejects its arguments.
    """
    try:
        return cls(*wiring, **options)
    except UsageError:
        raise
    except Exception as error:  # whatever the user's class raises
        if getattr(cls, "__module__", "").startswith("acn_lightning."):
            raise  # our own class: a bug in this package, not a config error
        name = getattr(cls, "__name__", cls)
        raise UsageError(f"{key}: {name} cannot be made: {one_line(error)}") from error


def parameters(constructor: Callable[..., Any]) -> Iterable[tuple[str, inspect.Parameter]]:
    """The arguments of a constructor by name. Annotations that are text are looked up, unless one
    of them names what only a type checker imports."""
    try:
        return inspect.signature(constructor, eval_str=True).parameters.items()
    except Exception:  # whatever the text raises
        return inspect.signature(constructor).parameters.items()


def options(constructor: Callable[..., Any]) -> dict[str, Option]:
    """The keyword-only arguments of a constructor."""
    said = arguments(inspect.getdoc(constructor) or "")
    return {
        name: Option(parameter.annotation, parameter.default, said.get(name, ""))
        for name, parameter in parameters(constructor)
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def foreign_options(constructor: Callable[..., Any]) -> dict[str, Option]:
    """The arguments that another package's constructor takes by name."""
    return {
        name: Option(parameter.annotation, parameter.default)
        for name, parameter in parameters(constructor)
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def whose(family: type[Registered], option: str, known: Mapping[str, Any]) -> str:
    """A hint for an option that the chosen kind does not have.

    Args:
        family: family of the kind.
        option: name of the option.
        known: options of the chosen kind.

    Returns:
        Which kinds have it; else a similar option of the chosen kind; else nothing.
    """
    kinds = sorted(kind for kind, one in family.kinds.items() if option in options(one))
    if kinds:
        return f" It is for {family.key}={', '.join(kinds)}."
    return nearest(option, known)
