"""Rows are data-set indices; the table and what it draws; several processes; state."""

import pytest
import torch
import torch.multiprocessing

from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.faiss_backend import import_faiss
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import UsageError
from tests.conftest import bank_of
from tests.processes import bank_with_lists, call, divide_lists, synchronise
from tests.test_experiment import same


def test_codes_start_as_standard_normal_noise_that_the_seed_fixes():
    bank = bank_of(5000, 4)
    assert abs(bank.codes.mean()) < 0.03
    assert abs(bank.codes.std() - 1) < 0.03
    assert torch.equal(bank.codes, bank_of(5000, 4).codes)
    assert not torch.equal(bank.codes, bank_of(5000, 4, seed=1).codes)


def test_write_is_keyed_by_index_in_any_order_and_carries_no_gradient():
    bank = bank_of(10, 2)
    means = torch.arange(20.0).reshape(10, 2).requires_grad_()
    order = torch.randperm(10)
    for part in order.split(3):
        bank.write(part, means[part])
    assert torch.equal(bank.codes, means)
    assert not bank.codes.requires_grad


def test_draw_gives_each_of_the_k_neighbours_equally_often_and_their_present_codes():
    bank = bank_of(30, 2)
    bank.refresh(NeighbourIndex(2, k=4))
    neighbours = bank.require_neighbours()
    bank.write(neighbours[7], torch.arange(8.0).reshape(4, 2))  # after the table was written
    drawn = bank.draw(torch.full((8000,), 7))
    counts = [(drawn == code).all(1).sum().item() for code in torch.arange(8.0).reshape(4, 2)]
    assert sum(counts) == 8000
    assert all(abs(count - 2000) < 4 * 2000**0.5 for count in counts)


def test_draw_without_a_table_names_the_callback():
    with pytest.raises(UsageError, match="RefreshNeighbours"):
        bank_of().draw(torch.tensor([0]))


def test_refresh_writes_the_nearest_rows_of_each_and_reports():
    bank, index = bank_of(20, 3), NeighbourIndex(3, k=2)
    codes = torch.randn(20, 3)
    first = bank.refresh(index)
    assert (first.refreshed, first.unseen) == (0, 20)
    bank.write(torch.arange(20), codes)
    second = bank.refresh(index)
    assert (second.refreshed, second.unseen) == (20, 0)
    distances = torch.cdist(codes, codes).fill_diagonal_(torch.inf)
    assert torch.equal(bank.require_neighbours(), distances.topk(2, largest=False).indices)
    bank.write(torch.tensor([3, 4, 3]), codes[:3])
    assert bank.refresh(index)[:2] == (2, 0)


def test_held_out_rows_are_nobodys_neighbours():
    rows = torch.tensor([0, 2, 3, 5, 8, 9, 11])
    bank = bank_of(12, 2, rows)
    bank.write(torch.arange(12), torch.zeros(12, 2))  # as near as can be
    bank.refresh(NeighbourIndex(2, k=3))
    table = bank.require_neighbours()
    assert set(table[rows].flatten().tolist()) <= set(rows.tolist())
    assert (table[rows] != rows[:, None]).all()
    assert (table[[1, 4, 6, 7, 10]] == -1).all()


def test_noise_is_nobodys_neighbour_once_enough_codes_are_real():
    bank, index = bank_of(40, 2), NeighbourIndex(2, k=3)
    seen = torch.arange(0, 40, 4)
    bank.write(seen, torch.randn(10, 2) + 100)
    bank.refresh(index)
    assert set(bank.require_neighbours().flatten().tolist()) <= set(seen.tolist())


def test_state_goes_through_a_checkpoint_that_is_loaded_safely(tmp_path):
    bank = bank_of()
    bank.write(torch.arange(20), torch.randn(20, 3))
    bank.refresh(NeighbourIndex(3, k=4))
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    other = bank_of(seed=5)
    other.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    assert same(bank.state_dict(), other.state_dict())
    other.codes[:] = 0
    assert bank.codes.any()


@pytest.mark.parametrize(
    "other",
    [
        bank_of(21),
        bank_of(20, 4),
        bank_of(20, 3, range(19)),
        CodeBank(torch.zeros(20).long(), torch.arange(20), 3),
    ],
)
def test_state_of_other_data_is_refused(other):
    with pytest.raises(UsageError, match="belongs to other data"):
        other.load_state_dict(bank_of().state_dict())


@pytest.mark.parametrize("size", [2, 3])
def test_all_processes_hold_the_same_complete_bank_after_a_boundary(tmp_path, size):
    call(synchronise, *((rank, size, str(tmp_path)) for rank in range(size)))
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(size)]
    codes = states[0][0]["codes"]
    distances = torch.cdist(codes, codes).fill_diagonal_(torch.inf)
    nearest = distances.topk(2, largest=False).values
    for rank, (state, refreshed, searched, received) in enumerate(states):
        assert refreshed == 11
        assert torch.equal(state["codes"][:, 0], torch.arange(11.0))
        # each row from the process that had it; of the row that all had, the lowest rank's
        expected = torch.arange(11) % size
        expected[10] = 0
        assert torch.equal(state["codes"][:, 1].long(), expected)
        torch.testing.assert_close(distances.gather(1, state["neighbours"].long()), nearest)
        assert torch.equal(state["neighbours"], states[0][0]["neighbours"])
        # each asked for its share only, and got what the others had: rows, codes and neighbours
        share = [4, 4, 3][rank] if size == 3 else [6, 5][rank]
        assert searched == share
        written = [len(set(range(one, 11, size)) | {10}) for one in range(size)]
        first = [len([*range(one, 10, size)]) + (one == 0) for one in range(size)]
        others = [one for one in range(size) if one != rank]
        rows = sum(8 * written[one] + 8 * first[one] for one in others)
        assert received == rows + 8 * (11 - share)


def test_processes_divide_the_assignment_and_get_the_index_of_one(tmp_path):
    """Three share two chunks of codes, so the first has nothing to assign."""
    call(divide_lists, *((rank, 3, str(tmp_path)) for rank in range(3)))
    bank, alone = bank_with_lists()
    bank.rebuild(alone)
    expected = import_faiss().serialize_index(alone.index).tobytes()
    shares = [[], list(range(50, 550)), list(range(550, 950))]
    for rank, share in enumerate(shares):
        index, found, received = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert index == expected
        assert found == share
        assert received == 4 * (900 - len(share))
