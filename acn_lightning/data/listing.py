"""Which images a folder holds, and of which class and split each is."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from acn_lightning.data.opener import SUFFIXES
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.text import as_text

TRAIN = ("train", "training")
TEST = ("test", "testing")
VALIDATION = ("val", "valid", "validation", "dev", "eval")
"""Names of folders that are splits, in lower case."""

SYSTEM = frozenset(
    name.lower()
    for name in (
        "__MACOSX", "__pycache__", "@eaDir", "@tmp", "@Recycle", "@Recently-Snapshot", "#recycle",
        "#snapshot", "$RECYCLE.BIN", "RECYCLER", "System Volume Information", "lost+found",
    )
)  # fmt: skip
"""Folders of operating systems, network drives and Python, which hold no images of the user's."""


class Part(NamedTuple):
    """The images of a folder.

    Attributes:
        files: in order of class, folder and name.
        labels: the name of each one's class; None if there are no classes.
    """

    files: list[Path]
    labels: list[str | None]


class Listing(NamedTuple):
    """The images of a folder and its splits.

    Attributes:
        train: images of the training split; all images if there are no splits.
        test: images of the test split; None if there are no splits.
        left_out: what else was found, in words.
    """

    train: Part
    test: Part | None
    left_out: list[str]

    def of(self, part: str) -> Part:
        """The images of part "train" or "test"; all images if there are no splits."""
        return self.test if part == "test" and self.test else self.train


