"""Nearest stored codes with FAISS, on the codes' GPU where FAISS can, else on the CPU."""

import functools
import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acn_lightning.errors import UsageError, check_choice


@functools.cache
def import_faiss() -> Any:
    """FAISS, with its functions taught to take tensors.

    Imported late: `acn --help` does without it, and torch has to be first, as each brings an
    OpenMP runtime.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import faiss
        import faiss.contrib.torch_utils
    except ImportError as error:
        raise UsageError(
            "FAISS is not installed: pip install 'acn-lightning[cpu]', or 'acn-lightning[gpu]' on "
            "a machine with an NVIDIA GPU (one of the two: they share a module name)."
        ) from error
    return faiss


MOST_ON_GPU = 2048
"""FAISS's limit to the answers for a query on the GPU; one is spent on the query itself."""


@functools.cache
def gpu_resources() -> Any:
    """FAISS's scratch memory and streams on the GPUs: one object a process.

    Never run on a GPU by this project's tests.
    """
    resources = import_faiss().StandardGpuResources()
    resources.setTempMemory(256 * 2**20)
    return resources


class NeighbourIndex:
    """Which stored codes lie nearest, in Euclidean distance.

    Answers in data-set rows, not in positions of the index, and leaves a row itself out by its
    row number, never by its distance: exact duplicates in the data are neighbours of each other.

    Args:
        code_size: D.
        k: neighbours for each query, K.
        factory: a FAISS factory string. "Flat" is exact; "IVF256,Flat" or "HNSW32" are quicker on
            millions of codes.
        device: "auto" searches on the GPU that the codes lie on where FAISS can, else on the CPU;
            "cpu" and "gpu" insist.

    Raises:
        UsageError: `k` is below 1, FAISS does not know the factory string or is not installed, or
            "gpu" is asked of a FAISS that sees none.
    """

    def __init__(
        self, code_size: int, *, k: int = 5, factory: str = "Flat", device: str = "auto"
    ) -> None:
        if k < 1:
            raise UsageError(f"neighbours.k: {k} is below 1.")
        check_choice("neighbours.device", device, ["auto", "cpu", "gpu"])
        faiss = import_faiss()
        try:
            faiss.index_factory(code_size, factory, faiss.METRIC_L2)
        except (RuntimeError, TypeError) as error:
            raise UsageError(
                f"neighbours.factory: FAISS makes no index of {code_size} dimensions from "
                f"'{factory}'. Examples: Flat, IVF256,Flat, HNSW32."
            ) from error
        if device == "gpu" and not faiss.get_num_gpus():
            raise UsageError(
                "neighbours.device=gpu: this FAISS sees no GPU. Install 'acn-lightning[gpu]' in "
                "place of '[cpu]' on a machine with one, or use neighbours.device=auto."
            )
        self.code_size, self.k, self.factory, self.device = code_size, k, factory, device
        self.index: Any = None
        self.gpu: int | None = None
        self.codes = torch.empty(0, code_size)
        self.rows = torch.empty(0, dtype=torch.long)

    def build(self, codes: Float[Tensor, "n code"], rows: Int[Tensor, " n"]) -> None:
        """Replaces the index by one of these codes.

        Args:
            codes: what to search among. Kept by reference, so not to be written to.
            rows: the data-set row of each.

        Raises:
            UsageError: fewer than K + 1 codes, as one of them may be the query itself; or fewer
            than an approximate index needs to be trained on.
        """
        if len(codes) <= self.k:
            raise UsageError(
                f"neighbours.k: {self.k} neighbours of a code need more than {self.k} codes; "
                f"there are {len(codes)}."
            )
        self.gpu = self._choose_gpu(codes.device)
        self.codes = codes.contiguous() if self.gpu is not None else codes.cpu().contiguous()
        self.rows = rows.to(codes.device)
        self.index = self._empty_index()
        try:
            if not self.index.is_trained:
                self.index.train(self.codes)
            self.index.add(self.codes)
        except RuntimeError as error:
            raise UsageError(
                f"neighbours.factory: FAISS cannot build '{self.factory}' from {len(codes)} codes: "
                f"{str(error).splitlines()[0].rpartition('failed: ')[2]}"
            ) from error

    def search(
        self,
        queries: Float[Tensor, "n code"],
        exclude: Int[Tensor, " n"] | None = None,
        k: int | None = None,
    ) -> Int[Tensor, "n k"]:
        """The data-set rows of the K stored codes nearest to each query, nearest first.

        Args:
            queries: codes, on any device; the answer comes on the same one.
            exclude: a row for each query that may not be among its answers.
            k: another K than the index's own.

        Raises:
            UsageError: nothing was built yet; `k` is more than there are codes to answer with.
        """
        if self.index is None:
            raise UsageError(
                "The neighbour index is empty: fit or test with the callback "
                "acn_lightning.callbacks.RefreshNeighbours(), which builds it."
            )
        k = k or self.k
        wanted = k if exclude is None else k + 1
        if wanted > len(self.codes):
            raise UsageError(
                f"{k} neighbours of a code are asked for, of {len(self.codes)} stored codes."
            )
        found = self.index.search(queries.to(self.codes.device).contiguous(), wanted)[1]
        found = found.to(queries.device)
        # An approximate index may find too few: FAISS then fills up with -1.
        unusable = found < 0
        rows = self.rows.to(queries.device)[found.clamp(min=0)]
        if exclude is not None:
            unusable |= rows == exclude[:, None]
        # The usable ones to the front, still nearest first. Where the excluded row was not among
        # the K + 1, the farthest drops out.
        order = unusable.byte().argsort(dim=1, stable=True)[:, :k]
        rows, unusable = rows.gather(1, order), unusable.gather(1, order)
        if (short := unusable.any(dim=1)).any():
            rows[short] = self._search_exactly(
                queries[short], exclude[short] if exclude is not None else None, k
            )
        return rows

    def _search_exactly(
        self, queries: Float[Tensor, "n code"], exclude: Int[Tensor, " n"] | None, k: int
    ) -> Int[Tensor, "n k"]:
        """For the queries of which an approximate index found too few."""
        answers = []
        for number, query in enumerate(queries.to(self.codes.device)):
            distances = torch.linalg.vector_norm(self.codes - query, dim=1)
            if exclude is not None:
                distances[
                    self.rows.to(distances.device) == exclude[number].to(distances.device)
                ] = torch.inf
            answers.append(distances.topk(k, largest=False).indices)
        return self.rows.to(queries.device)[torch.stack(answers).to(queries.device)]

    def _choose_gpu(self, device: torch.device) -> int | None:
        """The number of the GPU to search on, where the codes lie on `device`; None for the CPU."""
        usable = device.type == "cuda" and import_faiss().get_num_gpus() > 0
        if self.device == "gpu" and not usable:
            raise UsageError(
                "neighbours.device=gpu: the codes are not on a GPU. Set trainer.accelerator=gpu, "
                "or neighbours.device=auto."
            )
        return device.index if usable and self.device != "cpu" else None

    def _empty_index(self) -> Any:
        faiss = import_faiss()
        index = faiss.index_factory(self.code_size, self.factory, faiss.METRIC_L2)
        if self.gpu is None:
            return index
        try:
            on_gpu = faiss.index_cpu_to_gpu(gpu_resources(), self.gpu, index)
        except RuntimeError:  # a kind of index that FAISS has for the CPU only
            on_gpu = None
        # One that is wrapped (PCA16,Flat) does not take tensors of the GPU; K is limited there.
        if hasattr(on_gpu, "getDevice") and self.k < MOST_ON_GPU:
            return on_gpu
        what = f"'{self.factory}' with K = {self.k}"
        if self.device == "gpu":
            raise UsageError(
                f"neighbours.factory: FAISS does not search {what} on the GPU. Use "
                "neighbours.device=auto to search on the CPU."
            )
        warnings.warn(f"FAISS does not search {what} on the GPU: using the CPU.", stacklevel=2)
        self.gpu, self.codes = None, self.codes.cpu()
        return index
