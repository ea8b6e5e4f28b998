"""FAISS: its late import, its GPU resources, and helpers for its kinds of index."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from acn_lightning.utils.errors import UsageError, one_line

MAX_RESULTS_ON_GPU = 2048
"""FAISS's limit on answers per query on the GPU; one answer is the query itself."""


@functools.cache
def import_faiss() -> Any:
    """Imports FAISS, and lets its functions take tensors.

    It is imported late: `acn --help` does not need it, and torch must be imported first, because
    each brings an OpenMP runtime.

    Raises:
        UsageError: FAISS is not installed, or cannot be imported.
    """
    try:
        import faiss
        import faiss.contrib.torch_utils
    except ImportError as error:
        if not (isinstance(error, ModuleNotFoundError) and error.name == "faiss"):
            raise UsageError(f"FAISS cannot be imported: {one_line(error)}.") from error
        raise UsageError(
            "FAISS is not installed: pip install faiss-cpu, or faiss-gpu on a machine with an "
            "NVIDIA GPU and CUDA 12 (one of the two: they share a module name)."
        ) from error
    return faiss


@functools.cache
def gpu_resources(temporary: int) -> Any:
    """FAISS's streams, and `temporary` bytes of scratch memory on each GPU in use. There is one
    object per process, because all indices of a process have the same config.

    Never run on a GPU by this project's tests.
    """
    resources = import_faiss().StandardGpuResources()
    resources.setTempMemory(temporary)
    return resources


def inverted_lists(index: Any) -> Any:
    """The IVF in an index, or None. An index on the GPU is never wrapped."""
    if hasattr(index, "nprobe"):
        return index
    faiss = import_faiss()
    return faiss.try_extract_index_ivf(index) if isinstance(index, faiss.Index) else None


def effort_knob(index: Any) -> tuple[Any, str] | None:
    """The object and the name of its attribute that trade search time for recall; None if the index
    has no such attribute."""
    if (lists := inverted_lists(index)) is not None:
        return lists, "nprobe"
    return (index.hnsw, "efSearch") if hasattr(index, "hnsw") else None


def add_to_lists(index: Any, cells: Int[Tensor, " n"], chunks: Iterable[Tensor]) -> None:
    """Adds codes to an empty IVF on the CPU, and gives its lists exactly the capacity they need.

    FAISS's own `add` grows them by doubling, and holds 1.5 times the memory at the end.

    Args:
        index: trained index with plain lists: see `has_plain_lists`.
        cells: number of the list of each code.
        chunks: the codes, piece by piece.
    """
    swig_ptr = import_faiss().swig_ptr
    for number, size in enumerate(torch.bincount(cells, minlength=index.nlist).tolist()):
        index.invlists.resize(number, size)
        index.invlists.resize(number, 0)  # keeps the capacity
    start = 0
    for codes in chunks:
        some = cells[start : start + len(codes)].long()  # FAISS reads 64 bits
        index.add_core(len(codes), swig_ptr(codes.numpy()), None, swig_ptr(some.numpy()))
        start += len(codes)


def has_plain_lists(index: Any) -> bool:
    """Whether `add_to_lists` takes this index."""
    faiss = import_faiss()
    return isinstance(index, faiss.IndexIVFFlat | faiss.IndexIVFScalarQuantizer)


def save_index(index: Any, path: Path) -> None:
    """Writes an index on the CPU or on a GPU, for `faiss.read_index`.

    Writing from a GPU was never run by this project's tests.
    """
    faiss = import_faiss()
    on_gpu = hasattr(index, "getDevice")
    faiss.write_index(faiss.index_gpu_to_cpu(index) if on_gpu else index, str(path))
