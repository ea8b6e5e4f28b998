"""Measures what needs an NVIDIA GPU, in under ten minutes on a machine with one.

    python -m benchmarks.gpu [NAME ...] [--json FILE]

Runs the tests marked `gpu`, then the rows below. Without a GPU, or with a FAISS that cannot use it,
it says so in one line and exits with status 2.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from acn_lightning.retrieval.faiss_backend import import_faiss
from benchmarks import __main__ as shared

BF16 = ("trainer.precision=bf16-mixed",)
FLOAT32 = ("trainer.precision=32-true",)
COMPILED = ("compile=true",)

BENCHMARKS = {
    "step": shared.later("training.step", 20, 8, 60_000, (), "mnist"),
    "step-float32": shared.later("training.step", 20, 8, 60_000, FLOAT32, "mnist"),
    "step-bf16-compiled": shared.later("training.step", 20, 8, 60_000, (*BF16, *COMPILED), "mnist"),
    "step-small": shared.later("training.step", 20, 8, 60_000, (), "mnist+small"),
    "decoder": shared.later("training.decoder", 15, (), "mnist"),
    "decoder-compiled": shared.later("training.decoder", 15, (*BF16, *COMPILED), "mnist"),
    "refresh-16": shared.later("search.refresh", 16),
    "refresh-128": shared.later("search.refresh", 128),
    "refresh_torch-16": shared.later("search.torch", 16),
    "refresh_torch-128": shared.later("search.torch", 128),
    "scale-1e6": shared.later("scale.scale", 10**6),
    "scale-3e6": shared.later("scale.scale", 3 * 10**6),
}
"""Steps and decoders of `mnist` against the same networks in a bare loop and in eager float32;
boundaries on the GPU against bare FAISS and PyTorch there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the tests and the benchmarks; returns the exit status, as `python -m benchmarks` does,
    and 1 if a test failed."""
    problem = what_is_missing()
    if problem:
        print(f"benchmarks.gpu: {problem}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--no-tests", action="store_true", help="only the benchmarks")
    parsed = parser.parse_args(arguments)
    unknown = [name for name in parsed.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"'{unknown[0]}' is none of {', '.join(BENCHMARKS)}.")
    failed = 0 if parsed.no_tests else tests()
    return shared.run(parsed.names or list(BENCHMARKS), BENCHMARKS, parsed.json) or failed


def what_is_missing() -> str:
    """Returns why nothing here can run; empty if it can."""
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU. `python -m benchmarks` measures what a CPU can do."
    if not import_faiss().get_num_gpus():
        return "this FAISS cannot use the GPU: pip install faiss-gpu in place of faiss-cpu."
    return ""


def tests() -> int:
    """Runs the tests marked `gpu`; returns 0 if all passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
    return int(subprocess.run(command, cwd=Path(__file__).parents[1]).returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
