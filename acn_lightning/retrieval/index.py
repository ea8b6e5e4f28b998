"""Nearest stored codes with FAISS, on the codes' GPU if FAISS supports it, else on the CPU."""

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.retrieval.exact import distances_to, exact_neighbours
from acn_lightning.retrieval.faiss_backend import (
    MAX_RESULTS_ON_GPU,
    add_to_lists,
    effort_knob,
    gpu_resources,
    has_plain_lists,
    import_faiss,
    inverted_lists,
)
from acn_lightning.utils.distributed import gather, share_of
from acn_lightning.utils.errors import UsageError, check_choice, check_range
from acn_lightning.utils.progress import progress_bar

FLAT_UP_TO = {"cpu": 20_000, "gpu": 1_000_000}
"""Number of codes up to which "auto" compares all with all: about a second on two cores (measured),
some seconds on a GPU (calculated; this project's tests never ran on one)."""

CODES_PER_LIST = 64
"""Number of codes per list that an IVF is trained on: a quarter of FAISS's own number, in a quarter
of the time."""

MIN_EFFORT, MAX_EFFORT = 8, 1024
"""Effort at which tuning starts, and at which it ends for a graph index."""

RECALL_SAMPLE = 512
"""Number of queries to measure recall on: at 95 %, its standard error is below 0.5 %."""

CHUNK = 2**14
"""Largest number of rows handled at once, so that progress is seen to move."""


