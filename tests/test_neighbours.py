"""The index against brute force; exclusion by row, never by distance."""

import sys
import types

import faiss
import pytest
import torch
from tqdm import tqdm

from acn_lightning.retrieval import exact
from acn_lightning.retrieval import faiss_backend as libfaiss
from acn_lightning.retrieval import index as neighbours
from acn_lightning.retrieval.exact import distances_to, exact_neighbours
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils import progress as bars
from acn_lightning.utils.errors import UsageError


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


@pytest.mark.parametrize("factory", ["auto", "Flat", "IVF4,Flat", "HNSW32"])
def test_index_agrees_with_brute_force(factory):
    table = torch.randn(1000, 6)
    rows = torch.randperm(1000)[:200]
    codes = table[rows]
    # with all four lists looked through an IVF is exact
    index = NeighbourIndex(6, k=4, factory=factory, effort=None if factory == "auto" else 200)
    index.build(table, rows)
    queries = torch.randn(30, 6)
    assert torch.equal(index.search(queries), brute_force(codes, rows, queries, 4))
    own = index.search(codes, exclude=rows)
    assert torch.equal(own, brute_force(codes, rows, codes, 4, exclude=rows))
    written = torch.full((1000, 4), -1, dtype=torch.int32)
    index.write_neighbours(written, rows)
    assert torch.equal(written[rows].long(), own)
    assert (written < 0).all(1).sum() == 800


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
    index = NeighbourIndex(1, k=4, factory="IVF20,Flat", effort=1)
    index.build(codes, rows)
    found = index.search(codes, exclude=rows)
    assert ((found >= 0) & (found != rows[:, None])).all()
    assert torch.equal(found, brute_force(codes, rows, codes, 4, exclude=rows))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "neighbours.k: 0"),
        ({"factory": "Flt"}, "neighbours.factory: .*'Flt'"),
        ({"effort": 0}, "neighbours.effort: 0"),
        ({"memory_mb": 0}, "neighbours.memory_mb: 0"),
        ({"recall": 9.5}, "neighbours.recall: 9.5"),
        ({"float16": True, "factory": "Flat"}, "neighbours.float16 .*factory=auto.*SQfp16"),
        ({"device": "cuda"}, "neighbours.device: 'cuda' is not one of auto, cpu, gpu"),
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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'faiss'", name="faiss"),
         r"pip install faiss-cpu, or faiss-gpu "),
        (ImportError("libcublas.so.12: cannot open shared object file", name="_swigfaiss"),
         r"^FAISS cannot be imported: libcublas\.so\.12: cannot open shared object file\.$"),
        (ModuleNotFoundError("No module named 'packaging'", name="packaging"),
         r"^FAISS cannot be imported: No module named 'packaging'\.$"),
    ],
)  # fmt: skip
def test_no_faiss_names_its_two_packages_and_a_broken_one_its_fault(monkeypatch, error, said):
    class Finder:
        def find_spec(self, name, *_):
            if name == "faiss":
                raise error

    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    libfaiss.import_faiss.cache_clear()
    try:
        with pytest.raises(UsageError, match=said):
            NeighbourIndex(3)
    finally:
        libfaiss.import_faiss.cache_clear()


