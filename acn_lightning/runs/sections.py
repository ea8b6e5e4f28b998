"""What the report of a run says, section by section, as text."""

import os
import shlex
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from acn_lightning.config.imports import words_for
from acn_lightning.runs.comparison import Row, flat, written
from acn_lightning.runs.figures import (
    COSTS,
    REPRESENTATIONS,
    USES,
    decimal,
    duration,
    percent,
    trained_epochs,
)
from acn_lightning.runs.reading import LAST, Run, find, number
from acn_lightning.utils.text import as_text, counted, printable, shape_words, words_to_go_on

PARTS = ("encoder", "shape", "prior", "decoder", "likelihood")
"""Parts of a model, in reading order."""


def progress(run: Run) -> str:
    """How far a run has come."""
    ago = duration(max(0, time.time() - run.written))
    trained = f"Epochs trained: {trained_epochs(run)}."
    return f"{trained} It last wrote {ago} ago." if run.state != "finished" else trained


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """(name, figure, what goes with it) of the most important figures that there are."""
    found = []
    if lowest := run.best or run.lowest("train/total"):
        of = "held out" if run.best else "training"
        found.append((f"lowest cost, {of}", decimal(lowest[1]), f"nats, epoch {lowest[0]:g}"))
    unordered = number(run.results, "nats_per_image", "unordered")
    bits = number(run.results, "bits_per_dim", "unordered")
    if unordered is not None:
        more = f"{bits:.4f} bits/dim" if bits is not None else "nats per image"
        found.append(("test, unordered", decimal(unordered), more))
    for name in ("linear", "knn", "labels_100"):
        value = number(run.results, "representations", "codes", name)
        if value is not None:
            found.append((f"test, {USES[name]}", f"{percent(value)} %", "of codes"))
    if not run.results:
        for metric, name in [("codes/linear_accuracy", "linear"), ("codes/knn_accuracy", "knn")]:
            if points := run.history.get(metric):
                epochs, value = points[-1]
                label = f"held out, {USES[name]}"
                found.append((label, f"{percent(value)} %", f"of codes, epoch {epochs:g}"))
    if run.seconds is not None:
        steps = number(run.results, "training", "steps")
        more = counted(run.epochs, "epoch")
        more += f", {counted(round(steps), 'step')}" if steps else ""
        found.append(("training", duration(run.seconds), more))
    return found


def trained(run: Run) -> list[tuple[str, str]]:
    """(name, value) of what a reader needs to know of the config, the data and the networks."""
    config, about = run.config, run.about
    rows = [("data", data_line(run))]
    for part in PARTS:
        options = find(config, "model", part)
        if not isinstance(options, dict):
            continue
        text = worded(options)
        if count := number(about, "parameters", part):
            text += f"; {count:,.0f} parameters"
        rows.append((part, text))
    if total := number(about, "parameters", "total"):
        rows.append(("parameters in all", f"{total:,.0f}"))
    if (size := find(config, "model", "code_size")) is not None:
        rows.insert(1, ("code", f"{size} numbers"))
    rows += [
        (name, worded(options))
        for name in ("optimizer", "schedule")
        if isinstance(options := config.get(name), dict)
    ]
    for name, keys in [("batch size", ("data", "batch_size")), ("seed", ("seed",))]:
        if (value := find(config, *keys)) is not None:
            rows.append((name, written(value)))
    if parent := find(run.results, "parent", "checkpoint"):
        rows.append(("started from", written(parent)))
    return [(name, value) for name, value in rows if value]


def data_line(run: Run) -> str:
    """What the images were."""
    found = find(run.about, "data") or find(run.config, "data", "source") or ""
    parts = [str(found).rstrip(".")]
    counts = {
        name: number(run.about, "images", name) for name in ("training", "validation", "test")
    }
    if any(counts.values()):
        parts.append(", ".join(f"{count:,.0f} {name}" for name, count in counts.items() if count))
    if isinstance(shape := find(run.about, "image_shape"), list):
        parts.append(shape_words(shape))
    if classes := number(run.about, "classes"):
        parts.append(counted(round(classes), "class", "classes"))
    return "; ".join(str(part).rstrip(".") for part in parts if part)


def worded(options: dict[str, Any]) -> str:
    """A section of the config in a line: its kind, then its options."""
    kind = [written(options["kind"])] if "kind" in options else []
    rest = {key: value for key, value in flat(options).items() if key != "kind"}
    given = [f"{key} {written(value)}" for key, value in rest.items() if value is not None]
    return ", ".join([*kind, *given])


# ---------------------------------------------------------------- the tables


def tested(run: Run) -> str:
    """Which images the costs are of."""
    count = number(run.results, "images")
    return f"{count:,.0f} test images" if count is not None else "test images"


