"""What was read, converted and left out of a folder, in one line."""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from unicodedata import normalize

import numpy as np

from acn_lightning.data.files import Read
from acn_lightning.data.opener import COMPLAINT
from acn_lightning.data.pixels import DEEP, FRAMES, GREYED, REDUCED, RESIZED, TRANSPARENT, Form
from acn_lightning.data.sources.base import Splits
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


def only_tested(content: Splits) -> str:
    """A sentence about test images of classes that no training image has, none of which can be
    classified correctly; empty if there are none. It names what is likely to be meant."""
    train, test = (
        np.bincount(part.labels[part.labels >= 0].numpy(), minlength=len(content.classes))
        for part in content[:2]
    )
    if len(train) > len(content.classes) or not train.any():  # they have no names, or none at all
        return ""
    odd = np.flatnonzero(test * (train == 0))
    if not len(odd):
        return ""
    known = [content.classes[row] for row in np.flatnonzero(train)]
    told = [f"{content.classes[row]} ({test[row]:,}){alike(content.classes[row], known)}"
            for row in odd[:NAMED]]  # fmt: skip
    more = ", ..." if len(odd) > NAMED else ""
    count = counted(int(test[odd].sum()), "test image")
    return printable(f" {count} of classes without a training image: {', '.join(told)}{more}.")


def alike(name: str, known: Sequence[str]) -> str:
    """Which of the known names may be the same class; empty if none."""
    if found := [one for one in known if folded(one) == folded(name)]:
        return f", where training has {found[0]} in other case or Unicode form"
    if found := get_close_matches(name, known, n=1, cutoff=0.8):
        return f", where training has {found[0]}"
    return ""


def folded(name: str) -> str:
    """A name without case, and in the one of Unicode's forms; Macs write another."""
    return normalize("NFC", name).casefold()


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
