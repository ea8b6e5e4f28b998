"""Values of a config: how the text after `key=` is read, and which values a key refuses."""

import functools
import operator
import re
import types
import typing
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from acn_lightning.utils.errors import UsageError, foreign

MAX_NODES = 10_000
"""Most values in a YAML text, each alias counted as what it stands for: a short text can stand for
billions of values."""

MAX_BYTES = 1 << 20
"""Most bytes of a YAML file."""

NO_NAME = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
"""Characters that no text of an operating system has. The other surrogates stand for bytes of a
file name that is not UTF-8."""


# ---------------------------------------------------------------- types


YAML = (int, float, bool, str, type(None), list, tuple, dict, typing.Literal)
"""Types whose values YAML can hold."""


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; of another type, itself."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def storable(annotation: Any) -> Any:
    """The members of a union that YAML can hold. The others only Python code can pass."""
    kept = []
    for one in members(annotation):
        origin = typing.get_origin(one) or one
        inside = [each for each in typing.get_args(one) if each is not ...]
        if origin in YAML:
            plain = origin is typing.Literal or all(storable(each) == each for each in inside)
            kept.append(one if plain else origin)
        elif one is Path:
            kept.append(str)
    return functools.reduce(operator.or_, kept) if kept else Any


def is_text(annotation: Any) -> bool:
    """Whether a key takes text, and neither numbers nor true and false."""
    return takes_text(annotation) and not any(
        one in (int, float, bool, Any) or (is_literal(one) and not is_name(one))
        for one in members(annotation)
    )


def takes_text(annotation: Any) -> bool:
    """Whether a key takes text, and perhaps other things."""
    return any(is_name(one) for one in members(annotation))


def is_name(one: Any) -> bool:
    """Whether a member of a union is text: str, Path, or words to choose from."""
    words = typing.get_args(one) if is_literal(one) else ()
    return one in (str, Path) or (bool(words) and all(isinstance(word, str) for word in words))


def is_literal(one: Any) -> bool:
    """Whether a member of a union is a `Literal`."""
    return typing.get_origin(one) is typing.Literal


def holds_texts(annotation: Any) -> bool:
    """Whether a key takes a collection of texts, such as list[str]."""
    found = [typing.get_args(one) for one in members(annotation) if is_container(one)]
    return bool(found) and all(set(inside) <= {str, ...} and inside for inside in found)


def is_container(one: Any) -> bool:
    """Whether a member of a union is a list, a tuple or a dict."""
    return (typing.get_origin(one) or one) in (list, tuple, dict)


# ---------------------------------------------------------------- words


def read_word(key: str, text: str, annotation: Any) -> Any:
    """The value of `key=text`. Text is taken as typed where the key takes only text; the rest is
    YAML.

    Example:
        >>> read_word("run", "007", str | None), read_word("seed", "007", int)
        ('007', 7)

    Raises:
        UsageError: it is not valid YAML, or stands for a value that is missing.
    """
    if text == "???":
        raise UsageError(f"{key}: ??? stands for a value that is missing. Give another one.")
    if text in ("", "null") and type(None) in members(annotation):
        return None
    if is_text(annotation):
        return read_text(text, annotation)
    with foreign(f"{key}: '{text[:60]}' is not valid YAML", key):
        if holds_texts(annotation):
            return load(text, yaml.BaseLoader)  # to which each value is text
        value = load(text)
    return value if is_as_typed(value, text, annotation) else text


def read_text(text: str, annotation: Any) -> Any:
    """The text as typed, without quotes all around it. A key that also takes a collection may get
    one in brackets: `trainer.max_time={hours: 1}`."""
    kinds = {typing.get_origin(one) or one for one in members(annotation) if is_container(one)}
    if text[:1] not in ("'", '"', *("{" if dict in kinds else ""), *("[" if list in kinds else "")):
        return text
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if isinstance(node, yaml.CollectionNode):
            return load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # not YAML
        return text
    if not isinstance(node, yaml.ScalarNode) or node.end_mark.index < len(text):
        return text
    return node.value if node.style in ("'", '"') else text


