"""FAISS: imported late, its GPU resources, and what its kinds of indices have in common."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acn_lightning.utils.errors import UsageError

MOST_ON_GPU = 2048
"""FAISS's limit to the answers for a query on the GPU; one is spent on the query itself."""


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


@functools.cache
def gpu_resources(temporary: int) -> Any:
    """FAISS's streams and `temporary` bytes of scratch memory on each GPU that is used: one object
    a process, as all its indices are of one config.

    Never run on a GPU by this project's tests.
    """
    resources = import_faiss().StandardGpuResources()
    resources.setTempMemory(temporary)
    return resources


def inverted_lists(index: Any) -> Any:
    """The IVF in an index, or None; one on the GPU is never wrapped."""
    if hasattr(index, "nprobe"):
        return index
    faiss = import_faiss()
    return faiss.try_extract_index_ivf(index) if isinstance(index, faiss.Index) else None


def knob_of(index: Any) -> tuple[Any, str] | None:
    """The object and its attribute that trade a search's time for recall; None for an index that
    has none."""
    if (lists := inverted_lists(index)) is not None:
        return lists, "nprobe"
    return (index.hnsw, "efSearch") if hasattr(index, "hnsw") else None


def add_to_lists(index: Any, chunks: Callable[[str], Iterable[Tensor]]) -> None:
    """Adds codes to an empty IVF on the CPU whose lists then have just the room that they need.

    FAISS's own `add` lets them grow by doubling, and holds 1.5 times the memory at the end.

    Args:
        index: a trained one with plain lists: see `has_plain_lists`.
        chunks: the codes piece by piece, each time it is asked, by what is being done.
    """
    swig_ptr = import_faiss().swig_ptr
    cells = [index.quantizer.search(codes, 1)[1][:, 0] for codes in chunks("finding lists")]
    sizes = torch.bincount(torch.cat(cells), minlength=index.nlist).tolist()
    for number, size in enumerate(sizes):
        index.invlists.resize(number, size)
        index.invlists.resize(number, 0)  # the room stays
    for codes, cell in zip(chunks("filling lists"), cells, strict=True):
        index.add_core(len(codes), swig_ptr(codes.numpy()), None, swig_ptr(cell.numpy()))


def has_plain_lists(index: Any) -> bool:
    """Whether `add_to_lists` takes it."""
    faiss = import_faiss()
    return isinstance(index, faiss.IndexIVFFlat | faiss.IndexIVFScalarQuantizer)


def save_index(index: Any, path: Path) -> None:
    """Writes an index for `faiss.read_index`, wherever it lies.

    The way from a GPU was never run by this project's tests.
    """
    faiss = import_faiss()
    on_gpu = hasattr(index, "getDevice")
    faiss.write_index(faiss.index_gpu_to_cpu(index) if on_gpu else index, str(path))