class TestSizes:
    """The search is chosen by size, measured, and held to a memory."""

    @pytest.fixture(autouse=True)
    def _small_is_large(self, monkeypatch):
        monkeypatch.setattr(neighbours, "FLAT_UP_TO", {"cpu": 1000, "gpu": 1000})

    @staticmethod
    def clustered(n=3000, code_size=8):
        """Codes with a structure: on a sheet of two dimensions, about ten centres."""
        flat = torch.randn(10, 2)[torch.randint(10, (n,))] + 0.3 * torch.randn(n, 2)
        return torch.tanh(flat @ torch.randn(2, 16)) @ torch.randn(16, code_size)

    def recall(self, index, codes):
        """Against sets from a naive search; codes are all different here."""
        rows = torch.arange(len(codes))
        distances = torch.cdist(codes.double(), codes.double()).fill_diagonal_(torch.inf)
        true = distances.topk(index.k, largest=False).indices
        found = index.search(codes, exclude=rows)
        hits = (found[:, :, None] == true[:, None]).any(2)
        return float(hits.double().mean())

    def test_few_codes_are_compared_all_with_all(self):
        index = NeighbourIndex(8)
        index.build(self.clustered(1000), torch.arange(1000))
        assert index.made == "Flat"
        assert index.tune() == 1.0

    def test_many_codes_are_put_into_lists_and_the_recall_wanted_is_reached(self):
        codes, efforts = self.clustered(), []
        for wanted in (0.5, 0.95, 0.999):
            index = NeighbourIndex(8, recall=wanted)
            index.build(codes, torch.arange(3000))
            measured = index.tune()
            assert index.made == "IVF256,Flat"  # the power of two next to 4 sqrt(3000) = 219
            assert measured >= wanted
            assert self.recall(index, codes) == pytest.approx(measured, abs=0.02)
            efforts.append(index.index.nprobe)
        assert efforts == sorted(efforts)
        assert efforts[0] == 8
        assert efforts[-1] <= 32

    def test_codes_without_structure_are_compared_all_with_all(self):
        codes = torch.randn(3000, 32)
        index = NeighbourIndex(32)
        index.build(codes, torch.arange(3000))
        assert index.made == "IVF256,Flat"
        assert index.tune() == 1.0
        assert index.made == "Flat"
        assert self.recall(index, codes) > 0.999

    @pytest.mark.parametrize("factory", ["auto", "IVF64,Flat", "HNSW8", "PCA7,IVF64,Flat"])
    def test_an_effort_that_is_fixed_is_left_alone_and_its_recall_told(self, factory):
        codes = self.clustered()
        index = NeighbourIndex(8, factory=factory, effort=1)
        index.build(codes, torch.arange(3000))
        measured = index.tune()
        assert measured < 0.95
        assert self.recall(index, codes) == pytest.approx(measured, abs=0.04)
        assert "neighbours.effort, now 1" in index.advice()
        free = NeighbourIndex(8, factory=factory)
        free.build(codes, torch.arange(3000))
        assert free.tune() >= 0.95

    def test_an_index_that_cannot_do_better_says_so(self):
        index = NeighbourIndex(8, factory="PQ2x4")
        index.build(self.clustered(), torch.arange(3000))
        assert index.tune() < 0.9
        assert "another neighbours.factory than PQ2x4" in index.advice()

    def test_the_same_codes_make_the_same_index(self):
        codes, rows, tables = self.clustered(), torch.arange(3000), []
        for seed in (3, 3, 4):
            index = NeighbourIndex(8, seed, effort=1)
            index.build(codes, rows)
            index.tune()
            tables.append(index.search(codes, exclude=rows))
        assert torch.equal(tables[0], tables[1])
        assert not torch.equal(tables[0], tables[2])

    def test_half_the_bits(self):
        codes = self.clustered()
        for size, made in [(900, "Flat"), (3000, "IVF256,Flat")]:
            index = NeighbourIndex(8, float16=True)
            index.build(codes[:size], torch.arange(size))
            assert index.tune() >= 0.95
            assert index.made == made
            assert neighbours.import_faiss().serialize_index(index.index).nbytes < 40 * size
            assert self.recall(index, codes[:size]) > 0.94

    @pytest.mark.parametrize("factory", ["IVF32,Flat", "IVF32,SQfp16"])
    def test_lists_with_just_the_room_they_need_hold_what_faiss_puts_into_them(self, factory):
        codes = self.clustered()
        index = NeighbourIndex(8, factory=factory)
        index.build(codes, torch.arange(3000))
        filled = index.index
        other = faiss.clone_index(filled)
        other.reset()
        other.add(codes.numpy())
        for one in (filled, other):
            one.nprobe = 32
        assert filled.ntotal == 3000
        for expected, found in zip(other.search(codes, 4), filled.search(codes, 4), strict=True):
            assert torch.equal(expected, found)

    def test_equal_codes_are_equally_near_and_no_fault_of_the_recall(self):
        index = NeighbourIndex(8, factory="IVF4,Flat", effort=1)
        index.build(self.clustered(60).repeat(40, 1), torch.arange(2400))
        assert index.tune() == 1.0

    def test_the_memory_bounds_what_is_searched_at_once(self, monkeypatch):
        codes, rows = self.clustered(), torch.arange(3000)
        whole, little = NeighbourIndex(8, k=3), NeighbourIndex(8, k=3, memory_mb=1)
        little.memory = 2 * 192 * 100  # a hundred codes of 8 numbers with four answers each
        tables = []
        for index in (whole, little):
            index.build(codes, rows)
            index.tune()
            sizes = []
            search = index.search
            monkeypatch.setattr(
                index,
                "search",
                lambda q, seen=sizes, go=search, **o: seen.append(len(q)) or go(q, **o),
            )
            table = torch.zeros(3000, 3, dtype=torch.int32)
            index.write_neighbours(table, rows)
            tables.append(table)
        assert sizes == [100] * 30
        assert torch.equal(*tables)

    def test_progress_is_shown_by_rank_0_where_it_lasts(self, capsys, monkeypatch):
        made = []

        def bar(*arguments, **options):
            made.append(options)
            return tqdm(*arguments, **(options | {"delay": 0, "mininterval": 0}))

        monkeypatch.setattr(bars, "tqdm", bar)
        index, rows = NeighbourIndex(8), torch.arange(500)
        for show in (False, True):
            monkeypatch.setattr(bars, "is_rank_zero", lambda show=show: show)
            index.build(self.clustered(500), rows)
            index.write_neighbours(torch.zeros(500, 5, dtype=torch.int32), rows)
            shown = capsys.readouterr().err
            assert ("searching neighbours: 100%" in shown) == show
        assert all(options["delay"] == 3 for options in made)