def is_as_typed(value: Any, text: str, annotation: Any) -> bool:
    """Whether YAML's value is what the user means. Where text is possible, 1_1 is not the number
    11, 010 is not 10, and no is not false."""
    if not takes_text(annotation) or not isinstance(value, bool | int | float):
        return True
    if isinstance(value, bool):
        return bool in members(annotation)
    return bool(re.fullmatch(r"[-+]?(0|[1-9]\d*)?(\.\d*)?(e[-+]?\d+)?", text.strip(), re.I))


# ---------------------------------------------------------------- YAML


class Loader(yaml.SafeLoader):
    """YAML as OmegaConf reads it: 1e-3 is a number, and 2024-01-05 is text. So is 12:30, which YAML
    1.1 takes for 750. Zeros in front of a number mean nothing, as in YAML 1.2: 010, which YAML 1.1
    takes for 8, is 10. This one also reads the escapes of file names that are not UTF-8."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # an attribute of each loader, says its type
        first: [one for one in known if one[0].rpartition(":")[2] in ("null", "bool", "merge")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$"),
    list("-+0123456789"),
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?[0-9][0-9_]*(\.[0-9_]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$"
        r"|\.[0-9][0-9_]*([eE][-+][0-9]+)?$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def whole(loader: Any, node: yaml.ScalarNode) -> int:
    """The integer that a text of that form stands for."""
    text = loader.construct_scalar(node).replace("_", "")
    return int(text, 0 if re.match("[-+]?0[bx]", text) else 10)


Loader.add_constructor("tag:yaml.org,2002:int", whole)


def read_yaml_file(path: Path) -> Any:
    """The content of a YAML file, in UTF-8 or with a byte order mark.

    Raises:
        UsageError: it cannot be read, is too large, or is not valid YAML.
    """
    with foreign(f"{path} cannot be read", path), path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES:,} bytes, which no config is.")
    with foreign(f"{path} is not valid YAML", path):
        return OmegaConf.to_container(OmegaConf.create(load(content) or {}))


def load(text: str | bytes, kind: type[Any] = Loader) -> Any:
    """The value that a YAML text holds.

    Raises:
        ValueError: it is not valid, or too large.
    """
    loader = kind(text)
    try:
        root = loader.get_single_node()
        check_nodes(root)
        return loader.construct_document(root) if root else None
    except yaml.MarkedYAMLError as error:  # its own message has several lines
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{error.problem}{where}") from error
    finally:
        loader.dispose()


def check_nodes(root: yaml.Node | None) -> None:
    """Checks that a YAML text does not stand for too many values, and no key is there twice.

    Raises:
        ValueError: it does, or one is.
    """
    left, count = [root], 0
    while left:
        node, count = left.pop(), count + 1
        if count > MAX_NODES:
            raise ValueError(f"it stands for more than {MAX_NODES:,} values")
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            names = Counter(name.value for name, _ in node.value if name.id == "scalar")
            if twice := [name for name, times in names.items() if times > 1]:
                raise ValueError(f"it has the key {twice[0]} twice")
            left += [value for _, value in node.value]


# ---------------------------------------------------------------- checks


def refuse_numbers(given: Iterable[tuple[str, Any]], known: Mapping[str, Any]) -> None:
    """Checks that keys that take text have no numbers, of which the text is lost: YAML reads the
    same 7 from 007 and 7.

    Args:
        given: dotted keys and values.
        known: the type of each key.

    Raises:
        UsageError: one has.
    """
    for key, value in given:
        annotation = known.get(key, Any)
        texts = value if isinstance(value, list) and holds_texts(annotation) else []
        for one in [value] if is_text(annotation) else texts:
            if isinstance(one, bool | int | float):
                what = str(one).lower() if isinstance(one, bool) else f"the number {one}"
                raise UsageError(
                    f"{key}: YAML reads this as {what}, where text belongs. Put it in quotes."
                )


def refuse_characters(given: Iterable[tuple[str, Any]]) -> None:
    """Checks that text has no characters that no file name can have.

    Raises:
        UsageError: one has.
    """
    for key, value in given:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int) and abs(one) >= 2**63:
                raise UsageError(f"{key}: the number is too large.")
            if isinstance(one, str) and (found := NO_NAME.search(one)):
                raise UsageError(f"{key}: {one!r} has the character {found[0]!r}. Leave it out.")
