"""Finds the folders of runs."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from acn_lightning.runs.reading import Run, is_run, read_run
from acn_lightning.utils.errors import UsageError, nearest
from acn_lightning.utils.files import local_path

ROOT = "runs"
"""Where runs are by default."""

DEEPEST = 4
"""Levels of folders that are searched."""


def find_runs(root: Path) -> Iterator[Path]:
    """The folders of runs in a folder, without what lies in a run, such as its outputs. Folders in
    it that may not be read are passed over.

    Raises:
        OSError: the folder itself may not be read.
    """
    seen: set[tuple[int, int]] = set()  # a link may lead back up

    def search(folder: Path, levels: int) -> Iterator[Path]:
        try:
            known = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError:  # somebody else's
            if levels == DEEPEST:
                raise
            return
        if (known.st_dev, known.st_ino) in seen:
            return
        seen.add((known.st_dev, known.st_ino))
        names = {entry.name for entry in entries}
        if names & {"config.yaml", "metrics.csv"}:
            if is_run(folder, names):
                yield folder
            return
        for entry in entries if levels else []:
            with suppress(OSError):  # of a link
                if entry.is_dir() and not entry.name.startswith("."):
                    yield from search(folder / entry.name, levels - 1)

    return search(root, DEEPEST)


def named_run(text: str) -> Run:
    """The run that a user names: by its folder, or by a checkpoint or another file in it.

    Raises:
        UsageError: there is no such run.
    """
    path = local_path(text, "run")
    if not path.exists():
        known = {found.name: found for found in find_runs(Path(ROOT))}
        if path.name == text and text in known:
            raise UsageError(f"there is no folder {text}. Do you mean {known[text]}?")
        near = nearest(text, map(str, known.values()))
        raise UsageError(f"there is no run {text}.{near or ' acn runs lists those there are.'}")
    inside = path if len(path.parents) > 1 else path.absolute()  # a name alone has no more
    for folder in [path] if path.is_dir() else inside.parents[:2]:
        if is_run(folder):
            return read_run(folder)
    if path.is_dir() and (found := list(find_runs(path))):
        raise UsageError(
            f"{text} is not the folder of one run: it holds {len(found)}, such as {found[0]}."
        )
    raise UsageError(f"{text} is not the folder of a run, nor a checkpoint in one.")


def named_runs(texts: Sequence[str]) -> list[Run]:
    """The runs to compare.

    Raises:
        UsageError: there is no such run, one is there twice, or there is only one.
    """
    runs = [named_run(text) for text in texts]
    places = [run.folder.resolve() for run in runs]
    for text, place in zip(texts, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{text} is named twice.")
    if len(runs) < 2:
        raise UsageError(f"name two runs or more to compare; {texts[0]} is only one.")
    return runs
