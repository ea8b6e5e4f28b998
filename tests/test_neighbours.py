"""The index against brute force; exclusion by row, never by distance."""

import sys
import types

import faiss
import pytest
import torch

from acn_lightning import neighbours
from acn_lightning.errors import UsageError
from acn_lightning.neighbours import NeighbourIndex


def brute_force(codes, rows, queries, k, exclude=None):
    answers = []
    for i, query in enumerate(queries):
        candidates = sorted(
            (float((query - code).square().sum()), position)
            for position, code in enumerate(codes)
            if exclude is None or rows[position] != exclude[i]
        )
        answers.append([int(rows[position]) for _, position in candidates[:k]])
    return torch.tensor(answers)


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW32"])
def test_index_agrees_with_brute_force(factory):
    codes = torch.randn(200, 6)
    rows = torch.randperm(1000)[:200]
    index = NeighbourIndex(6, k=4, factory=factory)
    index.build(codes, rows)
    if factory.startswith("IVF"):
        faiss.ParameterSpace().set_index_parameter(index.index, "nprobe", 4)  # then it is exact
    queries = torch.randn(30, 6)
    assert torch.equal(index.search(queries), brute_force(codes, rows, queries, 4))
    own = index.search(codes, exclude=rows)
    assert torch.equal(own, brute_force(codes, rows, codes, 4, exclude=rows))


def test_a_row_is_never_its_own_neighbour_among_exact_duplicates():
    # Five distinct images, each there twelve times: more duplicates than K + 1.
    codes = torch.randn(5, 3).repeat(12, 1)
    rows = torch.arange(60)
    index = NeighbourIndex(3, k=4)
    index.build(codes, rows)
    found = index.search(codes, exclude=rows)
    assert (found != rows[:, None]).all()
    # its duplicates are legitimate, and nearest
    assert (found % 5 == rows[:, None] % 5).all()
    assert all(len(set(row)) == 4 for row in found.tolist())


def test_all_codes_equal():
    rows = torch.arange(30)
    index = NeighbourIndex(2, k=29)
    index.build(torch.zeros(30, 2), rows)
    found = index.search(torch.zeros(30, 2), exclude=rows)
    assert all(
        sorted(row) == [r for r in range(30) if r != i] for i, row in enumerate(found.tolist())
    )


def test_what_an_approximate_index_does_not_find_is_searched_exactly():
    # Far-away clusters of 2: the probed list never holds 4 others.
    codes = torch.arange(20.0).repeat_interleave(2)[:, None] * 100 + torch.rand(40, 1)
    rows = torch.arange(40)
    index = NeighbourIndex(1, k=4, factory="IVF20,Flat")
    index.build(codes, rows)
    found = index.search(codes, exclude=rows)
    assert ((found >= 0) & (found != rows[:, None])).all()
    assert torch.equal(found, brute_force(codes, rows, codes, 4, exclude=rows))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "neighbours.k: 0"),
        ({"factory": "Flt"}, "neighbours.factory: .*'Flt'"),
        ({"device": "cuda"}, "neighbours.device: 'cuda' is none of auto, cpu, gpu"),
        ({"device": "gpu"}, "sees no GPU"),
    ],
)
def test_wrong_options_are_refused(options, message):
    if options.get("device") == "gpu" and faiss.get_num_gpus():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match=message):
        NeighbourIndex(3, **options)


def test_search_before_build_is_refused():
    with pytest.raises(UsageError, match="RefreshNeighbours"):
        NeighbourIndex(3).search(torch.randn(2, 3))


def test_too_few_codes_are_refused():
    index = NeighbourIndex(3, k=5)
    with pytest.raises(UsageError, match=r"neighbours\.k: 5 .* there are 5"):
        index.build(torch.randn(5, 3), torch.arange(5))
    clustered = NeighbourIndex(3, k=5, factory="IVF64,Flat")
    message = r"FAISS cannot build 'IVF64,Flat' from 20 codes: Number of training points"
    with pytest.raises(UsageError, match=message):
        clustered.build(torch.randn(20, 3), torch.arange(20))


def test_no_faiss_names_the_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    neighbours.import_faiss.cache_clear()
    try:
        with pytest.raises(UsageError, match=r"acn-lightning\[cpu\].*acn-lightning\[gpu\]"):
            NeighbourIndex(3)
    finally:
        neighbours.import_faiss.cache_clear()


class OnGpu:
    """An index that says where it is, as FAISS's for the GPU do."""

    def __init__(self, index):
        self.index = index

    def getDevice(self):  # noqa: N802
        return 3

    def __getattr__(self, name):
        return getattr(self.index, name)


