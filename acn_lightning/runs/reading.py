"""Reads a run's folder, which may be half written, damaged or a stranger's."""

import csv
import io
import json
import math
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from acn_lightning.config.values import Loader, load
from acn_lightning.utils.files import is_plain, matching

LIMITS = {"metrics.csv": 1 << 26}
"""Most bytes that are read of a file."""

MOST = 1 << 20
"""The same, of any other file."""

DEEPEST = 50
"""Deepest nesting of a config. What libyaml composes recursively could overflow the stack."""

CHECKPOINTS, IMAGES = "checkpoints", "images"

BEST, LAST = f"{CHECKPOINTS}/best.ckpt", f"{CHECKPOINTS}/last.ckpt"

History = dict[str, list[tuple[float, float]]]
"""(epochs trained, value) of each metric."""


class Caution(NamedTuple):
    """A warning of a run about itself."""

    name: str
    epoch: int | None
    message: str
    remedy: str


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        folder: as the user named it.
        config: its config; empty if that cannot be read.
        history: its metrics.
        results: the content of `results.json`; empty if there is none yet.
        about: the content of `about.json`: data and size of the networks; empty without one.
        cautions: what it warned about.
        checkpoints: those of `BEST` and `LAST` that it has.
        images: the pictures that it drew.
        faults: names of files and folders that cannot be read, and why.
        running: whether a process is training it.
        written: when it last wrote, in seconds since 1970.
    """

    folder: Path
    config: dict[str, Any]
    history: History
    results: dict[str, Any]
    about: dict[str, Any]
    cautions: tuple[Caution, ...]
    checkpoints: tuple[str, ...]
    images: tuple[Path, ...]
    faults: dict[str, str]
    running: bool
    written: float

    @property
    def place(self) -> Path:
        """The whole path of its folder, through the links that the user named."""
        return Path(os.path.abspath(self.folder))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.place.name

    @property
    def experiment(self) -> str:
        """What it trains; if its config does not say so, the folder that it lies in."""
        named = self.config.get("experiment")
        return named if isinstance(named, str) else self.place.parent.name

    @cached_property
    def epochs(self) -> int:
        """Epochs trained and logged."""
        ends = [points[-1][0] for name, points in self.history.items() if name.startswith("train/")]
        return max(map(math.floor, ends), default=0)

    @property
    def max_epochs(self) -> int | None:
        """Epochs that it is to train for, if its config says so."""
        most = find(self.config, "trainer", "max_epochs")
        return most if isinstance(most, int) and most > 0 else None

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if self.running:
            return "running"
        if self.faults.keys() & {"config.yaml", "results.json"}:
            return "damaged"
        if self.results and self.epochs <= (number(self.results, "training", "epochs") or 0):
            return "finished"
        if CHECKPOINTS in self.faults:
            return "damaged"
        if LAST in self.checkpoints:
            return "stopped"
        return "failed" if self.history else "empty"

    @property
    def best(self) -> tuple[float, float] | None:
        """(epochs trained, value) of the lowest held-out cost; None if nothing was held out."""
        return self.lowest("val/total")

    def lowest(self, metric: str) -> tuple[float, float] | None:
        """(epochs trained, value) at which a metric was lowest; None if it was not logged."""
        points = self.history.get(metric)
        return min(points, key=lambda point: point[1]) if points else None

    @property
    def seconds(self) -> float | None:
        """How long training took, all attempts together; until its end, that of its epochs."""
        epochs = [seconds for _, seconds in self.history.get("train/epoch_seconds", ())]
        return number(self.results, "training", "seconds") or finite(sum(epochs)) or None


STATES = {
    "running": "A process is training it.",
    "finished": "It was trained and tested.",
    "stopped": "It was interrupted, and can go on.",
    "failed": "It ended without a checkpoint, and cannot go on.",
    "empty": "It ended before its first epoch did.",
    "damaged": "Its config.yaml, results.json or checkpoints cannot be read.",
}
"""States of a run, and what they mean."""


# ---------------------------------------------------------------- the folder


def is_run(folder: Path, names: Iterable[str] | None = None) -> bool:
    """Whether a folder is that of a training. Those of exports, samples and tests have a config
    too, but other files than a run without its first epoch. Until they have these, or if they never
    get them, they lie in a folder `outputs`, in which no run is made.

    Args:
        folder: the folder.
        names: of what lies in it, if they are known.
    """
    if names is None:
        with suppress(OSError):
            names = os.listdir(folder)
    there = set(names or ())
    if not there & {"config.yaml", "metrics.csv"}:
        return False
    if there & {"metrics.csv", "checkpoints"}:
        return True
    if not there - {"config.yaml", ".lock", "about.json"}:
        return folder.absolute().parent.name != "outputs"
    return "training" in read_json(folder / "results.json", {})


def read_run(folder: Path) -> Run:
    """Reads a run's folder. What cannot be read is among the faults."""
    faults: dict[str, str] = {}

    def attempt(name: str, look: Callable[[], Any], empty: Any) -> Any:
        try:
            return look()
        except Exception as error:  # whatever parsers make of a stranger's bytes
            faults[name] = " ".join(str(error).split())[:200] or type(error).__name__
            return empty

    def read(name: str, parse: Callable[[bytes], Any], empty: Any) -> Any:
        def look() -> Any:
            content = read_bytes(folder / name)
            return empty if content is None else parse(content)

        return attempt(name, look, empty)

    def present() -> tuple[str, ...]:
        return tuple(name for name in (BEST, LAST) if (folder / name).is_file())

    return Run(
        folder=folder,
        config=read("config.yaml", parse_config, {}),
        history=read("metrics.csv", parse_metrics, {}),
        results=read("results.json", parse_mapping, {}),
        about=read("about.json", parse_mapping, {}),
        cautions=read("warnings.json", parse_cautions, ()),
        checkpoints=attempt(CHECKPOINTS, present, ()),
        images=attempt(IMAGES, lambda: tuple(matching(folder / IMAGES, "*.png")), ()),
        faults=faults,
        running=is_held(folder / ".lock"),
        written=last_written(folder),
    )


