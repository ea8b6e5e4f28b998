"""What docstrings and signatures tell a user about options."""

import inspect
import re
import textwrap
import types
import typing
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
    """The words that an option takes: those in quotes in its description.

    Example:
        >>> choices(str, '"train" or "test" images')
        ['train', 'test']
    """
    members = typing.get_args(annotation) or (annotation,)
    if bool in members:
        return ["true", "false"]
    words = dict.fromkeys(CHOICE.findall(text)) if str in members else {}
    return list(words) if len(words) > 1 else []


def type_text(annotation: Any) -> str:
    """A type in the words of YAML.

    Example:
        >>> type_text(int | None), type_text(dict[str, int] | str), type_text(bool)
        ('int or null', 'mapping or text', 'true or false')
    """
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
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
