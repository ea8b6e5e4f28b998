"""Splits, orders and floats of the data module."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from acn_lightning.data import ImageData
from acn_lightning.utils.errors import UsageError


def digits(**options):
    data = ImageData(**options)
    data.prepare_data()
    data.setup()
    return data


def test_parts_are_disjoint_and_an_index_is_the_row_in_the_training_set():
    data = digits(validation=200, batch_size=32, binarisation="none")
    training = torch.cat([batch.index for batch in data.train_dataloader()])
    validation = torch.cat([batch.index for batch in data.val_dataloader()])
    assert sorted(torch.cat([training, validation]).tolist()) == list(range(1438))
    assert len(validation) == 200
    assert torch.equal(data.rows, training.sort().values)
    for batch in data.train_dataloader():
        assert torch.equal(batch.image, data.content.train.images[batch.index])
        assert torch.equal(batch.label, data.labels[batch.index])
    # whatever the seed, so that no run trains on what another held out
    assert torch.equal(digits(validation=200, seed=9).rows, data.rows)


def test_order_is_a_function_of_seed_and_epoch():
    def order(data, epoch):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return torch.cat([batch.index for batch in loader]).tolist()

    data = digits()
    torch.manual_seed(1)
    first = order(data, 0)
    assert first != sorted(first)
    assert order(data, 1) != first
    torch.manual_seed(2)
    assert order(digits(), 0) == first
    assert order(digits(seed=1), 0) != first


def test_processes_share_the_images_and_measure_each_once():
    data = digits(validation=101)  # 1,337 to train on: not divisible by 2

    def indices(make):
        shares = []
        for rank in range(2):
            loop = SimpleNamespace(restarted_mid_epoch=False)
            data.trainer = SimpleNamespace(world_size=2, global_rank=rank, fit_loop=loop)
            shares.append(torch.cat([batch.index for batch in make()]).tolist())
        return shares

    first, second = indices(data.train_dataloader)
    assert len(first) == len(second) == 669
    assert set(first) | set(second) == set(data.rows.tolist())
    assert len(set(first) & set(second)) == 1  # the padding
    for make, expected in [
        (data.val_dataloader, data.validation_set.rows),
        (data.test_dataloader, torch.arange(359)),
        (data.encoding_dataloader, torch.arange(len(data.labels))),
    ]:
        assert sorted(itertools.chain(*indices(make))) == expected.tolist()


def test_loading_leaves_the_global_random_numbers_alone():
    data = digits()
    state = torch.get_rng_state()
    for _ in data.train_dataloader():
        pass
    assert torch.equal(torch.get_rng_state(), state)


def test_floats_and_binarisation():
    data = digits(binarisation="dynamic")
    raw = next(iter(data.train_dataloader()))
    assert raw.image.dtype == torch.uint8
    assert len(raw.image.unique()) > 2  # grey: drawn on the device
    held_out = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert set(held_out.image.unique().tolist()) == {0, 1}
    assert torch.equal(data.test_set.images, digits(binarisation="dynamic").test_set.images)
    grey = digits(binarisation="none")
    batch = grey.on_after_batch_transfer(next(iter(grey.encoding_dataloader())), 0)
    assert batch.image.min() == 0
    assert batch.image.max() == 1
    torch.testing.assert_close(batch.image, grey.content.train.images[batch.index] / 255)


def test_no_validation():
    data = digits(validation=0)
    assert len(data.rows) == 1438
    assert data.val_dataloader() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "mnits"}, "Did you mean 'mnist'"),
        ({"binarisation": "statics"}, "Did you mean 'static'"),
        ({"source": "mnist"}, r"data\.root=PATH"),
        ({"source": "fashion_mnist"}, r"source 'fashion_mnist' needs .*: data\.root=PATH"),
        ({"source": "folder"}, r"data\.root=PATH"),
        (
            {"image_size": 32},
            r"source=digits has no .* data\.source=arrays, celeba, folder, huggingface, imagenet\.",
        ),
        (
            {"source": "cifar10", "root": ".", "image_size": 32},
            r"data\.image_size: data\.source=cifar10 has no such option",
        ),
        (
            {"source": "celeba", "root": ".", "channels": 1},
            r"data\.channels: .* It is for data\.source=arrays, folder, huggingface\.",
        ),
        ({"source": "celeba", "root": ".", "image_size": "big"}, "neither a number nor"),
        ({"attribute": "Smiling"}, r"It is for data\.source=celeba\."),
        ({"source": "folder", "root": ".", "channels": 2}, "neither 1"),
        ({"source": "folder", "root": ".", "image_size": [1, 2, 3]}, "neither a number nor"),
        ({"source": "folder", "root": ".", "image_size": -4}, "neither a number nor"),
        ({"batch_size": 0}, "is not from 1 to"),
        ({"validation": -1}, "-1 is neither a fraction .* nor a number of images"),
        ({"validation": 1.5}, "neither a fraction"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError, match=message):
        ImageData(**options)


def test_labels_on_one_part_only(tmp_path):
    images = np.zeros((20, 4, 4), np.uint8)
    np.savez(tmp_path / "half.npz", images=images, labels=np.arange(20) % 2, test_images=images)
    with pytest.raises(UsageError, match=r"only one of .* is labelled"):
        digits(source="npz", root=str(tmp_path / "half.npz"))


def test_validation_that_leaves_nothing():
    with pytest.raises(UsageError, match="leave fewer than 2 to train on"):
        digits(validation=1438)
