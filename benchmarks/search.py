"""Compares the neighbour search of an epoch boundary with other implementations.

The codes are synthetic, but resemble trained ones in what a search depends on: they lie near a
smooth surface of few dimensions, on which classes form clusters. A random network of one hidden
layer maps latents of 8 numbers around 10 centres to D numbers of standard deviation 3; noise of 0.1
is added. (Independent Gaussian numbers in 64 dimensions have no structure that an index could use.)
"""

import math
from collections.abc import Callable, Iterator

import torch as pytorch
from torch import Tensor

from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.faiss_backend import import_faiss
from acn_lightning.retrieval.index import NeighbourIndex
from benchmarks import references
from benchmarks.measure import Figure, alternate

N = 60_000

Search = Callable[[Tensor, int], Tensor]
"""Maps codes and K to the K nearest of each code, itself included."""


def refresh(code_size: int, size: int = N, repeats: int = 5) -> Figure:
    """Compares exact search with bare FAISS: the boundary's overhead."""
    return boundary(references.flat_search, "<= 1.1", code_size, size, repeats, factory="Flat")


def sklearn(code_size: int, size: int = N, repeats: int = 3) -> Figure:
    """Compares default options with scikit-learn."""
    return boundary(references.sklearn_search, ">= 5", code_size, size, repeats)


def torch(code_size: int, size: int = N, repeats: int = 3) -> Figure:
    """Compares default options with `torch.cdist` and `topk`."""
    return boundary(references.cdist_search, ">= 1", code_size, size, repeats)


def boundary(
    search: Search, target: str, code_size: int, size: int, repeats: int, factory: str = "auto"
) -> Figure:
    """Compares all of `CodeBank.refresh`, just after an epoch has written every code, with another
    search for the K nearest and the code itself."""
    bank = bank_of(size, code_size)
    index = NeighbourIndex(code_size, factory=factory)
    timed = alternate(
        lambda: bank.refresh(index),
        lambda: search(bank.codes, index.k + 1),
        repeats,
        prepare=lambda: bank.written.fill_(bank.boundary),  # else there is nothing to synchronise
    )
    recall = overlap(bank.require_neighbours(), others(timed.reference, bank.rows))
    return Figure(
        timed.ours_s,
        timed.reference_s,
        target,
        f"N = {size:,}, D = {code_size}, {index.made}, recall {recall:.4f}",
        {"index": index.made, "recall": recall},
    )


# ---------------------------------------------------------------- codes


def bank_of(size: int, code_size: int) -> CodeBank:
    """Returns a bank as after an epoch of training, placed as in a run: on the GPU if FAISS can use
    it, else on the CPU."""
    on_gpu = pytorch.cuda.is_available() and import_faiss().get_num_gpus() > 0
    rows = pytorch.arange(size)
    bank = CodeBank(rows % 10, rows, code_size).to(pytorch.device("cuda:0" if on_gpu else "cpu"))
    for some, codes in made_up_codes(size, code_size):
        bank.write(some.to(bank.rows.device), codes.to(bank.codes.device))
    return bank


def made_up_codes(
    size: int, code_size: int, hidden: int = 64, seed: int = 0, at_once: int = 2**12
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (rows, their codes) in chunks too small to affect a process's peak memory."""
    generator = pytorch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return pytorch.randn(*shape, generator=generator)

    centres, into, out = 2 * normal(10, 8), normal(8, hidden) / 4, normal(hidden, code_size)
    for start in range(0, size, at_once):
        some = pytorch.arange(start, min(start + at_once, size))
        latent = centres[some % 10] + normal(len(some), 8)
        # tanh of these has a variance of about a half.
        smooth = (latent @ into).tanh() @ out * (3 * math.sqrt(2 / hidden))
        yield some, smooth + 0.1 * normal(len(some), code_size)


# ---------------------------------------------------------------- recall


def others(found: Tensor, rows: Tensor) -> Tensor:
    """Removes the row itself from its answers, (n, K) from (n, K + 1). If it is not among them,
    because of exact duplicates, removes the last answer."""
    own = found == rows[:, None].to(found.device)
    own[~own.any(1), -1] = True
    return found[~own].view(len(found), -1)


def overlap(found: Tensor, true: Tensor) -> float:
    """Returns the share of the true neighbours that was found."""
    found, true = found.to(true.device), true
    return float((true[:, :, None] == found[:, None]).any(2).double().mean())
