"""What docstrings and signatures tell a user about options."""

import dataclasses
import inspect
import json
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHOICE = re.compile(r'"([\w-]+)"')
"""A word to choose, in the description of an option."""


def first_words(thing: Any) -> str:
    """The first paragraph of the docstring, as one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def arguments(docstring: str) -> dict[str, str]:
    """The text for each name in a docstring's Args (or a dataclass's Attributes) section.

    Example:
        >>> arguments("Fly.\\n\\nArgs:\\n    height, depth: in\\n        metres.\\n")
        {'height': 'in metres.', 'depth': 'in metres.'}
    """
    found = re.search(r"^ *(?:Args|Attributes):\n((?:    .*\n?|\n)+)", docstring, re.M)
    body = textwrap.dedent(found[1]).rstrip() if found else ""
    said: dict[str, str] = {}
    for entry in re.split(r"\n(?=\w)", body) if body else []:
        names, _, text = entry.strip().partition(": ")
        said |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return said


def choices(annotation: Any, text: str) -> list[str]:
    """The words that an option takes: those in quotes in its description, unless it says that they
    are examples, "such as" these.

    Example:
        >>> choices(str, '"train" or "test" images'), choices(str, 'such as "a" or "b"')
        (['train', 'test'], [])
    """
    members = typing.get_args(annotation) if is_union(annotation) else (annotation,)
    words = ["true", "false"] if bool in members else []
    for one in members:
        words += map(str, typing.get_args(one)) if typing.get_origin(one) is typing.Literal else ()
    named = dict.fromkeys(CHOICE.findall(text)) if str in members and "such as" not in text else {}
    return [*dict.fromkeys(words), *(named if len(named) > 1 else ())]


def is_union(annotation: Any) -> bool:
    """Whether a type is a union."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def value_text(value: Any) -> str:
    """A default as YAML writes it; nothing if there is none.

    Example:
        >>> value_text(None), value_text(0.5), value_text([1]), value_text("")
        ('null', '0.5', '[1]', '""')
    """
    if value in (inspect.Parameter.empty, dataclasses.MISSING):
        return ""
    return value or '""' if isinstance(value, str) else json.dumps(value, default=str)


def takes(annotation: Any, text: str, words: Sequence[str] = ()) -> str:
    """What an option takes.

    Args:
        annotation, text: the option's.
        words: the words that it takes; by default those that its description names.
    """
    words = words or choices(annotation, text)
    kind = type_text(annotation)
    if not words or words == ["true", "false"]:
        return kind
    return ", ".join(words) + (" or null" if "null" in kind else "")


def lines_about(name: str, default: Any, what: str, text: str) -> list[str]:
    """Lines for a terminal about an option: its name and default, what it takes, what it is."""
    width = max(60, min(100, shutil.get_terminal_size().columns) - 2)
    head = f"{name}={value_text(default)}  ({what})"
    space = " " * 6
    return [
        *textwrap.wrap(
            head, width, initial_indent="  ", subsequent_indent="        ", break_on_hyphens=False
        ),
        *textwrap.wrap(text, width, initial_indent=space, subsequent_indent=space),
    ]


def type_text(annotation: Any) -> str:
    """A type in the words of YAML.

    Example:
        >>> type_text(int | None), type_text(dict[str, int] | str), type_text(bool)
        ('int or null', 'mapping or text', 'true or false')
    """
    if is_union(annotation):
        return " or ".join(dict.fromkeys(map(type_text, typing.get_args(annotation))))
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(map(str, typing.get_args(annotation)))
    inside = typing.get_args(annotation)
    origin = typing.get_origin(annotation) or annotation
    if origin in (list, tuple):
        return f"list of {type_text(inside[0])}" if inside else "list"
    names = {
        str: "text", Path: "text", bool: "true or false", int: "int", float: "float",
        dict: "mapping", type(None): "null",
    }  # fmt: skip
    return names.get(origin, "any")
