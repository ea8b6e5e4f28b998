"""An epoch boundary at the sizes that an index is for: seconds, recall, peak memory.

    python -m benchmarks.scale N        prints what was measured, as JSON

Each size has a process to itself: what another one left in memory would count, or be used again.
"""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.faiss_backend import import_faiss, inverted_lists
from acn_lightning.retrieval.index import CHUNK, TRAINED_ON, NeighbourIndex
from benchmarks import references
from benchmarks.measure import Figure, clock, seconds_each
from benchmarks.search import bank_of, others, overlap

EXTRAPOLATED_FROM = 10**5
"""Codes beyond which bare FAISS answers a sample of them only."""

DEMANDING_FROM = 10**6
"""Codes from which there are targets."""


def scale(size: int) -> Figure:
    """With default options, against bare FAISS's exact search."""
    command = [sys.executable, "-m", "benchmarks.scale", str(size)]
    root = Path(__file__).parents[1]
    answer = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(answer.stdout)
    note = "{index}, recall {recall:.4f}".format(**found)
    peak = found.get("peak_bytes_per_code_byte")
    note += f", peak {peak:.2f} x codes" if peak else ""
    note += ", reference extrapolated" if found["extrapolated"] else ""
    limits = {"recall": ">= 0.95"} | ({"peak_bytes_per_code_byte": "<= 2.5"} if peak else {})
    demanding = size >= DEMANDING_FROM
    return Figure(
        found.pop("ours_s"),
        found.pop("reference_s"),
        ">= 10" if demanding else "",
        note,
        found,
        limits if demanding else {},
    )


def measure(size: int, code_size: int = 64, sample: int = 2000) -> dict[str, Any]:
    """Median seconds of three boundaries, of one beyond `EXTRAPOLATED_FROM`, by turns with the
    reference; recall against its answers; and the peak of memory until the second boundary, making
    the codes included, in units of the codes' own bytes."""
    warm_up(code_size)
    extrapolated = size > EXTRAPOLATED_FROM
    before = start_of_peak()
    bank = bank_of(size, code_size)
    index = NeighbourIndex(code_size)
    generator = torch.Generator().manual_seed(1)
    rows = bank.rows
    if extrapolated:
        rows = torch.randperm(size, generator=generator)[:sample].to(rows.device)
    ours, theirs, peak = [], [], 0
    for _ in range(1 if extrapolated else 3):
        bank.written.fill_(bank.boundary)
        start = clock()
        bank.refresh(index)
        ours.append(clock() - start)
        answers = bank.require_neighbours()[rows]
        peak = peak or peak_after_another(bank, index) - before
        start = clock()
        flat = references.flat_index(bank.codes)
        built = clock()
        found = flat.search(bank.codes[rows], index.k + 1)[1]
        theirs.append(built - start + (clock() - built) * size / len(rows))
    on_cpu = bank.codes.device.type == "cpu"
    memory = {"peak_bytes_per_code_byte": peak / bank.codes.nbytes} if before and on_cpu else {}
    lists = inverted_lists(index.index)
    small = lists is not None and size <= DEMANDING_FROM  # at more it would take as long again
    parts = {"phases_s": phases(bank, index, lists)} if small else {}
    return {
        "ours_s": median(ours),
        "reference_s": median(theirs),
        "extrapolated": extrapolated,
        "index": index.made,
        "recall": overlap(answers, others(found, rows)),
        **memory,
        **parts,
    }


def phases(bank: CodeBank, index: NeighbourIndex, lists: Any) -> dict[str, float]:
    """Seconds of the parts of a boundary with lists: finding them, a list for each code, and the
    search, which finds lists as well."""
    fresh = import_faiss().index_factory(bank.codes.shape[1], index.made)
    fresh.cp = lists.cp
    sample = bank.codes.cpu()[torch.randperm(len(bank.codes))[: TRAINED_ON * lists.nlist]]
    stamps = [clock()]
    fresh.train(sample)
    stamps.append(clock())
    for some in bank.codes.split(CHUNK):
        lists.quantizer.search(some, 1)
    stamps.append(clock())
    index.write_neighbours(
        bank.rows.new_empty(len(bank.codes), index.k, dtype=torch.int32), bank.rows
    )
    stamps.append(clock())
    return dict(zip(("train", "assign", "search"), seconds_each(stamps), strict=True))


def warm_up(code_size: int) -> None:
    """Libraries and their threads are there before memory is counted."""
    bank = bank_of(1000, code_size)
    bank.refresh(NeighbourIndex(code_size))
    references.flat_search(bank.codes, 6)


def peak_after_another(bank: CodeBank, index: NeighbourIndex) -> int:
    """Bytes at the peak, after the beginning of one more boundary: codes are gathered in it while
    the index of the one before is still there. What comes then is as it was."""

    class BegunError(Exception):
        pass

    bank.written.fill_(bank.boundary)
    with patch.object(index, "build", side_effect=BegunError), suppress(BegunError):
        bank.refresh(index)
    return resident("VmHWM")


def start_of_peak() -> int:
    """Bytes resident now, from where the peak is counted from now on."""
    with suppress(OSError):  # not Linux, or not allowed: nothing larger has run in this process
        Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(what: str) -> int:
    """Bytes of this process in memory: "VmRSS" now, "VmHWM" at the peak; 0 where nobody says."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(what)), 0)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