@pytest.mark.parametrize("memory", [1, 2000, 2**29])
def test_exact_neighbours_in_blocks_of_any_size(memory):
    codes = torch.randn(120, 4)
    rows = torch.randperm(120)[:70]
    found = exact_neighbours(codes[rows], codes, rows, 6, exclude=rows, memory=memory)
    assert torch.equal(found, brute_force(codes[rows], rows, codes[rows], 6, exclude=rows))
    queries = torch.randn(9, 4)
    found = exact_neighbours(queries, codes, rows, 6, memory=memory)
    assert torch.equal(found, brute_force(codes[rows], rows, queries, 6))


@pytest.mark.parametrize(("limit", "sizes"), [(100, [6, 6, 6, 2]), (1, [1] * 20), (2**24, [20])])
def test_distances_hold_so_many_differences_at_once(monkeypatch, limit, sizes):
    codes, queries, rows = torch.randn(30, 4), torch.randn(20, 4), torch.randint(30, (20, 4))
    expected = torch.cdist(queries.double(), codes.double()).gather(1, rows).float()
    seen, norm = [], torch.linalg.vector_norm
    monkeypatch.setattr(
        torch.linalg, "vector_norm", lambda x, **o: seen.append(len(x)) or norm(x, **o)
    )
    monkeypatch.setattr(exact, "DIFFERENCES", limit)
    torch.testing.assert_close(distances_to(queries, codes, rows), expected)
    assert seen == sizes
    assert distances_to(queries[:0], codes, rows[:0]).shape == (0, 4)


class OnGpu:
    """An index that says where it is, as FAISS's for the GPU do."""

    def __init__(self, index):
        self.index = index

    def getDevice(self):  # noqa: N802
        return 3

    def search(self, queries, k):
        assert k <= 2048, "FAISS does not search so many on the GPU"
        return self.index.search(queries, k)

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

        def to_gpu(resources, device, index, options):
            calls.append(("to_gpu", resources, device))
            return index if isinstance(index, faiss.IndexPreTransform) else OnGpu(index)

        stand_in.StandardGpuResources, stand_in.index_cpu_to_gpu = Resources, to_gpu
        stand_in.GpuClonerOptions = types.SimpleNamespace
        for module in (libfaiss, neighbours):
            monkeypatch.setattr(module, "import_faiss", lambda: stand_in)
        libfaiss.gpu_resources.cache_clear()
        yield calls
        libfaiss.gpu_resources.cache_clear()

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
        assert memory == ("memory", 64 * 2**20)
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

    def test_more_answers_than_the_gpu_gives_are_searched_exactly(self, calls, monkeypatch):
        codes, rows = torch.randn(2100, 3), torch.randperm(2100)
        index = NeighbourIndex(3, k=2)
        self.on_gpu(monkeypatch, index)
        index.build(codes, rows)
        assert index.gpu is not None
        for k, exclude in ((2048, None), (2049, None), (2047, rows[:9]), (2048, rows[:9])):
            queries = codes[:9] if exclude is None else codes[exclude]
            found = index.search(queries, exclude, k)
            assert found.shape == (9, k)
            near = torch.cdist(queries.double(), codes.double())
            if exclude is not None:
                near[torch.arange(9), exclude] = torch.inf
            nearest = near.topk(k, largest=False).values  # rounding may let two change places
            torch.testing.assert_close(near.gather(1, found), nearest, rtol=1e-4, atol=1e-4)

    def test_what_faiss_has_for_the_cpu_only_falls_back_with_a_warning(self, calls, monkeypatch):
        def refuse(resources, device, index, options):
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
    for options in ({"factory": "IVF64,Flat"}, {"float16": True}):
        index = NeighbourIndex(16, device="gpu", **options)
        index.build(codes.cuda(), rows.cuda())
        assert index.tune() >= 0.95
