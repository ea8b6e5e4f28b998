"""Times how soon the `acn` command responds."""

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Figure, alternate


def help(repeats: int = 9) -> Figure:
    """Compares `acn --help` with a Python process that does nothing."""
    script = Path(sys.executable).with_name("acn")
    acn = [str(script)] if script.is_file() else [sys.executable, "-m", "acn_lightning"]
    timed = alternate(
        lambda: run(*acn, "--help"), lambda: run(sys.executable, "-c", "pass"), repeats
    )
    return Figure(
        timed.ours_s, timed.reference_s, "<= 10", "and under 0.5 s", limits={"ours_s": "<= 0.5"}
    )


def run(*command: str) -> None:
    """Raises:
    CalledProcessError: the command fails.
    """
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
