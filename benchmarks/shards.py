"""Simulates an epoch boundary in which each rank holds only its share of the codes.

    python -m benchmarks.shards [codes=1e6] [shards=4] [code_size=64] [probes=8] [route=lists]
                                [queries=500] [steps=100] [json=FILE]
    python -m benchmarks.shards codes=1e7 lists=4096 searched=0.01      # less of it

Each process of this machine stands for a host of a cluster. It holds N / R codes and the part of an
IVF index that belongs to it; FAISS searches, torch.distributed (gloo) carries. Nothing of size N is
on any rank. The steps of a boundary:

- train: R shares of the k-means that finds the lists; every rank gets the same centroids;
- assign: the `probes` nearest lists of a rank's own codes, as lists to be in and to search;
- fill: with route=lists a code goes to the rank that owns its list; with route=all it stays;
- search: a query goes to the ranks that own its lists, or to all; answers return and are merged.

Prints what each phase took beside the plan (`benchmarks.plan`), and the recall against exact search
and against one index that holds all codes. CPU seconds are given beside wall time, because the
processes share the machine's cores.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor

from acn_lightning.retrieval.faiss_backend import import_faiss
from acn_lightning.retrieval.index import CHUNK, CODES_PER_LIST
from benchmarks.measure import machine
from benchmarks.plan import ITERATIONS, K, lists_for, sharded
from benchmarks.scale import resident, start_of_peak
from benchmarks.search import made_up_codes, others, overlap

AT_ONCE = 2**12
"""Number of rows that one rank holds in sequence: rows are dealt out in blocks."""

RATES = Path(__file__).parents[1] / "docs/results/benchmarks.json"

BATCH = 64
"""Images of a rank's training step."""


class Options(NamedTuple):
    """What the command line sets.

    Attributes:
        codes, code_size, shards: N, D, R.
        probes: lists that a query searches.
        route: "lists": a list belongs to one rank; "all": each rank has a part of every list.
        queries: of all ranks, to measure the recall on.
        steps: training steps of which the fetch of drawn codes is timed.
        lists: of the index; 0 for as many as `NeighbourIndex` makes.
        iterations: of k-means.
        searched: the part of a rank's codes whose neighbours are searched.
        json: file to write.
    """

    codes: int = 10**6
    shards: int = 4
    code_size: int = 64
    probes: int = 8
    route: str = "lists"
    queries: int = 500
    steps: int = 100
    lists: int = 0
    iterations: int = ITERATIONS
    searched: float = 1.0
    json: str = ""


# ---------------------------------------------------------------- what is measured


