"""Calculates the bytes and seconds of an epoch boundary of a large data set.

    python -m benchmarks.plan FILE.json [codes=1e8] [code_size=64] [ranks=64] [network_gbit=100]

The seconds come from rates measured by the benchmark `scale-1e6` (FILE.json). They assume one
process per rank, each on a machine like the measured one. `benchmarks.shards` runs the second
design of the two at sizes that one machine holds.
"""

import json
import math
import sys
from pathlib import Path

K = 5
PROBES = 8
CODES_PER_LIST = 64
ITERATIONS = 10
"""As `NeighbourIndex` has them."""

DIVIDED = {"train": "find the lists", "assign": "assign codes", "search": "search"}


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
    one = boundary(phases, codes, code_size, lists)
    wire = codes * (code_size * 4 + 8) + codes * K * 4 + codes * 4
    return [
        ("lists", f"{lists:,}"),
        ("codes a list", f"{codes / lists:,.0f}"),
        ("EACH RANK HOLDS ALL CODES, as in acn", ""),
        ("codes of 32 bits, on each rank", gigabytes(codes * code_size * 4)),
        ("index of 16 bits with 8 bytes of number a code, on each rank",
         gigabytes(codes * (code_size * 2 + 8))),
        ("table of 5 neighbours; rows, labels, age of the codes, on each rank",
         gigabytes(codes * (K * 4 + 20))),
        ("into each rank over the network: codes with rows and lists, table", gigabytes(wire)),
        ("seconds of network", f"{wire * 8 / network_gbit / 1e9:,.1f}"),
        ("seconds to find the lists, on each rank", f"{one['train']:,.0f}"),
        ("seconds to assign codes, divided over the ranks", f"{one['assign'] / ranks:,.0f}"),
        ("  if each rank assigned all codes", f"{one['assign']:,.0f}"),
        ("seconds to search, divided over the ranks",
         f"{(one['assign'] + one['scan']) / ranks:,.0f}"),
        *sharded_rows(phases, codes, code_size, ranks, network_gbit),
    ]  # fmt: skip


def sharded_rows(
    phases: dict[str, float], codes: float, code_size: float, ranks: float, network_gbit: float
) -> list[tuple[str, str]]:
    """Returns the same quantities for ranks that hold a share of the codes each, where a query goes
    to the ranks that own its lists: at most `PROBES` of them."""
    fanout = min(PROBES, ranks)
    one = sharded(phases, codes, code_size, ranks, fanout, "lists", bits=16)
    received, held = sum(one["received_bytes"].values()), one["bytes"]
    return [
        ("EACH RANK HOLDS ITS SHARE, as benchmarks/shards.py simulates", ""),
        ("codes, index, table, rows, labels, age, on each rank",
         gigabytes(held["codes"] + held["index"] + codes / ranks * (K * 4 + 20))),
        ("while the lists are found, their sample, on each rank", gigabytes(held["sample"])),
        (f"into each rank over the network, a query going to {fanout:.0f} ranks",
         gigabytes(received)),
        ("seconds of network", f"{received * 8 / network_gbit / 1e9:,.1f}"),
        *((f"seconds to {what}, divided over the ranks", f"{one['seconds'][name]:,.0f}")
          for name, what in DIVIDED.items()),
    ]  # fmt: skip


def boundary(
    phases: dict[str, float], codes: float, code_size: float, lists: float
) -> dict[str, float]:
    """Returns the seconds of the measured machine for all codes: to find the lists ("train"), to
    find the list of each code ("assign"), to scan the lists that each code probes ("scan")."""
    small, wide = lists_for(10**6), code_size / 64
    # A search finds its lists as the assignment does, then scans `PROBES` of them.
    scan = phases["search"] - phases["assign"]
    longer = (codes / lists) / (1e6 / small)
    return {
        # Finding the lists compares 64 codes per list with all lists; assignment, each code.
        "train": phases["train"] * (lists / small) ** 2 * wide,
        "assign": phases["assign"] * codes / 1e6 * lists / small * wide,
        "scan": scan * codes / 1e6 * longer * wide,
    }


def sharded(
    phases: dict[str, float],
    codes: float,
    code_size: float,
    ranks: float,
    fanout: float,
    route: str,
    bits: int = 32,
    lists: int = 0,
    iterations: int = ITERATIONS,
) -> dict[str, dict[str, float]]:
    """Returns what each rank does if each holds N / R codes.

    Args:
        phases, codes, code_size, ranks: see `plan`.
        fanout: number of ranks that a query goes to.
        route: "lists" if a list belongs to one rank, "all" if each rank has a part of every list.
        bits: of a number in the index.
        lists: of the index; 0 for as many as `NeighbourIndex` makes.
        iterations: of k-means.

    Returns:
        "seconds" of "train", "assign", "search"; "received_bytes" over the network of "train",
        "fill", "search"; "bytes" of "codes", "index", "sample" (of the codes, to find the lists).
    """
    lists = lists or lists_for(codes)
    one = boundary(phases, codes, code_size, lists)
    own, others = codes / ranks, (ranks - 1) / ranks
    sample = CODES_PER_LIST * lists
    # A rank's code with the numbers of its row and of its list.
    moved = own * others * (code_size * 4 + 8) if route == "lists" else 0
    # A query goes out with the numbers of its lists; K + 1 rows and distances come back. A rank is
    # asked as much as it asks.
    query = code_size * 4 + PROBES * 4 + (K + 1) * 8
    return {
        "seconds": {
            "train": one["train"] / ranks * iterations / ITERATIONS,
            "assign": one["assign"] / ranks,
            "search": one["scan"] / ranks,
        },
        "received_bytes": {
            "train": sample * others * (code_size * 4 + iterations * 4),
            "fill": moved,
            "search": own * fanout * others * query,
        },
        "bytes": {
            "codes": own * code_size * 4,
            "index": own * (code_size * bits / 8 + 8),
            "sample": sample * code_size * 4,
        },
    }


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
