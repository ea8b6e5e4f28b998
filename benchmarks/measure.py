"""Alternating timing, the result of a benchmark, and the machine it ran on."""

import operator
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Instruction sets that matrix products and FAISS use; the last two are ARM's."""

PACKAGES = ("torch", "lightning", "faiss-cpu", "faiss-gpu", "scikit-learn", "numpy")


# ---------------------------------------------------------------- timing


class Timed(NamedTuple):
    """Median seconds of both functions, and what each returned last."""

    ours_s: float
    reference_s: float
    ours: Any
    reference: Any


def alternate(
    ours: Callable[[], Any],
    reference: Callable[[], Any],
    repeats: int,
    prepare: Callable[[], Any] = lambda: None,
    warm_up: bool = True,
    now: Callable[[], float] | None = None,
) -> Timed:
    """Times two functions alternately, so that other load on the machine affects both alike.

    Args:
        ours, reference: functions to time.
        repeats: how often to time each.
        prepare: called before each call of `ours`, and not timed.
        warm_up: whether to call each once first, untimed.
        now: gives the time in seconds; None is `clock`. With `time.process_time`, other programs
            count for less.
    """
    now = now or clock
    ways, seconds, results = (ours, reference), ([], []), [None, None]
    for _ in range(repeats + warm_up):
        prepare()
        for i, way in enumerate(ways):
            start = now()
            results[i] = way()
            seconds[i].append(now() - start)
    counted = [median(each[warm_up:]) for each in seconds]
    return Timed(*counted, *results)


def clock() -> float:
    """Returns the time in seconds, after waiting for pending GPU work."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_each(stamps: Sequence[float]) -> list[float]:
    """Returns the seconds from each stamp to the next."""
    return [after - before for before, after in pairwise(stamps)]


# ---------------------------------------------------------------- results


@dataclass
class Figure:
    """The result of a benchmark.

    Attributes:
        ours_s, reference_s: median seconds.
        target: target of the ratio, such as "<= 1.05"; empty if there is none.
        note: a short comment for people.
        extra: more values for the JSON.
        limits: targets of values other than the ratio, by their JSON keys.
    """

    ours_s: float
    reference_s: float
    target: str = ""
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Ours / reference if the target is an upper limit, else reference / ours."""
        if self.target.startswith("<"):
            return self.ours_s / self.reference_s
        return self.reference_s / self.ours_s

    @property
    def met(self) -> bool | None:
        """Whether all targets are met; None if there are none."""
        targets = {"ratio": self.target} | self.limits if self.target else self.limits
        values = self.values()
        held = [holds(values[key], wanted) for key, wanted in targets.items()]
        return all(held) if held else None

    def values(self) -> dict[str, Any]:
        """Returns everything but the verdict."""
        return {
            "ratio": self.ratio,
            "ours_s": self.ours_s,
            "reference_s": self.reference_s,
            "target": self.target or None,
            **self.extra,
        }

    def as_json(self) -> dict[str, Any]:
        """Returns the content for the JSON file."""
        limits = {"limits": self.limits} if self.limits else {}
        return self.values() | limits | {"met": self.met, "note": self.note}


def holds(value: float, wanted: str) -> bool:
    """Returns whether a value meets a target such as "<= 1.05" or ">= 2"."""
    relation, bound = wanted.split()
    return {"<=": operator.le, ">=": operator.ge}[relation](value, float(bound))


# ---------------------------------------------------------------- the machine


def machine() -> dict[str, Any]:
    """Returns what a figure depends on besides the code: hardware, threads, versions."""
    import torch

    cpu = {}
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}
    flags = cpu.get("flags", cpu.get("Features", "")).split()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "cores": cores,
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": gpus[0] if gpus else None,
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := installed(name))},
        "acn_lightning": commit() or installed("acn-lightning"),
    }


def installed(package: str) -> str | None:
    """Returns the installed version of a package; None if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """Returns the commit of this checkout, followed by "+" if files were changed since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        words = subprocess.run(
            [*git, "describe", "--always", "--exclude=*", "--dirty=+"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return words.stdout.strip()
