"""Measures an epoch boundary at sizes that need an index: seconds, recall, peak memory.

    python -m benchmarks.scale N        prints the measurements as JSON

Each size runs in its own process, so that memory left by another size neither counts nor is reused.
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
from acn_lightning.retrieval.index import CHUNK, CODES_PER_LIST, NeighbourIndex
from benchmarks import references
from benchmarks.measure import Figure, clock, seconds_each
from benchmarks.search import bank_of, others, overlap

EXTRAPOLATED_FROM = 10**5
"""Number of codes above which bare FAISS answers only a sample of the queries."""

DEMANDING_FROM = 10**6
"""Number of codes from which targets apply."""


def scale(size: int) -> Figure:
    """Compares the boundary with default options and bare FAISS's exact search."""
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
    """Measures median seconds over three boundaries (one above `EXTRAPOLATED_FROM`), alternating
    with the reference; the recall against its answers; and the peak memory until the second
    boundary, including making the codes, in units of the codes' own bytes."""
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
    small = lists is not None and size <= DEMANDING_FROM  # larger ones would take as long again
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
    """Returns the seconds of the phases of a boundary with lists: finding the lists, assigning the
    codes to them, and the search, which also finds lists."""
    fresh = import_faiss().index_factory(bank.codes.shape[1], index.made)
    fresh.cp = lists.cp
    sample = bank.codes.cpu()[torch.randperm(len(bank.codes))[: CODES_PER_LIST * lists.nlist]]
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
    """Loads libraries and starts their threads before memory is counted."""
    bank = bank_of(1000, code_size)
    bank.refresh(NeighbourIndex(code_size))
    references.flat_search(bank.codes, 6)


def peak_after_another(bank: CodeBank, index: NeighbourIndex) -> int:
    """Returns peak bytes after the beginning of one more boundary, which gathers codes while the
    previous index still exists. The rest of the boundary repeats what was already counted."""

    class BegunError(Exception):
        pass

    bank.written.fill_(bank.boundary)
    with patch.object(index, "build", side_effect=BegunError), suppress(BegunError):
        bank.refresh(index)
    return resident("VmHWM")


def start_of_peak() -> int:
    """Resets the peak and returns the bytes resident now."""
    with suppress(OSError):  # not Linux, or not allowed; nothing larger has run in this process
        Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(what: str) -> int:
    """Returns this process's bytes in memory: "VmRSS" now, "VmHWM" at the peak; 0 if unknown."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(what)), 0)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