class NeighbourIndex:
    """Finds the stored codes nearest to a query, in Euclidean distance.

    Answers are data-set rows, not positions in the index. A row itself is excluded by its row
    number, never by its distance, so exact duplicates in the data are neighbours of each other.

    Each rebuild measures the recall@K of an approximate index on a sample of the codes: the
    fraction of the true K nearest that it finds (answers as near as the true ones count as true).

    Args:
        code_size: D.
        seed: seed of an IVF's lists and of that sample, so the same codes give the same index.
        k: number of neighbours per query, K.
        factory: "auto" compares all codes with all while that is quick ("Flat", exact). Above
            20,000 codes (a million on a GPU) it searches the nearest of 4 sqrt(N) lists ("IVF"),
            unless that proves no quicker. Otherwise a FAISS factory string, such as "Flat",
            "IVF256,Flat" or "HNSW32".
        recall: lowest acceptable recall of an approximate index.
        effort: number of lists that an IVF searches, or of candidates that an HNSW holds. null
            starts at 8 at each rebuild, and doubles until the recall is reached.
        float16: with "auto", whether the index stores its copy of the codes in 16 bits.
        memory_mb: memory that a rebuild may hold at once besides codes, index and table, in MiB.
            On a GPU, FAISS gets half of it as scratch memory.
        device: "auto" searches on the codes' GPU if FAISS supports it, else on the CPU; "cpu" and
            "gpu" force one.

    Attributes:
        made: factory string that the index was last made from.
        received: bytes that this rank received over the network while the index was last built.

    Raises:
        UsageError: an option is out of range, FAISS rejects the factory string or is not
            installed, or the device is "gpu" and FAISS sees no GPU.
    """

    def __init__(
        self,
        code_size: int,
        seed: int = 0,
        *,
        k: int = 5,
        factory: str = "auto",
        recall: float = 0.95,
        effort: int | None = None,
        float16: bool = False,
        memory_mb: int = 128,
        device: str = "auto",
    ) -> None:
        for name, value in [("k", k), ("effort", effort), ("memory_mb", memory_mb)]:
            if value is not None:
                check_range(f"neighbours.{name}", value, 1, 1_000_000)
        if not 0 < recall <= 1:
            raise UsageError(f"neighbours.recall: {recall} is not above 0 and at most 1.")
        if float16 and factory != "auto":
            raise UsageError(
                "neighbours.float16 is for neighbours.factory=auto: write SQfp16 into the factory "
                "string instead, such as IVF256,SQfp16."
            )
        check_choice("neighbours.device", device, ["auto", "cpu", "gpu"])
        faiss = import_faiss()
        try:
            faiss.index_factory(code_size, "Flat" if factory == "auto" else factory)
        except (RuntimeError, TypeError) as error:
            raise UsageError(
                f"neighbours.factory: FAISS cannot make an index of {code_size} dimensions from "
                f"'{factory}'. Examples: auto, Flat, IVF256,Flat, HNSW32."
            ) from error
        if device == "gpu" and not faiss.get_num_gpus():
            raise UsageError(
                "neighbours.device=gpu: this FAISS sees no GPU. On a machine with one, install "
                "faiss-gpu instead of faiss-cpu; or use neighbours.device=auto."
            )
        self.code_size, self.seed, self.k, self.factory = code_size, seed, k, factory
        self.recall, self.effort, self.float16 = recall, effort, float16
        self.memory, self.device = memory_mb * 2**20, device
        self.index: Any = None
        self.made = ""
        self.received = 0
        self.gpu: int | None = None
        self.codes = torch.empty(0, code_size)
        self.rows = torch.empty(0, dtype=torch.long)

    def like(self, k: int) -> "NeighbourIndex":
        """An empty index with the same options and another K."""
        return NeighbourIndex(
            self.code_size,
            self.seed,
            k=k,
            factory=self.factory,
            recall=self.recall,
            effort=self.effort,
            float16=self.float16,
            memory_mb=self.memory // 2**20,
            device=self.device,
        )

    # ------------------------------------------------------------ building

    def build(
        self,
        codes: Float[Tensor, "size code"],
        rows: Int[Tensor, " n"],
        divide: bool = False,
    ) -> None:
        """Replaces the index by one over these rows of the codes.

        Args:
            codes: table of codes, one row per image of the data. Kept by reference, to look up
                answers that an approximate index does not find.
            rows: rows of the table to search among.
            divide: whether the ranks divide the assignment of codes to lists. All must then call
                this at once, with the same codes and rows, on CPUs of one kind, because each finds
                the lists itself. The index is the same either way.

        Raises:
            UsageError: there are fewer than K + 1 codes (one may be the query itself), or fewer
                than an approximate index needs for training.
        """
        if len(rows) <= self.k:
            raise UsageError(
                f"neighbours.k: {self.k} neighbours of a code need more than {self.k} codes; "
                f"there are {len(rows)}."
            )
        self.codes, self.rows = codes, rows
        self.gpu = self._choose_gpu(codes.device)
        self.received = 0
        self._make(self._choose_factory(), divide)

    def tune(self) -> float:
        """Raises the search effort until the recall is reached, unless the config sets the effort.

        If an eighth of the lists is not enough, "auto" compares all codes with all instead. That
        is about as quick, because FAISS then multiplies matrices.

        Returns:
            The recall on a sample of the codes. It is 1.0 for an exact index, without measuring.
        """
        if self.made == "Flat" and not self.float16:
            return 1.0
        sample = self._some_rows(RECALL_SAMPLE)
        true = self._search_exactly(self.codes[sample], sample, self.k)
        # The margin allows for rounding: FAISS computes distances from inner products.
        bound = distances_to(self.codes[sample], self.codes, true).amax(1, keepdim=True) * (
            1 + 1e-4
        )
        recall = self._recall(sample, bound)
        knob = effort_knob(self.index)
        if knob is None or self.effort is not None:
            return recall
        lists = getattr(knob[0], "nlist", 0)
        most = (lists // 8 if self.factory == "auto" else lists) or MAX_EFFORT
        while recall < self.recall and getattr(*knob) < most:
            setattr(*knob, min(2 * getattr(*knob), most))
            recall = self._recall(sample, bound)
        if recall < self.recall and self.factory == "auto":
            self._make("Flat")
            return self.tune()
        return recall

    def advice(self) -> str:
        """What to change when the recall is too low."""
        knob = effort_knob(self.index)
        if knob is None or self.effort is None:
            return f"Use another neighbours.factory than {self.made}; Flat is exact."
        return f"Raise neighbours.effort, now {self.effort}, or set it to null to have it tuned."

    def _choose_factory(self) -> str:
        if self.factory != "auto":
            return self.factory
        if len(self.rows) <= FLAT_UP_TO["cpu" if self.gpu is None else "gpu"]:
            return "Flat"
        return f"IVF{2 ** round(math.log2(4 * math.sqrt(len(self.rows))))},Flat"

    def _choose_gpu(self, device: torch.device) -> int | None:
        """The number of the GPU to search on if the codes are on `device`; None for the CPU."""
        usable = device.type == "cuda" and import_faiss().get_num_gpus() > 0
        if self.device == "gpu" and not usable:
            raise UsageError(
                "neighbours.device=gpu: the codes are not on a GPU. Set trainer.accelerator=gpu, "
                "or neighbours.device=auto."
            )
        return device.index if usable and self.device != "cpu" else None

    def _make(self, factory: str, divide: bool = False) -> None:
        """Makes the index from a factory string and fills it."""

        def codes(doing: str) -> Iterator[Tensor]:
            for some in self._chunks(self.rows, doing):
                yield self._placed(self.codes[some])

        self.index = None  # frees its memory before the next one is made
        self.made = factory
        self.index = self._empty_index(factory)
        plain = has_plain_lists(self.index)
        try:
            if not self.index.is_trained:
                lists = getattr(inverted_lists(self.index), "nlist", 1024)
                self.index.train(self._placed(self.codes[self._some_rows(CODES_PER_LIST * lists)]))
            for some in [] if plain else codes("building the index"):
                self.index.add(some)
        except RuntimeError as error:
            raise UsageError(
                f"neighbours.factory: FAISS cannot build '{factory}' from {len(self.rows)} codes: "
                f"{str(error).splitlines()[0].rpartition('failed: ')[2]}"
            ) from error
        if plain:  # outside: an error of the network is none of the factory string
            cells = self._find_lists(divide)
            add_to_lists(self.index, cells, codes("filling lists"))
        if (knob := effort_knob(self.index)) is not None:
            setattr(*knob, self.effort or MIN_EFFORT)

    def _find_lists(self, divide: bool) -> Int[Tensor, " n"]:
        """The number of the list of each row, on the CPU. Ranks that divide the work take whole
        chunks: the rounding of a product of matrices may depend on their shapes."""
        rows = share_of(self.rows, self._chunk_size()) if divide else self.rows
        # 32 bits, because they travel and all are held at once.
        found = [torch.empty(0, dtype=torch.int32)]
        for some in self._chunks(rows, "finding lists"):
            cells = self.index.quantizer.search(self._placed(self.codes[some]), 1)[1]
            found.append(cells[:, 0].int())
        own = torch.cat(found)
        if not divide:
            return own
        # NCCL carries what is on the GPU.
        everyones = torch.cat(gather(own.to(self.rows.device))).cpu()
        self.received += everyones.nbytes - own.nbytes
        return everyones

    def _empty_index(self, factory: str) -> Any:
        faiss = import_faiss()
        # On the GPU, an option of the copy (useFloat16) halves a flat index.
        stored = factory.replace("Flat", "SQfp16") if self._halved() else factory
        index = faiss.index_factory(self.code_size, stored)
        if self.gpu is not None:
            index = self._on_gpu(index)
        if (lists := inverted_lists(index)) is not None:
            lists.cp.seed, lists.cp.niter = self.seed % 2**31, 10
            # FAISS trains on all codes that it is given, and does not warn if they are few.
            lists.cp.min_points_per_centroid, lists.cp.max_points_per_centroid = (
                1,
                2 * CODES_PER_LIST,
            )
        return index

    def _on_gpu(self, index: Any) -> Any:
        """The index on the GPU, or unchanged if FAISS cannot search it there."""
        faiss = import_faiss()
        options = faiss.GpuClonerOptions()
        options.useFloat16, options.reserveVecs = self.float16, len(self.rows)
        try:
            resources = gpu_resources(self.memory // 2)
            on_gpu = faiss.index_cpu_to_gpu(resources, self.gpu, index, options)
        except RuntimeError:  # FAISS has this kind of index on the CPU only
            on_gpu = None
        # A wrapped index (PCA16,Flat) does not take GPU tensors, and K is limited on the GPU.
        if hasattr(on_gpu, "getDevice") and self.k < MAX_RESULTS_ON_GPU:
            return on_gpu
        what = f"'{self.made}' with K = {self.k}"
        if self.device == "gpu":
            raise UsageError(
                f"neighbours.factory: FAISS does not search {what} on the GPU. Use "
                "neighbours.device=auto to search on the CPU."
            )
        warnings.warn(f"FAISS does not search {what} on the GPU: using the CPU.", stacklevel=2)
        self.gpu = None
        return index

    def _halved(self) -> bool:
        """Whether the factory string makes the index store 16 bits."""
        return self.float16 and not (self.made == "Flat" and self.gpu is not None)

    def _some_rows(self, most: int) -> Tensor:
        """A random sample of the indexed rows, the same at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(self.rows), generator=generator)[:most]
        return self.rows[chosen.to(self.rows.device)]

    def _placed(self, codes: Tensor) -> Tensor:
        """The codes on the index's device. For an index on a GPU they stay where they are."""
        return codes.contiguous() if self.gpu is not None else codes.cpu().contiguous()

    # ------------------------------------------------------------ searching

    def search(
        self,
        queries: Float[Tensor, "n code"],
        exclude: Int[Tensor, " n"] | None = None,
        k: int | None = None,
    ) -> Int[Tensor, "n k"]:
        """The data-set rows of the K stored codes nearest to each query, nearest first.

        Args:
            queries: codes on any device; the answer is on the same one.
            exclude: for each query, a row that must not be among its answers.
            k: K for this search; None for the index's own.

        Raises:
            UsageError: nothing was built yet, or there are too few codes for `k` answers.
        """
        if self.index is None:
            raise UsageError(
                "The neighbour index is empty: fit or test with the callback "
                "acn_lightning.callbacks.RefreshNeighbours(), which builds it."
            )
        k = self.k if k is None else k
        if k < 1:
            raise UsageError(f"k: {k} is below 1.")
        wanted = k if exclude is None else k + 1
        if wanted > len(self.rows):
            raise UsageError(
                f"Cannot find {k} neighbours of a code among {len(self.rows)} stored codes."
            )
        if self.gpu is not None and wanted > MAX_RESULTS_ON_GPU:
            return self._search_exactly(queries, exclude, k)
        found = self.index.search(self._placed(queries), wanted)[1].to(queries.device)
        # An approximate index may find too few; FAISS then pads with -1.
        unusable = found < 0
        rows = self.rows.to(queries.device)[found.clamp(min=0)]
        if exclude is not None:
            unusable |= rows == exclude[:, None]
        # Move the usable ones to the front, still nearest first. If the excluded row was not among
        # the K + 1, the farthest drops out.
        order = unusable.byte().argsort(dim=1, stable=True)[:, :k]
        rows, unusable = rows.gather(1, order), unusable.gather(1, order)
        if (short := unusable.any(dim=1)).any():
            rows[short] = self._search_exactly(
                queries[short], None if exclude is None else exclude[short], k
            )
        return rows

    def write_neighbours(self, table: Int[Tensor, "size k"], rows: Int[Tensor, " n"]) -> None:
        """Writes the K nearest of each of these stored codes, without the code itself.

        Args:
            table: table to write to, at `rows`, a chunk at a time.
            rows: rows of the codes that the index was built with.
        """
        for some in self._chunks(rows, "searching neighbours"):
            table[some] = self.search(self.codes[some], exclude=some).to(table.dtype)

    def _search_exactly(self, queries: Tensor, exclude: Tensor | None, k: int) -> Tensor:
        """For the recall, for queries with too few answers from an approximate index, and for more
        answers than an index on the GPU gives."""
        queries, device = queries.to(self.codes.device), queries.device
        exclude = None if exclude is None else exclude.to(self.codes.device)
        # Little memory, because the process keeps it after it is freed.
        found = exact_neighbours(queries, self.codes, self.rows, k, exclude, self.memory // 8)
        return found.to(device)

    def _recall(self, sample: Int[Tensor, " n"], bound: Float[Tensor, "n 1"]) -> float:
        found = self.search(self.codes[sample], exclude=sample)
        near = distances_to(self.codes[sample], self.codes, found) <= bound
        return int(near.sum()) / near.numel()

    def _chunks(self, rows: Tensor, doing: str) -> Iterator[Tensor]:
        """Splits the rows into chunks that fit into memory, and shows progress."""
        chunks: Iterable[Tensor] = rows.split(self._chunk_size())
        with progress_bar(doing, "code", total=len(rows)) as shown:
            for chunk in chunks:
                yield chunk
                shown.update(len(chunk))

    def _chunk_size(self) -> int:
        """Largest number of rows in a chunk."""
        # Per row: its code. Per answer: its number, distance, row and order.
        bytes_each = 4 * self.code_size + 40 * (self.k + 1)
        return min(CHUNK, max(1, self.memory // 2 // bytes_each))
