"""Times how soon the `acn` command responds, and how soon it could train."""

import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measure import Figure, alternate


def help(repeats: int = 9) -> Figure:
    """Compares `acn --help` with a Python process that does nothing."""
    timed = alternate(
        lambda: run(*acn(), "--help"), lambda: run(sys.executable, "-c", "pass"), repeats
    )
    return Figure(
        timed.ours_s, timed.reference_s, "<= 10", "and under 0.5 s", limits={"ours_s": "<= 0.5"}
    )


def fit_start(repeats: int = 5) -> Figure:
    """Compares `acn fit digits trainer.max_epochs=0`, which does all that comes before the first
    step, with a Python process that imports torch and Lightning. In seconds of CPU, which other
    programs change less; the same ratio of wall time is a limit too."""
    ours: list[tuple[float, float]] = []
    reference: list[tuple[float, float]] = []
    with TemporaryDirectory() as folder:
        fit = [*acn(), "fit", "digits", "trainer.max_epochs=0"]
        for _ in range(repeats + 1):
            ours.append(seconds(*fit, f"trainer.default_root_dir={folder}"))
            reference.append(seconds(sys.executable, "-c", "import torch, lightning"))
    (cpu, wall), (bare_cpu, bare_wall) = (
        tuple(map(median, zip(*each[1:], strict=True))) for each in (ours, reference)
    )
    extra = {"wall_s": wall, "reference_wall_s": bare_wall, "wall_ratio": wall / bare_wall}
    note = f"CPU; wall {wall:.1f} s, {extra['wall_ratio']:.2f} x"
    return Figure(cpu, bare_cpu, "<= 1.5", note, extra, {"wall_ratio": "<= 1.5"})


def acn() -> list[str]:
    """Returns the command as it is installed, or as a module."""
    script = Path(sys.executable).with_name("acn")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "acn_lightning"]


def seconds(*command: str) -> tuple[float, float]:
    """Returns the CPU and wall seconds of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - start


def run(*command: str) -> None:
    """Raises:
    CalledProcessError: the command fails.
    """
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