def read_bytes(path: Path) -> bytes | None:
    """A file's content; None if there is no such file.

    Raises:
        ValueError: it is a link or no file, or too large.
    """
    if not is_plain(path):
        if path.exists() or path.is_symlink():
            raise ValueError("it is no file")
        return None
    most = LIMITS.get(path.name, MOST)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    return content


def is_held(lock: Path) -> bool:
    """Whether a process holds this lock. It is never created or changed here: the folder may be a
    stranger's. Taking it for a moment is why `experiment.folder.writing` waits for one."""
    try:
        import fcntl

        descriptor = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (OSError, ImportError):
        return False
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # the file system has no locks
        return False
    finally:
        os.close(descriptor)


def last_written(folder: Path) -> float:
    """When a run last wrote to its folder; 0 if that is not known."""
    times = [0.0]
    for name in ("metrics.csv", "results.json", "config.yaml", LAST):
        with suppress(OSError):
            times.append((folder / name).lstat().st_mtime)
    return max(times)


# ---------------------------------------------------------------- its files


class QuickLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """`Loader` in C where that is installed: eight times as fast."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers
    yaml_constructors = Loader.yaml_constructors


def parse_config(content: bytes) -> dict[str, Any]:
    """The content of `config.yaml`.

    Raises:
        ValueError: it is not valid YAML, or no mapping.
    """
    text = content.decode("utf-8-sig")
    depth = 0
    for event in yaml.parse(text, QuickLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
    try:
        config = load(text, QuickLoader)
    except ValueError:  # escapes of file names that are not UTF-8
        config = load(text)
    return mapping(config)


def parse_mapping(content: bytes) -> dict[str, Any]:
    """The content of a JSON file.

    Raises:
        ValueError: it is not valid JSON, or no mapping.
    """
    return mapping(json.loads(content))


def parse_cautions(content: bytes) -> tuple[Caution, ...]:
    """The content of `warnings.json`.

    Raises:
        ValueError: it is not valid JSON, or not a list of warnings.
    """
    found = json.loads(content)
    if not isinstance(found, list):
        raise ValueError("it is not a list of warnings")
    cautions = []
    for one in map(mapping, found):
        name, message, remedy = (str(one.get(key, "")) for key in ("name", "message", "remedy"))
        epoch = one.get("epoch")
        cautions.append(Caution(name, epoch if isinstance(epoch, int) else None, message, remedy))
    return tuple(cautions)


def parse_metrics(content: bytes) -> History:
    """The content of `metrics.csv`. A metric logged several times in an epoch gets places evenly
    within it.

    Raises:
        ValueError: it is not a table with a column of epochs.
    """
    # A row without an end is still being written.
    text = content[: content.rfind(b"\n") + 1].decode("utf-8", "replace")
    reader = csv.reader(io.StringIO(text, newline=""))
    names = next(reader, [])
    if names and "epoch" not in names:
        raise ValueError("it has no column of epochs")
    logged: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in reader:
        cells = dict(zip(names, row, strict=False))
        epoch = finite(cells.pop("epoch", ""))
        cells.pop("step", "")
        if epoch is None or not 0 <= epoch < 1e9:
            continue
        for name, cell in cells.items():
            if cell and (value := finite(cell)) is not None:
                logged[name].append((int(epoch), value))
    return {name: placed(points) for name, points in sorted(logged.items())}


def placed(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """(epochs trained, value) of the (epoch, value) of one metric."""
    often = Counter(epoch for epoch, _ in points)
    seen: Counter[int] = Counter()
    found = []
    for epoch, value in points:
        seen[epoch] += 1
        found.append((epoch + seen[epoch] / often[epoch], value))
    return found


def read_json(path: Path, empty: Any) -> Any:
    """The mapping in a JSON file; `empty` if there is none or it cannot be read."""
    with suppress(Exception):
        return mapping(json.loads(read_bytes(path) or b"{}"))
    return empty


def mapping(value: Any) -> dict[str, Any]:
    """The value, a mapping.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict):
        raise ValueError("it is not a mapping of keys to values")
    return value


# ---------------------------------------------------------------- values


def find(tree: Any, *keys: str) -> Any:
    """The value under these keys; None if there is none."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def number(tree: Any, *keys: str) -> float | None:
    """The finite number under these keys, or the mean of several; None if there is none."""
    value = find(tree, *keys)
    value = value.get("mean") if isinstance(value, dict) else value
    return finite(value) if isinstance(value, int | float) and value is not True else None


def finite(value: Any) -> float | None:
    """The value as a finite number; None if it is none."""
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
