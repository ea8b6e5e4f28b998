"""Images that were decoded once, kept on disk and mapped by all processes that use them."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acn_lightning.data.checked import checked
from acn_lightning.data.sources.base import Source, Split, Splits
from acn_lightning.data.storage import Storage, mapped
from acn_lightning.utils.errors import UsageError, check_choice
from acn_lightning.utils.files import local_path, new_folder, sync
from acn_lightning.utils.locks import acquire, make_lock
from acn_lightning.utils.memory import quarter_of_memory
from acn_lightning.utils.progress import doing

CACHES = ("auto", "memory", "disk")

FORMAT = 3
"""Counts the changes in how images are decoded or kept."""

ABOUT = "about.json"
"""What an entry holds, in JSON; before it, on a line of its own, its checksum."""

BLOCK, BLOCKS = 4096, 64
"""Size and number of the blocks of a file that are compared with what was written."""


def read_source(source: Source, how: str = "auto", folder: str | None = None) -> Splits:
    """What `source.read` returns, `checked`. Images on disk are decoded only if no earlier process
    has done so; if several begin at once, the first decodes and the others wait. Where the file
    system has no locks, each decodes, and all share what the first has decoded.

    Args:
        source: to read. Its `storage` is set.
        how: "memory", "disk", or "auto": on disk if images would take more than a quarter of the
            memory, all processes of this host together.
        folder: the cache folder; None for the user's own.

    Raises:
        UsageError: the source cannot be read, or the cache folder cannot be written or has too
            little room.
    """
    check_choice("data.cache", how, CACHES)
    outline = source.outline() if how != "memory" else None
    if outline is None and how == "disk":
        raise UsageError(
            "data.cache: disk is for sources that decode images one at a time, such as folder; "
            f"{type(source).__name__} reads them whole. Leave it out."
        )
    if outline is None or (how == "auto" and outline.size <= quarter_of_memory()):
        return checked(source.read(), source)
    cache = cache_folder(folder)
    if outline.identity is None:
        check_writable(cache)
        source.storage = Storage(cache)
        return checked(source.read(), source)
    entry = cache / f"{type(source).kind}-{outline.identity}-{FORMAT}"
    found = load(entry, source)
    if found is None:
        check_writable(cache)
        with locked(entry.with_name(f"{entry.name}.lock")):
            found = load(entry, source) or make(entry, source)
    source.storage = Storage(cache)  # what is made of the images belongs to this process
    return found


def cache_folder(named: str | None) -> Path:
    """The folder of all caches; it need not exist."""
    if named is not None:
        return local_path(named, "data.cache_folder")
    import pooch

    return Path(pooch.os_cache("acn_lightning"))


def check_writable(cache: Path) -> None:
    """Creates the cache folder.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK | os.X_OK):
            raise PermissionError(f"no permission to write {cache}")
    except OSError as error:
        raise UsageError(
            f"data.cache_folder: cannot write {cache} ({error}). Name another folder, or set "
            "data.cache=memory."
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process holds the lock, then holds it.

    Raises:
        UsageError: its file cannot be written.
    """
    lock = make_lock(path)
    try:
        try:
            with doing(f"waiting for the process that decodes these images and holds {path}"):
                acquire(lock)
        except OSError as error:
            raise UsageError(
                f"data.cache_folder: cannot lock {path} ({error.strerror}). Remove it, or name "
                "another folder."
            ) from error
        yield
    finally:
        lock.release()


# ---------------------------------------------------------------- writing


def make(entry: Path, source: Source) -> Splits:
    """Reads a source into a new entry of the cache, which appears whole or not at all.

    Raises:
        UsageError: the source cannot be read, or there is too little room.
    """
    clear(entry)
    try:
        with new_folder(entry) as beside:
            write(beside, source)
    except UsageError:
        # Where there are no locks, another process may have been quicker.
        if (found := load(entry, source)) is None:
            raise
        return found
    found = load(entry, source)
    assert found is not None
    return found


def write(folder: Path, source: Source) -> None:
    """Reads a source into an empty folder.

    Raises:
        UsageError: the source cannot be read, or there is too little room.
    """
    source.storage = storage = Storage(folder, named=True)
    splits = checked(source.read(), source)
    parts = [describe(split, storage) for split in splits[:2]]
    used = {part["file"] for part in parts}
    for path in [path for path in storage.files if path.name not in used]:
        storage.drop(storage.files[path])
    about = {
        "parts": parts,
        "classes": splits.classes,
        "report": source.report,
        "prepared": dict(source.prepared),
        "checks": {name: check(folder / name) for name in used},
    }
    text = json.dumps(about)
    (folder / ABOUT).write_text(f"{digest_of(text)}\n{text}", "utf-8")
    for name in (*used, ABOUT):
        sync(folder / name)


def clear(entry: Path) -> None:
    """Removes a damaged entry, or what else has its name. What a link leads to stays."""
    with suppress(OSError):  # which writing reports
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def digest_of(text: str) -> str:
    """A checksum of a text."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def describe(split: Split, storage: Storage) -> dict[str, Any]:
    """What is written about a split: where its images lie, its labels and names."""
    found = place(split.images, storage)
    if found is None:  # the source has put them elsewhere
        copied = storage.take(split.images, torch.arange(len(split.images)))
        found = place(copied, storage)
    assert found is not None
    path, offset = found
    return {
        "file": path.name,
        "offset": offset,
        "shape": list(split.images.shape),
        "labels": split.labels.tolist(),
        "names": split.names,
    }


def place(images: Tensor, storage: Storage) -> tuple[Path, int] | None:
    """(file, offset) of images in a storage; None if they are elsewhere."""
    for path, own in storage.files.items():
        offset = images.data_ptr() - own.data_ptr()
        if images.is_contiguous() and 0 <= offset < own.nbytes:
            return path, offset
    return None


def check(path: Path) -> list[Any]:
    """The size of a file, and a checksum of blocks spread over it. All of it would take as long to
    read as the images are worth."""
    size, digest = path.stat().st_size, blake2b(digest_size=16)
    with path.open("rb") as file:
        for block in range(BLOCKS):
            file.seek(max(0, size - BLOCK) * block // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return [size, digest.hexdigest()]


# ---------------------------------------------------------------- reading


def load(entry: Path, source: Source) -> Splits | None:
    """An entry of the cache; None if there is none, or if it is damaged. Sets what the source has
    found in its images."""
    try:
        kept, _, text = (entry / ABOUT).read_text("utf-8").partition("\n")
        if kept != digest_of(text):
            return None
        about = json.loads(text)
        if any(check(entry / name) != one for name, one in about["checks"].items()):
            return None
        train, test = (read_split(entry, part) for part in about["parts"])
        source.report, source.prepared = told(about["report"], entry), about["prepared"]
        return Splits(train, test, tuple(about["classes"]))
    except (OSError, ValueError):  # of a damaged file
        return None


def read_split(entry: Path, part: dict[str, Any]) -> Split:
    """The split that `describe` wrote."""
    images = mapped(entry / part["file"], part["offset"], part["shape"])
    return Split(images, torch.tensor(part["labels"], dtype=torch.long), tuple(part["names"]))


def told(report: str, entry: Path) -> str:
    """The source's report, and where its images lie."""
    return f"{report} Decoded images are in {entry}.".lstrip()
