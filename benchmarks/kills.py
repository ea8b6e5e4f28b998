"""Kills a run with kill -9 at random moments and checks what is left and how it ends.

    python -m benchmarks.kills OUT.json [kills=60] [processes=1] [epochs=80] [seed=0]

Starts a run of digits that writes a checkpoint after each step with `resume=auto`, kills it with
all its processes and starts it again, `kills` times. A third of the kills wait until a checkpoint
is being written. After each kill the newest checkpoint must load and be no older than the previous
one. The last start runs to the end. Weights, optimiser, bank and each figure of metrics.csv must
then equal those of an undisturbed run to the bit.
Writes to the folder runs/kills, which it removes first.
"""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from acn_lightning.checkpoint import newest_checkpoint

ROOT = Path("runs/kills")
FIT = (
    "fit", "digits", "model.encoder.channels=8", "model.decoder.channels=8", "model.prior.width=16",
    "model.code_size=4", "data.binarisation=dynamic", "pictures.every_n_epochs=0",
    "evaluation.linear=none", "trainer.enable_model_summary=false", "checkpoints.every_n_steps=1",
    "resume=auto", f"trainer.default_root_dir={ROOT}",
)  # fmt: skip
PARTS = ("state_dict", "optimizer_states", "code_bank", "epoch", "global_step", "random")


def start(name: str, words: list[str]) -> "subprocess.Popen[bytes]":
    """Starts a run in its own process group, with its output in a log file."""
    with (ROOT / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "acn_lightning", *FIT, *words, f"run={name}"],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kills a process and everything it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait(process: "subprocess.Popen[bytes]", seconds: float, condition: Any) -> bool:
    """Waits for a condition; returns whether it came true in time, before the process ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return True
        time.sleep(0.0005)
    return False


def changed(path: Path, since: float) -> bool:
    """Returns whether the file was written after that time."""
    try:
        return path.stat().st_mtime > since
    except FileNotFoundError:  # it is being replaced at this moment
        return False


def disturbed(words: list[str], kills: int, draw: random.Random) -> list[dict[str, Any]]:
    """Starts and kills a run; returns what each kill left.

    Raises:
        AssertionError: a kill left no loadable checkpoint or an older one, or a start failed.
    """
    folder = ROOT / "digits" / "killed" / "checkpoints"
    found: list[dict[str, Any]] = []
    for number in range(kills):
        before = time.time()
        process = start("killed", words)
        # While Python starts, at a random step, or while a checkpoint is being written.
        moment = "start" if number % 6 == 5 else "write" if number % 3 == 1 else "step"
        try:
            if moment == "start":
                time.sleep(draw.uniform(0, 8))
            else:
                wait(process, 120, lambda since=before: changed(folder / "last.ckpt", since))
                time.sleep(draw.uniform(0, 1))
                if moment == "write":
                    # The file has been started, but is incomplete or not yet renamed.
                    wait(process, 10, lambda: any(folder.glob(".acn-*.partial")))
                    time.sleep(draw.uniform(0, 0.01))
            assert process.poll() is None, f"it ended by itself: {ROOT}/killed.log"
        finally:
            kill(process)
        if not folder.is_dir():  # the run had not begun
            continue
        names = sorted(path.name for path in folder.iterdir())
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            path, checkpoint = newest_checkpoint(folder.parent)
        step = checkpoint["global_step"]
        assert not found or step >= found[-1]["step"], (step, found[-1])
        found.append({"moment": moment, "step": step, "left": names, "from": path.name,
                      "warned": [str(one.message) for one in said]})  # fmt: skip
        print(f"{number + 1}: {moment}, step {step}, {path.name} of {', '.join(names)}", flush=True)
    return found


def same(one: Any, other: Any) -> bool:
    """Compares two values, bit for bit."""
    if torch.is_tensor(one):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def metrics(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of metrics.csv without timings, in a fixed order."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    kept = [
        {name: row[name] for name in sorted(row) if row[name] and "second" not in name}
        for row in rows
    ]
    return sorted(kept, key=str)


def main(out: str, *options: str) -> None:
    """Trains the undisturbed and the killed run, and writes the report."""
    asked = {"kills": 60, "processes": 1, "epochs": 80, "seed": 0}
    for option in options:
        name, _, value = option.partition("=")
        if name not in asked:
            sys.exit(f"{option}: none of {', '.join(asked)}")
        asked[name] = int(value)
    words = [f"trainer.max_epochs={asked['epochs']}", "trainer.accelerator=cpu"]
    if asked["processes"] > 1:
        words += [f"trainer.devices={asked['processes']}", "trainer.strategy=ddp"]
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    assert start("whole", words).wait() == 0, f"see {ROOT}/whole.log"
    found = disturbed(words, asked["kills"], random.Random(asked["seed"]))
    assert start("killed", words).wait() == 0, f"see {ROOT}/killed.log"
    whole, killed = (ROOT / "digits" / name for name in ("whole", "killed"))
    ends = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, killed)]
    report = asked | {
        "steps": ends[0]["global_step"],
        "kills_with_a_folder": len(found),
        "while_writing": sum(any("partial" in name for name in one["left"]) for one in found),
        "while_rotating": sum("new.ckpt" in one["left"] for one in found),
        "not_from_last": sum(one["from"] != "last.ckpt" for one in found),
        "same": {part: same(ends[0][part], ends[1][part]) for part in PARTS},
        "same_metrics": metrics(whole) == metrics(killed),
    }
    Path(out).write_text(json.dumps(report | {"found": found}, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    sys.exit(0 if all(report["same"].values()) and report["same_metrics"] else 1)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