def costs(run: Run) -> list[tuple[str, str]]:
    """The table of costs."""
    known = {name: number(run.results, "nats_per_image", name) for name in COSTS}
    rows = [(label, decimal(known[name])) for name, label in COSTS.items()]
    rows += [
        (f"{name}, bits/dim", decimal(number(run.results, "bits_per_dim", name), 4))
        for name in ("ordered", "unordered")
    ]
    return [(name, value) for name, value in rows if value]


def measured(run: Run) -> list[str]:
    """Representations that were measured."""
    known = find(run.results, "representations")
    return [name for name in REPRESENTATIONS if isinstance(find(known, name), dict)]


def uses(run: Run) -> list[Row]:
    """The table of what representations are good for, in percent."""
    rows = []
    for name, label in USES.items():
        values = [number(run.results, "representations", one, name) for one in measured(run)]
        known = [value for value in values if value is not None]
        best = {
            place
            for place, value in enumerate(values)
            if len(known) > 1 and value is not None and value == max(known)
        }
        if known:
            rows.append(Row(label, list(map(percent, values)), frozenset(best)))
    return rows


# ---------------------------------------------------------------- what to do with it


def explorers(run: Run, beside: Path) -> list[tuple[str, str]]:
    """(text, address) of the maps of codes that lie in the run's folder."""
    paths = [run.folder / "explorer.html", *sorted(run.folder.glob("outputs/*/explorer.html"))]
    found = []
    for path in paths:
        if path.is_file():
            name = as_text(path.relative_to(run.folder))
            address = os.path.relpath(path.absolute(), beside.absolute())
            found.append((name, quote(os.fsencode(address))))
    return found


def commands(run: Run) -> list[tuple[str, str]]:
    """(what for, a line for a shell) to repeat a run, to go on with it, and to use it. What trains
    on images that were given in Python is a line of Python."""
    config, where = run.folder / "config.yaml", ""
    if is_given(run):
        where = ", in Python with the same images"
    found = []
    if run.config:
        again = [f"run={run.name}-again", *(["resume=null"] if run.config.get("resume") else [])]
        found.append((f"Repeat it, as a new run{where}:", training(run, str(config), *again)))
    if LAST in run.checkpoints and run.state != "running":
        what, words = "Go on with it", []
        if run.state == "finished" and run.max_epochs:
            what = "Train it longer"
            words = [f"trainer.max_epochs={2 * run.max_epochs}"]
        found.append((f"{what}{where}:", training(run, *same_run(run), *words)))
    if run.checkpoints and find(run.config, "model", "encoder", "kind") != "none":
        found += uses_of_codes(run)
    return found


def is_given(run: Run) -> bool:
    """Whether a run's images were given in Python, so that no command can read them."""
    return bool(find(run.config, "data", "source") == "arrays")


def training(run: Run, *words: str) -> str:
    """A line that trains, with these words of `acn fit`."""
    if not is_given(run):
        return shell("fit", *words)
    config = str(run.folder / "config.yaml")
    changes = [word for word in words if word != config]
    if (size := find(run.config, "data", "image_size")) is not None:  # else arrays keep their own
        changes.append(f"data.image_size={written(size)}")
    given = "images, labels" if number(run.about, "classes") else "images"
    return f"acn_lightning.fit({given}, experiment={config!r}, overrides={changes!r})"


def uses_of_codes(run: Run) -> list[tuple[str, str]]:
    """The commands that encode images."""
    places = {key: find(run.config, "data", key) for key in ("root", "path")}
    of = [f"data.{key}={place}" for key, place in places.items() if isinstance(place, str)]
    codes = "its codes"
    if is_given(run):
        of, codes = ["FOLDER"], "the codes of a folder of images"
    of += words_for(sections_of(run, "data", "model"))
    return [
        (f"Explore {codes} on a map:", shell("explore", run.folder, *of, "open=true")),
        (f"Write {codes} to files:", shell("export", run.folder, *of)),
    ]


def same_run(run: Run) -> list[str]:
    """Words for `acn fit` that go on with a run in its own folder; in a new one, if the run has
    been moved since."""
    root = find(run.config, "trainer", "default_root_dir") or "runs"
    if (
        run.config
        and (Path(str(root)) / run.experiment / run.name).resolve() == run.folder.resolve()
    ):
        return words_to_go_on(run.folder)
    own = words_for(sections_of(run, "data", "model", "optimizer", "schedule"))
    return [f"resume={run.folder / LAST}", *own]


def sections_of(run: Run, *names: str) -> dict[str, Any]:
    """Those sections of a run's config."""
    return {name: run.config[name] for name in names if name in run.config}


def shell(command: str, *words: object) -> str:
    """A command for a shell. Whatever is in a name, it is one word."""
    return f"acn {command} {shlex.join(printable(word) for word in words)}"
