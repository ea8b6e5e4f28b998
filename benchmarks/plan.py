"""Calculates the bytes and seconds of an epoch boundary of a large data set.

    python -m benchmarks.plan FILE.json [codes=1e8] [code_size=64] [ranks=64] [network_gbit=100]

The seconds come from rates measured by the benchmark `scale-1e6` (FILE.json). They assume one
process per rank, each on a machine like the measured one. None of this was run.
"""

import json
import math
import sys
from pathlib import Path

K = 5
PROBES = 8


def plan(
    phases: dict[str, float], codes: float, code_size: float, ranks: float, network_gbit: float
) -> list[tuple[str, str]]:
    """Returns (quantity, amount) pairs, in reading order.

    Args:
        phases: seconds of the phases of a boundary of a million codes of 64 numbers: "train",
            "assign", "search".
        codes: N.
        code_size: D.
        ranks: processes, each on its own machine.
        network_gbit: gigabits per second into each rank.
    """
    lists = lists_for(codes)
    small = lists_for(10**6)
    wide = code_size / 64
    # Finding the lists compares 64 codes per list with all lists; assignment, each code with all.
    train = phases["train"] * (lists / small) ** 2 * wide
    assign = phases["assign"] * codes / 1e6 * lists / small * wide
    # A search finds its lists as the assignment does, then scans `PROBES` of them.
    scan = phases["search"] - phases["assign"]
    longer = (codes / lists) / (1e6 / small)
    search = assign + scan * codes / 1e6 * longer * wide
    bank = codes * code_size * 4
    wire = codes * (code_size * 4 + 8) + codes * K * 4
    return [
        ("codes of 32 bits, on each rank", gigabytes(bank)),
        ("index of 16 bits with 8 bytes of number a code, on each rank",
         gigabytes(codes * (code_size * 2 + 8))),
        ("table of 5 neighbours, on each rank", gigabytes(codes * K * 4)),
        ("rows, labels, age of the codes, on each rank", gigabytes(codes * 20)),
        ("lists", f"{lists:,}"),
        ("codes a list", f"{codes / lists:,.0f}"),
        ("into each rank over the network: codes with their rows, and the table", gigabytes(wire)),
        ("seconds of network", f"{wire * 8 / network_gbit / 1e9:,.0f}"),
        ("seconds to find the lists, on each rank", f"{train:,.0f}"),
        ("seconds to assign codes, on each rank", f"{assign:,.0f}"),
        ("  if divided over the ranks", f"{assign / ranks:,.0f}"),
        ("seconds to search, divided over the ranks", f"{search / ranks:,.0f}"),
    ]  # fmt: skip


def lists_for(codes: float) -> int:
    """Returns the power of two nearest to 4 sqrt(N), as `NeighbourIndex` does."""
    return 2 ** round(math.log2(4 * math.sqrt(codes)))


def gigabytes(count: float) -> str:
    """Formats bytes in units of 10^9."""
    return f"{count / 1e9:,.1f} GB"


def main(figures: str, *options: str) -> None:
    """Prints the plan."""
    phases = json.loads(Path(figures).read_text())["scale-1e6"]["phases_s"]
    asked = {"codes": 1e8, "code_size": 64.0, "ranks": 64.0, "network_gbit": 100.0}
    for option in options:
        name, _, value = option.partition("=")
        if name not in asked:
            sys.exit(f"{option}: none of {', '.join(asked)}")
        asked[name] = float(value)
    print(", ".join(f"{name} {value:,.0f}" for name, value in asked.items()))
    for what, how_much in plan(phases, **asked):
        print(f"  {what:<75}{how_much:>12}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