class Walk:
    """Looks through folders and notes what is left out.

    Args:
        root: folder that names are relative to.

    Attributes:
        others: number of files that are no images, by kind, such as ".txt".
        folders: folders that were left out, in words.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.others: Counter[str] = Counter()
        self.folders: list[str] = []

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """(image files, folders to look into) of a folder, each sorted."""
        files, folders = [], []
        with os.scandir(folder) as found:
            known = sorted(found, key=lambda entry: entry.name)
        for entry in known:
            path = folder / entry.name
            if entry.name.startswith("."):
                self.others["hidden"] += 1
            elif not (path.is_dir() if entry.is_symlink() else entry.is_dir()):
                if path.suffix.lower() in SUFFIXES:
                    files.append(path)
                else:
                    self.others[path.suffix.lower() or "without a suffix"] += 1
            elif entry.name.lower() in SYSTEM:
                self.leave_out(path)
            elif is_output(path):
                self.leave_out(path, ", written by acn")
            else:
                folders.append(path)
        return files, folders

    def leave_out(self, folder: Path, why: str = "") -> None:
        """Notes a folder and how many files it holds."""
        count = sum(len(files) for _, _, files in os.walk(folder))
        self.folders.append(f"{count:,} in {folder.relative_to(self.root)}{why}")

    def images(self, folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
        """Yields the image files of a folder, then of the folders in it, at any depth. Links are
        followed, but no folder is entered twice.

        Args:
            folder: where to begin.
            seen: `identity` of folders that are not to be entered again.
        """
        waiting = [folder]
        while waiting:
            one = waiting.pop()
            if identity(one) in seen:
                self.folders.append(f"{one.relative_to(self.root)}, which leads back")
                continue
            seen.add(identity(one))
            files, folders = self.entries(one)
            yield from files
            waiting += reversed(folders)

    def part(self, folder: Path, files: list[Path], folders: list[Path]) -> Part:
        """The images of a folder, of which these are the `entries`. Each folder in it that holds
        images, at any depth, is a class.

        Raises:
            UsageError: it has no images, or has them both beside such folders and in them.
        """
        inside = {one: list(self.images(one, above(folder))) for one in folders}
        inside = {one: own for one, own in inside.items() if own}
        if files and inside:
            raise UsageError(
                f"{folder} has both images ({files[0].name}) and folders of "
                f"images ({next(iter(inside)).name}). Put every image in such a folder, "
                "its class, or none."
            )
        if not files and not inside:
            raise no_images(folder, self)
        labels: list[str | None] = [as_text(one.name) for one, own in inside.items() for _ in own]
        return Part([*files, *chain(*inside.values())], labels or [None] * len(files))

    def left_out(self) -> list[str]:
        """What is left out, in words: the six most frequent kinds of files, then folders."""
        kinds = [f"{count:,} {kind}" for kind, count in self.others.most_common(6)]
        more = self.others.total() - sum(count for _, count in self.others.most_common(6))
        return kinds + ([f"{more:,} of other kinds"] if more else []) + self.folders


def list_folder(root: Path) -> Listing:
    """The images of a folder, by the rule in docs/running.md, "Your own images".

    Raises:
        UsageError: a folder has no images, has them both beside folders of images and in them, or
            has two folders for one split.
    """
    walk = Walk(root)
    root, files, folders = inner(walk)
    train, test, validation = (
        [one for one in folders if one.name.lower() in names] for names in (TRAIN, TEST, VALIDATION)
    )
    if not train or not (test or validation):
        return Listing(walk.part(root, files, folders), None, walk.left_out())
    chosen = only(train), only(test or validation)
    train_part, test_part = (walk.part(one, *walk.entries(one)) for one in chosen)
    told = [f"{len(files):,} beside {chosen[0].name}"] if files else []
    for one in folders:
        count = 0 if one in chosen else sum(1 for _ in walk.images(one, above(root)))
        if count:
            why = " (validation images are held out of training: data.validation)"
            told.append(f"{count:,} in {one.name}{why if one in validation else ''}")
    return Listing(train_part, test_part, [*walk.left_out(), *told])


def list_images(root: Path) -> Listing:
    """All images of a folder, at any depth, without classes and splits.

    Raises:
        UsageError: there are none.
    """
    walk, outside = Walk(root), above(root) - {identity(root)}
    files = list(walk.images(root, outside))
    if not files:
        raise no_images(root, walk)
    return Listing(Part(files, [None] * len(files)), None, walk.left_out())


def list_part(folder: Path) -> Part:
    """The images of a folder of a published data set: its sub-folders are classes, whatever their
    names.

    Raises:
        UsageError: it has no images, or has them both beside folders of images and in them.
    """
    walk = Walk(folder)
    return walk.part(folder, *walk.entries(folder))


def no_images(folder: Path, walk: Walk) -> UsageError:
    """The error that a folder has no images; it tells what the walk has found instead."""
    found = "; ".join(walk.left_out())
    what = f". It has {found}." if found else ": there is no file in it."
    return UsageError(f"{folder} has no images ({', '.join(SUFFIXES)}){what}")


def inner(walk: Walk) -> tuple[Path, list[Path], list[Path]]:
    """(the folder that the walk's root stands for, its image files, its folders). While a folder
    holds one folder and no image, and that one holds folders and no image, it stands for that one:
    archives often unpack so."""
    root, seen = walk.root, above(walk.root)
    files, folders = walk.entries(root)
    while not files and len(folders) == 1 and identity(folders[0]) not in seen:
        images, inside = Walk(walk.root).entries(folders[0])
        if images or not inside:
            break
        root = folders[0]
        seen.add(identity(root))
        files, folders = walk.entries(root)
    return root, files, folders


def only(folders: list[Path]) -> Path:
    """The only folder of a split.

    Raises:
        UsageError: there are more.
    """
    if len(folders) > 1:
        one, other = (folder.name for folder in folders[:2])
        raise UsageError(
            f"{folders[0].parent} has two folders for one split, {one} and {other}. "
            "Move one of them elsewhere."
        )
    return folders[0]


def above(folder: Path) -> set[tuple[int, int]]:
    """The `identity` of a folder and of all that it lies in."""
    whole = folder.resolve()
    return {identity(one) for one in (whole, *whole.parents)}


def identity(folder: Path) -> tuple[int, int]:
    """What a folder and the links to it have in common."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def is_output(folder: Path) -> bool:
    """Whether `acn` wrote a folder: it holds the config of an experiment."""
    config = folder / "config.yaml"
    if not config.is_file():
        return False
    with config.open("rb") as file:
        return re.search(rb"^experiment:", file.read(2**16), re.M) is not None
