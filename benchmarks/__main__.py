"""`python -m benchmarks`: parses arguments, runs benchmarks, prints and saves figures."""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from acn_lightning.utils.errors import InterruptionError
from benchmarks.measure import Figure, machine


def later(function: str, *arguments: Any) -> Callable[[], Figure]:
    """Returns a call of "module.function" that imports the module only when called."""

    def run() -> Figure:
        module, _, name = function.partition(".")
        figure: Figure = getattr(import_module(f"benchmarks.{module}"), name)(*arguments)
        return figure

    return run


BENCHMARKS = {
    "help": later("command.help"),
    "fit-start": later("command.fit_start"),
    "loader": later("data.loader"),
    "cache-1e4": later("cache.cache", 10**4),
    "cache-1e6": later("cache.cache", 10**6),
    "step": later("training.step"),
    "overhead": later("overhead.overhead"),
    "precision": later("precision.precision"),
    "step-folder": later("training.step_folder"),
    "decoder": later("training.decoder"),
    "sampler": later("sampling.sampler"),
    "test": later("using.evaluating"),
    "export": later("using.exporting"),
    "refresh-16": later("search.refresh", 16),
    "refresh-128": later("search.refresh", 128),
    "refresh_sklearn-16": later("search.sklearn", 16),
    "refresh_sklearn-128": later("search.sklearn", 128),
    "refresh_torch-16": later("search.torch", 16),
    "refresh_torch-128": later("search.torch", 128),
    "scale-1e4": later("scale.scale", 10**4),
    "scale-1e5": later("scale.scale", 10**5),
    "scale-1e6": later("scale.scale", 10**6),
    "scale-3e6": later("scale.scale", 3 * 10**6),
    "scale-1e7": later("scale.scale", 10**7),
    "codes-mnist": later("time_to_codes.codes"),
}

ONLY_WHEN_NAMED = {"cache-1e6", "scale-3e6", "scale-1e7", "codes-mnist"}
"""These take 4 GB of disk, ten minutes, half an hour and some hours."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named benchmarks and returns the exit status: 0 if all ran, whether targets were met
    or missed; 1 if one failed; 2 with one line on wrong input; 130 or 143 after Ctrl-C or SIGTERM.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parsed = parser.parse_args(arguments)
    try:
        names = chosen(parsed.names)
        if parsed.json and not parsed.json.absolute().parent.is_dir():
            raise ValueError(f"--json: {parsed.json.parent} is no folder.")
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return run(names, BENCHMARKS, parsed.json)


def run(names: Sequence[str], rows: Mapping[str, Callable[[], Figure]], file: Path | None) -> int:
    """Runs benchmarks by name, prints a row for each and saves what is known after each. Returns
    the exit status that `main` documents, 2 aside."""
    here = machine()
    print("\n".join(f"{key:<14}{words(value)}" for key, value in here.items()))
    print("\nratio: ours / reference where the target is <=, reference / ours where it is >=\n")
    print(row("benchmark", "ours s", "reference s", "ratio", "target", "", ""), flush=True)
    found: dict[str, Any] = {"machine": here}
    for name in names:
        start = time.perf_counter()
        try:
            figure = rows[name]()
            found[name] = figure.as_json()
            print(line(name, figure), flush=True)
        except (InterruptionError, KeyboardInterrupt) as stop:  # Lightning makes the first of both
            print("\nbenchmarks: interrupted.", file=sys.stderr)
            return stop.status if isinstance(stop, InterruptionError) else 130
        except Exception as error:  # the other benchmarks still run
            traceback.print_exc()
            found[name] = {"error": f"{type(error).__name__}: {error}"}
            print(f"{name:<20} failed: {error}", flush=True)
        found[name]["took_s"] = time.perf_counter() - start
        if file:
            write_json(found, file)
    return int(any("error" in found[name] for name in names))


def chosen(asked: Sequence[str]) -> list[str]:
    """Returns the names of the benchmarks to run, each once. The part of a name before its dash
    selects all benchmarks that share it; no names select all. Neither selects the slow ones.

    Raises:
        ValueError: a benchmark does not exist.
    """
    usual = [name for name in BENCHMARKS if name not in ONLY_WHEN_NAMED]
    groups: dict[str, list[str]] = {}
    for name in usual:
        groups.setdefault(name.partition("-")[0], []).append(name)
    known = groups | {name: [name] for name in BENCHMARKS}
    for name in asked:
        if name not in known:
            raise ValueError(f"'{name}' is none of {', '.join(known)}.")
    return list(dict.fromkeys(one for name in asked for one in known[name])) if asked else usual


def line(name: str, figure: Figure) -> str:
    """Formats a figure as a row."""
    verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
    seconds = f"{figure.ours_s:.4g}", f"{figure.reference_s:.4g}"
    return row(name, *seconds, f"{figure.ratio:.3g}", figure.target, verdict, figure.note)


def row(name: str, ours: str, reference: str, ratio: str, target: str, met: str, note: str) -> str:
    """Aligns the columns of a row."""
    start = f"{name:<20}{ours:>11}{reference:>13}{ratio:>9}"
    return f"{start}  {target:<8} {met:<7} {note}".rstrip()


def words(value: Any) -> str:
    """Formats a value for people."""
    if isinstance(value, list):
        return " ".join(value)
    return "none" if value is None else str(value)


def write_json(found: dict[str, Any], path: Path) -> None:
    """Replaces the file atomically: readers, and a killed run, never see a partial file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(found, indent=2) + "\n")
    beside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