class Meter:
    """Wall and CPU seconds and received bytes of each phase on this rank.

    Args:
        show: whether to print a line after each phase.
    """

    def __init__(self, show: bool) -> None:
        self.show, self.received = show, 0
        self.phases: dict[str, dict[str, float]] = {}
        self._stamp = self._now()

    def _now(self) -> tuple[float, float, int]:
        return time.perf_counter(), time.process_time(), self.received

    def end(self, phase: str) -> None:
        """Books everything since the last phase, up to the moment when all ranks are here."""
        cpu = time.process_time()
        dist.barrier()
        before, self._stamp = self._stamp, self._now()
        wall, _, received = self._stamp
        self.phases[phase] = {
            "wall_s": wall - before[0],
            "cpu_s": cpu - before[1],
            "received_bytes": received - before[2],
        }
        self.tell(f"{phase}: {wall - before[0]:,.1f} s, {cpu - before[1]:,.1f} s of CPU")

    def tell(self, words: str) -> None:
        """Prints a line, on rank 0."""
        if self.show:
            print(words, file=sys.stderr, flush=True)

    def exchange(self, values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Sends rows to the ranks.

        Args:
            values: rows in the order of the ranks that they go to.
            counts: number of rows for each rank.

        Returns:
            What came, in the order of the ranks that sent it, and how many rows each sent.
        """
        arriving = torch.empty_like(counts)
        dist.all_to_all_single(arriving, counts)
        sizes = arriving.tolist()
        came = values.new_empty(sum(sizes), *values.shape[1:])
        dist.all_to_all_single(came, values.contiguous(), sizes, counts.tolist())
        each = came[:1].nbytes
        self.received += each * (sum(sizes) - sizes[dist.get_rank()])
        return came, arriving

    def gather(self, value: Tensor) -> Tensor:
        """The rows of all ranks, in rank order; their numbers may differ."""
        count = torch.full((dist.get_world_size(),), len(value))
        return self.exchange(value.repeat(len(count), *[1] * (value.dim() - 1)), count)[0]


def cpu_of_a_chunk() -> float:
    """CPU seconds to assign a chunk of codes of 64 numbers to the lists of a million codes. The
    plan has this rate of a quiet machine; other programs, and the other ranks, slow it down."""
    faiss = import_faiss()
    codes, index = torch.randn(CHUNK, 64), faiss.IndexFlatL2(64)
    index.add(torch.randn(lists_for(10**6), 64))
    start = time.process_time()
    index.search(codes, 1)
    return time.process_time() - start


# ---------------------------------------------------------------- the boundary


def own_codes(options: Options) -> tuple[Tensor, Tensor]:
    """(rows, codes) of this rank: every R-th block of the codes of the other benchmarks."""
    rows = torch.arange(options.codes, dtype=torch.int32)
    rows = rows[place(rows, options.shards)[0] == dist.get_rank()].clone()
    codes = torch.empty(len(rows), options.code_size)
    made, start = made_up_codes(options.codes, options.code_size, at_once=AT_ONCE), 0
    for some, values in made:
        if start < len(rows) and some[0] == rows[start]:
            codes[start : start + len(some)] = values
            start += len(some)
    return rows, codes


def place(rows: Tensor, shards: int) -> tuple[Tensor, Tensor]:
    """(rank, position there) of rows, as `own_codes` deals them out."""
    block = rows // AT_ONCE
    return block % shards, block // shards * AT_ONCE + rows % AT_ONCE


def find_lists(codes: Tensor, count: int, iterations: int, meter: Meter) -> Tensor:
    """Centroids of the lists, the same on every rank: FAISS's k-means over assignments that the
    ranks divide. All hold the sample, so that sums do not depend on the number of ranks."""
    from faiss.contrib import clustering

    faiss = import_faiss()
    rank, size = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(rank)
    most = CODES_PER_LIST * count // size
    sample = meter.gather(codes[torch.randperm(len(codes), generator=generator)[:most]])

    class Divided(clustering.DatasetAssign):  # type: ignore[misc]
        """A sample, of which each rank assigns its share."""

        def assign_to(self, centroids: Any, weights: None = None) -> tuple[Any, Any, Any]:
            share = np.array_split(self.x, size)[rank]
            near = torch.from_numpy(faiss.knn(share, centroids, 1)[1][:, 0])
            every = meter.gather(near.int()).long()
            sums = torch.zeros(centroids.shape).index_add_(0, every, sample)
            # The distances only make the objective, which nobody reads.
            return every.numpy(), np.zeros(1, "float32"), sums.numpy()

    with redirect_stdout(StringIO()):
        found = clustering.kmeans(count, Divided(sample.numpy()), iterations, verbose=False)
    return torch.from_numpy(found)


def nearest_lists(codes: Tensor, quantizer: Any, probes: int, meter: Meter) -> Tensor:
    """The nearest lists of each code, nearest first."""
    found = torch.empty(len(codes), probes, dtype=torch.int32)
    for number, some in enumerate(torch.arange(len(codes)).split(CHUNK)):
        found[some] = quantizer.search(codes[some], probes)[1].int()
        if number % 20 == 19:
            meter.tell(f"  assigned {number + 1} of {len(codes) // CHUNK + 1} chunks")
    return found


def owners_of(centroids: Tensor, sizes: Tensor, shards: int) -> Tensor:
    """The rank that owns each list. Lists that lie near each other go to the same one, so that a
    query goes to few: the set is cut in two along its first principal axis, at the point where
    codes are shared fairly, and so on."""
    owner = torch.zeros(len(centroids), dtype=torch.long)

    def cut(lists: Tensor, first: int, count: int) -> None:
        owner[lists] = first
        if count == 1 or len(lists) < 2:
            return
        points = centroids[lists] - centroids[lists].mean(0)
        axis = torch.linalg.eigh(points.T @ points).eigenvectors[:, -1]
        lists = lists[(points @ axis).argsort()]
        so_far = sizes[lists].cumsum(0)
        half = count // 2
        left = int((so_far <= so_far[-1] * half / count).sum())
        cut(lists[:left], first, half)
        cut(lists[left:], first + half, count - half)

    cut(torch.arange(len(centroids)), 0, shards)
    return owner


def fill(
    rows: Tensor, codes: Tensor, lists: Tensor, index: Any, owner: Tensor | None, meter: Meter
) -> None:
    """Puts codes into their lists, on the ranks that own these, in just the room they need."""
    faiss = import_faiss()
    rank, shards = dist.get_rank(), dist.get_world_size()
    sizes = torch.bincount(lists[:, 0], minlength=index.nlist)
    if owner is not None:
        dist.all_reduce(sizes)
        sizes[owner != rank] = 0
    for number, size in enumerate(sizes.tolist()):
        index.invlists.resize(number, size)
        index.invlists.resize(number, 0)  # keeps the capacity
    for some in chunks(len(codes)):
        labels = torch.stack([rows[some], lists[some, 0]], 1)
        values = codes[some]
        if owner is not None:
            to = owner[labels[:, 1]]
            order, counts = to.argsort(stable=True), torch.bincount(to, minlength=shards)
            values, _ = meter.exchange(values[order], counts)
            labels, _ = meter.exchange(labels[order], counts)
        row, cell = labels.long().T.contiguous()
        arrays = [one.numpy() for one in (values, row, cell)]
        index.add_core(len(values), *map(faiss.swig_ptr, arrays))


def chunks(count: int) -> list[Tensor]:
    """This rank's positions in chunks, the same number of them on every rank."""
    rounds = torch.tensor(-(-count // CHUNK))
    dist.all_reduce(rounds, dist.ReduceOp.MAX)
    return list(torch.arange(count).tensor_split([CHUNK * one for one in range(1, int(rounds))]))


def search(
    queries: Tensor, lists: Tensor, index: Any, owner: Tensor | None, meter: Meter
) -> tuple[Tensor, float]:
    """The K + 1 rows nearest to a chunk of this rank's codes, and the mean number of ranks that a
    query went to."""
    faiss = import_faiss()
    rank, shards = dist.get_rank(), dist.get_world_size()
    there = torch.ones(len(queries), shards, dtype=torch.bool)
    if owner is not None:
        there = torch.zeros_like(there).scatter_(1, owner[lists], True)
    to, which = there.T.nonzero().T
    counts = there.sum(0)
    asked, arriving = meter.exchange(queries[which], counts)
    probed, _ = meter.exchange(lists[which], counts)
    probed = probed.long()
    if owner is not None:
        probed[owner[probed] != rank] = -1  # FAISS passes over these
    distances, found = index.search_preassigned(asked.numpy(), K + 1, probed.numpy(), None)
    distances, _ = meter.exchange(torch.from_numpy(distances), arriving)
    found, _ = meter.exchange(torch.from_numpy(found).int(), arriving)
    every = torch.full((shards, len(queries), K + 1), torch.inf)
    row = torch.full(every.shape, -1)
    every[to, which], row[to, which] = distances, found.long()
    merged = torch.from_numpy(faiss.merge_knn_results(every.numpy(), row.numpy())[1])
    return merged, len(which) / max(1, len(queries))


def fetch(table: Tensor, codes: Tensor, shards: int, meter: Meter) -> Tensor:
    """What a training step would do: draws a neighbour of each image of a batch, and gets its code
    from the rank that holds it."""
    batch = table[torch.randint(len(table), (BATCH,))]
    drawn = batch.gather(1, torch.randint(K, (BATCH, 1)))[:, 0]
    to, position = place(drawn, shards)
    order, counts = to.argsort(stable=True), torch.bincount(to, minlength=shards)
    wanted, arriving = meter.exchange(position[order].int(), counts)
    came, _ = meter.exchange(codes[wanted], arriving)
    answer = torch.empty_like(came)
    answer[order] = came
    return answer


# ---------------------------------------------------------------- what it is compared with


def exact(queries: Tensor, rows: Tensor, codes: Tensor, meter: Meter) -> Tensor:
    """The true K + 1 nearest rows of this rank's queries among the codes of all ranks."""
    faiss = import_faiss()
    rank, shards = dist.get_rank(), dist.get_world_size()
    everyones = meter.gather(queries)
    distances, found = faiss.knn(everyones.numpy(), codes.numpy(), K + 1)
    near = meter.gather(torch.from_numpy(distances)).view(shards, -1, K + 1)
    row = meter.gather(rows[torch.from_numpy(found)]).long().view(shards, -1, K + 1)
    merged = torch.from_numpy(faiss.merge_knn_results(near.numpy(), row.numpy())[1])
    return merged.tensor_split(shards)[rank]


def one_index(index: Any, queries: Tensor, folder: Path, meter: Meter) -> Tensor:
    """The K + 1 rows that one index over all codes finds for this rank's queries: FAISS merges the
    shards on rank 0, which searches without knowing of shards."""
    faiss = import_faiss()
    rank, shards = dist.get_rank(), dist.get_world_size()
    probes = index.nprobe
    faiss.write_index(index, str(folder / f"{rank}.faiss"))
    index.invlists.reset()
    everyones = meter.gather(queries)
    found = torch.empty(len(everyones), K + 1, dtype=torch.long)
    dist.barrier()
    if rank == 0:
        whole = faiss.read_index(str(folder / "0.faiss"))
        for other in range(1, shards):
            whole.merge_from(faiss.read_index(str(folder / f"{other}.faiss")), 0)
        whole.nprobe = probes
        found = whole.search(everyones, K + 1)[1]
    dist.broadcast(found, 0)
    return found.tensor_split(shards)[rank]


def mean(value: float) -> float:
    """The mean over the ranks."""
    total = torch.tensor([value], dtype=torch.double)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


# ---------------------------------------------------------------- the run


def run(rank: int, options: Options, folder: str) -> None:
    """One of the ranks; writes what it measured to FOLDER/RANK.json."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=options.shards
    )
    torch.set_num_threads(1)
    import_faiss().omp_set_num_threads(1)
    torch.manual_seed(rank)
    before = start_of_peak()
    rows, codes = own_codes(options)
    meter = Meter(show=rank == 0)
    dist.barrier()
    found = measure(options, rows, codes, meter, before, Path(folder))
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def measure(
    options: Options, rows: Tensor, codes: Tensor, meter: Meter, before: int, folder: Path
) -> dict[str, Any]:
    """Does a boundary and returns its figures on this rank."""
    faiss = import_faiss()
    count = options.lists or lists_for(options.codes)
    chunk = [cpu_of_a_chunk()]
    meter.end("start")
    centroids = find_lists(codes, count, options.iterations, meter)
    meter.end("train")
    quantizer = faiss.IndexFlatL2(options.code_size)
    quantizer.add(centroids)
    lists = nearest_lists(codes, quantizer, options.probes, meter)
    meter.end("assign")
    index = faiss.IndexIVFFlat(quantizer, options.code_size, count)
    index.nprobe = options.probes
    owner = None
    if options.route == "lists":
        sizes = torch.bincount(lists[:, 0], minlength=count)
        dist.all_reduce(sizes)
        owner = owners_of(centroids, sizes, options.shards)
    fill(rows, codes, lists, index, owner, meter)
    meter.end("fill")
    searched = int(len(codes) * options.searched)
    table, fanout = torch.empty(searched, K, dtype=torch.int32), []
    for number, some in enumerate(rounds := chunks(searched)):
        answers, ranks = search(codes[some], lists[some], index, owner, meter)
        table[some] = others(answers, rows[some]).int()
        fanout.append(ranks)
        if number % 20 == 19:
            meter.tell(f"  searched {number + 1} of {len(rounds)} chunks")
    meter.end("search")
    peak = resident("VmHWM") - before
    for _ in range(options.steps):
        fetch(table, codes, options.shards, meter)
    meter.end("steps")
    some = torch.randperm(searched)[: options.queries // options.shards]
    true = others(exact(codes[some], rows, codes, meter), rows[some])
    held = index.ntotal
    whole = others(one_index(index, codes[some], folder, meter), rows[some])
    chunk.append(cpu_of_a_chunk())
    meter.end("compare")
    return {
        "phases": meter.phases,
        "cpu_of_a_chunk": sum(chunk) / len(chunk),
        "bytes": {"codes": codes.nbytes, "index": held * (codes[0].nbytes + 8), "peak": peak},
        "fanout": sum(fanout) / len(fanout),
        "recall": mean(overlap(table[some], true)),
        "recall_of_one_index": mean(overlap(whole, true)),
        "as_one_index": mean(overlap(table[some], whole)),
    }


def simulate(options: Options) -> dict[str, Any]:
    """Runs the ranks and returns their figures beside the plan's."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(
            run, (options, folder), nprocs=options.shards, start_method="forkserver"
        )
        ranks = [json.loads(Path(folder, f"{r}.json").read_text()) for r in range(options.shards)]
    fanout = sum(one["fanout"] for one in ranks) / len(ranks)
    planned = planned_for(options, fanout)
    slower = sum(one["cpu_of_a_chunk"] for one in ranks) / len(ranks) / planned_chunk()
    phases = {
        phase: {
            "wall_s": ranks[0]["phases"][phase]["wall_s"],
            "cpu_s": [one["phases"][phase]["cpu_s"] for one in ranks],
            "planned_cpu_s": planned["seconds"].get(phase),
            "received_bytes": [one["phases"][phase]["received_bytes"] for one in ranks],
            "planned_received_bytes": planned["received_bytes"].get(phase),
        }
        for phase in ranks[0]["phases"]
    }
    return {
        "options": options._asdict(),
        "machine": machine(),
        "fanout": fanout,
        "slower": slower,
        **{name: ranks[0][name] for name in ("recall", "recall_of_one_index", "as_one_index")},
        "phases": phases,
        "bytes": {name: [one["bytes"][name] for one in ranks] for name in ranks[0]["bytes"]},
        "planned_bytes": planned["bytes"],
        "seconds_per_step": phases["steps"]["wall_s"] / max(1, options.steps),
    }


def rates() -> dict[str, float]:
    """Returns the plan's rates in seconds of CPU, as a rank has one thread."""
    known = json.loads(RATES.read_text())
    seconds = known["scale-1e6"]["phases_s"].items()
    return {name: known["machine"]["threads"] * value for name, value in seconds}


def planned_chunk() -> float:
    """Returns what `cpu_of_a_chunk` measures on a quiet machine."""
    return rates()["assign"] * CHUNK / 10**6


def planned_for(options: Options, fanout: float) -> dict[str, dict[str, float]]:
    """Returns the plan of these options."""
    planned = sharded(
        rates(),
        options.codes,
        options.code_size,
        options.shards,
        fanout,
        options.route,
        lists=options.lists,
        iterations=options.iterations,
    )
    for part in (planned["seconds"], planned["received_bytes"]):
        part["search"] *= options.searched
    return planned


UNITS = {"cpu_s": ("s of CPU", 1.0), "received_bytes": ("MB received", 1e6)}


def print_table(found: dict[str, Any]) -> None:
    """Prints the figures for people: the mean over the ranks, and the largest."""

    def line(*cells: str) -> None:
        print(f"{cells[0]:<28}" + "".join(f"{cell:>13}" for cell in cells[1:]))

    line("each rank", "mean", "largest", "plan")
    for phase, one in found["phases"].items():
        for name, (unit, factor) in UNITS.items():
            planned = one[f"planned_{name}"]
            if planned is not None:
                line(f"{phase}, {unit}", *numbers(one[name], planned, factor))
        line(f"{phase}, s of wall time", f"{one['wall_s']:,.1f}")
    for name, values in found["bytes"].items():
        line(f"{name}, MB", *numbers(values, found["planned_bytes"].get(name), 1e6))
    line("CPU, times that of the plan", f"{found['slower']:.2f}")
    line("ranks a query goes to", f"{found['fanout']:.2f}")
    line("a step's fetch, ms", f"{1e3 * found['seconds_per_step']:.1f}")
    for name in ("recall", "recall_of_one_index", "as_one_index"):
        line(name, f"{found[name]:.4f}")


def numbers(values: list[float], planned: float | None, factor: float) -> list[str]:
    """Mean, largest and planned."""
    cells = [sum(values) / len(values), max(values), *([] if planned is None else [planned])]
    return [f"{cell / factor:,.1f}" for cell in cells]


def parse(arguments: list[str]) -> Options:
    """Reads `name=value` words.

    Raises:
        SystemExit: a name or value is wrong.
    """
    known: dict[str, Any] = Options()._asdict()
    for word in arguments:
        name, _, value = word.partition("=")
        if name not in known:
            sys.exit(f"{word}: none of {', '.join(known)}")
        kind = type(known[name])
        try:
            known[name] = kind(float(value)) if kind is not str else value
        except ValueError:
            sys.exit(f"{word}: not a number")
    if known["route"] not in ("lists", "all"):
        sys.exit(f"route={known['route']}: lists or all")
    options = Options(**known)
    if options.codes < options.shards * AT_ONCE:
        sys.exit(f"codes={options.codes}: {options.shards} shards need {AT_ONCE} codes each")
    return options


def main(arguments: list[str]) -> None:
    """Runs the ranks, prints and writes their figures."""
    options = parse(arguments)
    # Torch is imported once for all ranks.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["benchmarks.scale"])
    found = simulate(options)
    print_table(found)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
