"""What was read, converted and left out of a folder, in one line."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from acn_lightning.data.files import Read
from acn_lightning.data.opener import COMPLAINT
from acn_lightning.data.pixels import DEEP, FRAMES, GREYED, REDUCED, RESIZED, TRANSPARENT, Form
from acn_lightning.utils.text import counted, printable

NAMED = 3
"""Number of unreadable files that a report names."""


def describe(
    name: str, read: Read, form: Form, labels: Sequence[str | None], left_out: Sequence[str]
) -> str:
    """The line.

    Args:
        name: of what was read.
        read: the images.
        form: what they were converted to.
        labels: the class of each file, of those that cannot be read too; None for none.
        left_out: what else was found, in words.
    """
    classes = {labels[row] for row in read.rows} - {None}
    lost = sorted({label for label in labels if label is not None} - classes)
    among = f" in {counted(len(classes), 'class', 'classes')}" if classes else ""
    line = f"{name}: {counted(len(read.rows), 'image')}{among}, {sizes(read)} pixels."
    for heading, things in (
        ("Converted", conversions(read, form)),
        ("Left out", [*left_out, *failures(read.failed), *(f"all of class {one}" for one in lost)]),
    ):
        if things:
            line += f" {heading}: {'; '.join(things)}."
    return printable(line)


def sizes(read: Read) -> str:
    """The smallest and the largest size, width x height."""
    least, most = (
        choose(read.sizes, key=lambda size: (size[0] * size[1], size)) for choose in (min, max)
    )
    words = [f"{width} x {height}" for width, height in (least, most)]
    return words[0] if least == most else " to ".join(words)


def conversions(read: Read, form: Form) -> list[str]:
    """What was converted, in words."""
    count = Counter(change for changes in read.changes for change in changes)
    height, width = read.images.shape[2:]
    words = {
        RESIZED: f"resized to {width} x {height}",
        GREYED: "from colour to grey (data.channels)",
        TRANSPARENT: f"transparent, laid on {form.background} (data.background)",
        FRAMES: "of several frames or pages, of which the first is taken",
        DEEP: f"of 16 bits, of which {read.bits} are used (data.bits)",
        REDUCED: "of more than 8 bits a channel, reduced to 8",
    }
    return [f"{count[change]:,} {text}" for change, text in words.items() if count[change]]


def failures(failed: dict[Path, str]) -> list[str]:
    """How many files cannot be read, and why the first of them cannot."""
    if not failed:
        return []
    told = [why.replace(COMPLAINT, "").rstrip(".") for why in list(failed.values())[:NAMED]]
    more = ["..."] if len(failed) > NAMED else []
    return [f"{len(failed):,} that cannot be read: {', '.join([*told, *more])}"]