class TestGpuPath:
    """The choices of the GPU path: a stand-in plays FAISS's part and notes the calls. Tensors stay
    on the CPU, so a mix-up of host and device is not found here, but by the test below."""

    @pytest.fixture
    def calls(self, monkeypatch):
        calls = []
        stand_in = types.SimpleNamespace(**vars(faiss))
        stand_in.get_num_gpus = lambda: 1

        class Resources:
            def setTempMemory(self, size):  # noqa: N802
                calls.append(("memory", size))

        def to_gpu(resources, device, index):
            calls.append(("to_gpu", resources, device))
            return index if isinstance(index, faiss.IndexPreTransform) else OnGpu(index)

        stand_in.StandardGpuResources, stand_in.index_cpu_to_gpu = Resources, to_gpu
        monkeypatch.setattr(neighbours, "import_faiss", lambda: stand_in)
        neighbours.gpu_resources.cache_clear()
        yield calls
        neighbours.gpu_resources.cache_clear()

    def on_gpu(self, monkeypatch, index, device=3):
        """The codes lie on a GPU, for all that the index asks them."""
        choose = index._choose_gpu
        monkeypatch.setattr(index, "_choose_gpu", lambda _: choose(torch.device("cuda", device)))

    def test_the_index_goes_to_the_gpu_of_the_codes_with_one_resource_object(
        self, calls, monkeypatch
    ):
        for _ in range(2):
            index = NeighbourIndex(3, k=2)
            self.on_gpu(monkeypatch, index)
            index.build(torch.randn(10, 3), torch.arange(10))
            assert index.search(torch.randn(4, 3)).shape == (4, 2)
        memory, *moves = calls
        assert memory == ("memory", 256 * 2**20)
        assert [device for _, _, device in moves] == [3, 3]
        assert moves[0][1] is moves[1][1]

    def test_cpu_is_respected_on_a_machine_with_a_gpu(self, calls, monkeypatch):
        index = NeighbourIndex(3, k=2, device="cpu")
        self.on_gpu(monkeypatch, index)
        index.build(torch.randn(10, 3), torch.arange(10))
        assert calls == []

    @pytest.mark.parametrize(("factory", "k"), [("PCA2,Flat", 2), ("Flat", 2048)])
    def test_what_the_gpu_cannot_search_falls_back(self, calls, monkeypatch, factory, k):
        index = NeighbourIndex(3, k=k, factory=factory)
        self.on_gpu(monkeypatch, index)
        with pytest.warns(UserWarning, match="using the CPU"):
            index.build(torch.randn(2100, 3), torch.arange(2100))
        assert index.gpu is None
        assert index.search(torch.randn(4, 3)).shape == (4, k)

    def test_what_faiss_has_for_the_cpu_only_falls_back_with_a_warning(self, calls, monkeypatch):
        def refuse(resources, device, index):
            raise RuntimeError("This index type is not implemented on GPU")

        monkeypatch.setattr(neighbours.import_faiss(), "index_cpu_to_gpu", refuse)
        index = NeighbourIndex(3, k=2, factory="HNSW8")
        self.on_gpu(monkeypatch, index)
        with pytest.warns(UserWarning, match="using the CPU"):
            index.build(torch.randn(10, 3), torch.arange(10))
        assert index.search(torch.randn(4, 3)).shape == (4, 2)

        strict = NeighbourIndex(3, k=2, factory="HNSW8", device="gpu")
        self.on_gpu(monkeypatch, strict)
        with pytest.raises(UsageError, match=r"does not search 'HNSW8' .* on the GPU"):
            strict.build(torch.randn(10, 3), torch.arange(10))

    def test_gpu_asked_for_and_codes_on_the_cpu(self, calls):
        index = NeighbourIndex(3, k=2, device="gpu")
        with pytest.raises(UsageError, match=r"trainer\.accelerator=gpu"):
            index.build(torch.randn(10, 3), torch.arange(10))


@pytest.mark.gpu
@pytest.mark.skipif(
    not (torch.cuda.is_available() and faiss.get_num_gpus()), reason="no GPU, or faiss-cpu"
)
def test_gpu_agrees_with_cpu():
    codes, rows = torch.randn(5000, 16), torch.arange(5000)
    cpu, gpu = NeighbourIndex(16, device="cpu"), NeighbourIndex(16, device="gpu")
    cpu.build(codes, rows)
    gpu.build(codes.cuda(), rows.cuda())
    assert gpu.gpu is not None
    expected = cpu.search(codes, exclude=rows)
    found = gpu.search(codes.cuda(), exclude=rows.cuda()).cpu()
    assert (found == expected).float().mean() > 0.999  # ties in rounding
