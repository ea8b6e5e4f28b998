"""Text made fit for where it goes: a terminal, a text file, a spreadsheet, a sentence."""

import os
from collections.abc import Iterable
from pathlib import Path


def printable(text: object) -> str:
    """Text on one line for a terminal. Control characters, which could move the cursor or hide
    other text, and bytes that are not UTF-8 are shown as escapes.

    Example:
        >>> printable("a\\nb\\x1b[2J")
        'a\\\\nb\\\\x1b[2J'
    """
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(text)
    )


def as_text(path: str | os.PathLike[str]) -> str:
    """A file's name as Unicode, for files and pages. A name may be any bytes: those that are not
    UTF-8, which Python keeps as lone surrogates, become escapes.

    Example:
        >>> as_text(b"caf\\xe9.png".decode("utf-8", "surrogateescape"))
        'caf\\\\udce9.png'
    """
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def counted(count: int, one: str, several: str = "") -> str:
    """A number with its noun.

    Args:
        count: the number.
        one: the noun.
        several: its plural, if that does not end in s only.

    Example:
        >>> counted(1, "image"), counted(1200, "class", "classes")
        ('1 image', '1,200 classes')
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def shape_words(shape: Iterable[object]) -> str:
    """A shape in words.

    Example:
        >>> shape_words((1, 28, 28))
        '1 x 28 x 28'
    """
    return " x ".join(map(str, shape))


def words_to_go_on(run: Path) -> list[str]:
    """Words for `acn fit` that go on with a run in its own folder.

    Example:
        >>> words_to_go_on(Path("runs/digits/mine"))
        ['runs/digits/mine/config.yaml', 'run=mine', 'resume=auto']
    """
    return [str(run / "config.yaml"), f"run={run.absolute().name}", "resume=auto"]


def cell(text: str) -> str:
    """Text for a cell of a CSV file. A spreadsheet would run one that begins like a formula, so it
    gets an apostrophe in front (OWASP, "CSV Injection").

    Example:
        >>> cell("=1+1.png")
        "'=1+1.png"
    """
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text
