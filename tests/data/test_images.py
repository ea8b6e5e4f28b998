"""Batches know their rows; binarisation is fixed by seed and row."""

import pytest
import torch
from torch.utils.data import DataLoader

from acn_lightning.data.binarise import binarise, draw_binary
from acn_lightning.data.dataset import IndexedImages
from acn_lightning.data.loader import keep_whole
from acn_lightning.utils.errors import UsageError


def numbered(size=300):
    """Images whose pixels tell their row, labels likewise."""
    rows = torch.arange(size)
    images = (rows % 256).to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 3).contiguous()
    return images, rows * 7


def test_an_index_means_the_same_image_whatever_the_order():
    images, labels = numbered()
    data = IndexedImages(images, labels, torch.arange(1, 300, 2))
    seen = []
    for batch in DataLoader(data, batch_size=16, shuffle=True, collate_fn=keep_whole):
        assert (batch.image == (batch.index % 256)[:, None, None, None]).all()
        assert (batch.label == batch.index * 7).all()
        assert batch.image.dtype == torch.uint8
        seen += batch.index.tolist()
    assert sorted(seen) == list(range(1, 300, 2))
    assert data[3].index == 7


def test_a_batch_is_gathered_at_once_not_example_by_example(monkeypatch):
    monkeypatch.setattr(IndexedImages, "__getitem__", None)
    images, labels = numbered()
    loader = DataLoader(
        IndexedImages(images, labels, labels // 7), batch_size=64, collate_fn=keep_whole
    )
    assert sum(len(batch.index) for batch in loader) == 300


def test_threshold_and_none():
    images = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert binarise(images, "threshold", 0).flatten().tolist() == [0, 0, 255, 255]
    assert binarise(images, "none", 0) is images


def test_static_is_fixed_by_seed_and_row_and_has_the_grey_values_probability():
    images = torch.full((9000, 1, 2, 2), 51, dtype=torch.uint8)  # a fifth of white
    once = binarise(images, "static", 3)
    assert set(once.unique().tolist()) == {0, 255}
    assert abs((once > 0).float().mean() - 0.2) < 0.01
    assert torch.equal(once, binarise(images, "static", 3))
    assert not torch.equal(once, binarise(images, "static", 4))
    # a row's draw does not depend on how many rows follow it
    assert torch.equal(once[:5000], binarise(images[:5000], "static", 3))


def test_dynamic_draws_afresh():
    grey = torch.full((1000,), 0.3)
    one, other = draw_binary(grey), draw_binary(grey)
    assert not torch.equal(one, other)
    assert abs(one.mean() - 0.3) < 0.06


def test_unknown_binarisation_names_the_known_ones():
    with pytest.raises(UsageError, match="none, threshold, static, dynamic"):
        binarise(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "statik", 0)
