"""What the encoder sees while training."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from acn_lightning.callbacks import AverageWeights, RefreshNeighbours, WarnOfFaults
from acn_lightning.config.compose import compose
from acn_lightning.data import Batch
from acn_lightning.data.augment import RECIPES, AffineMap, Augmentation, transform_sizes
from acn_lightning.experiment.build import read_data
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK, only_run
from tests.test_module import digits, trainer


def augmentation(recipe, shape=(1, 9, 9), strength=0.0, **transforms):
    return Augmentation(recipe, transform_sizes(recipe, strength, transforms), shape)


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 9, 12)])
@pytest.mark.parametrize("recipe", ["affine", "colour"])
def test_at_strength_0_images_stay_as_they_are(recipe, shape):
    images = torch.rand(6, *shape)
    torch.testing.assert_close(augmentation(recipe, shape)(images), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 9, 12)])
@pytest.mark.parametrize("recipe", ["affine", "colour"])
def test_copies_differ_and_stay_images(recipe, shape):
    image = torch.rand(1, *shape).repeat(20, 1, 1, 1)
    views = augmentation(recipe, shape, 1.0)(image)
    assert views.shape == image.shape
    assert views.min() >= 0
    assert views.max() <= 1
    assert len(torch.unique(views.flatten(1), dim=0)) == 20


def test_a_shift_moves_the_content_by_as_much_as_it_says():
    image = torch.zeros(400, 1, 41, 41)
    image[:, :, 20, 20] = 1
    views = augmentation("affine", (1, 41, 41), shift=0.1)(image)
    places = torch.arange(41.0)
    for dim in (2, 3):
        other = 5 - dim
        moved = (views.sum((1, other)) * places).sum(1) / views.sum((1, 2, 3)) - 20
        assert 3 < moved.abs().max() <= 4.2  # a tenth of 41
        assert abs(float(moved.mean())) < 0.5


def test_an_affine_map_is_shear_rotation_scale_and_shift():
    height, width, radians = 9, 12, math.pi / 180
    sizes = {"rotation": 40.0, "scale": 0.3, "shift": 0.2, "shear": 50.0, "flip": 0.5}
    torch.manual_seed(0)
    found = AffineMap(sizes).from_output(50, height, width, torch.device("cpu")).double().numpy()
    torch.manual_seed(0)
    draws = torch.rand(7, 50).double().numpy()
    to_pixels = np.diag([width / 2, height / 2, 1])
    for draw, map_ in zip(draws.T, found, strict=True):
        angle, scale, across, down, shear_x, shear_y = 2 * draw[:6] - 1
        sine, cosine = np.sin(angle * 40 * radians), np.cos(angle * 40 * radians)
        rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        along_x = np.array([[1, np.tan(shear_x * 50 * radians), 0], [0, 1, 0], [0, 0, 1]])
        along_y = np.array([[1, 0, 0], [np.tan(shear_y * 50 * radians), 1, 0], [0, 0, 1]])
        grow = np.diag([1 + 0.3 * scale, 1 + 0.3 * scale, 1])
        mirror = np.diag([-1 if draw[6] < 0.5 else 1, 1, 1])
        shift = np.array([[1, 0, 0.2 * across * width], [0, 1, 0.2 * down * height], [0, 0, 1]])
        forward = shift @ grow @ rotation @ along_y @ along_x @ mirror
        expected = np.linalg.inv(to_pixels) @ np.linalg.inv(forward) @ to_pixels
        np.testing.assert_allclose(map_, expected[:2], atol=1e-5)


def test_a_mirror_image():
    images = torch.rand(4, 3, 5, 6)
    views = augmentation("colour", (3, 5, 6), flip=1.0)(images)
    torch.testing.assert_close(views, images.flip(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.augment=afine"], "Did you mean 'affine'?"),
        (["data.augment=affine", "data.augment_strength=-1"], "data.augment_strength: -1.0"),
        (["data.augment=affine", "data.augment_strength=9"], "data.augment_strength: a scale of"),
        (["data.augment=affine", "data.augment_transforms.rotate=9"], "Did you mean 'rotation'?"),
        (["data.augment=affine", "data.augment_transforms.flip=2"], "a flip of 2 is not between 0"),
        (["data.augment=affine", "data.augment_transforms.flip=yes"], "not a number"),
        (["data.augment_transforms.flip=0.5"], "data.augment=none has none"),
    ],
)
def test_wrong_recipes_are_refused_in_a_line(words, message):
    with pytest.raises(UsageError) as error:
        read_data(compose("digits", ["data.augment=none", *words]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_all_recipes_are_documented():
    assert list(RECIPES) == ["none", "affine", "colour"]


class Training:
    training = True


@pytest.mark.parametrize("how", ["none", "threshold", "static", "dynamic"])
def test_the_decoder_describes_the_image_and_the_encoder_sees_a_copy_of_its_kind(how):
    words = ["data.augment=affine", f"data.binarisation={how}"]
    data = read_data(compose("digits", words))
    stored = data.train_set.__getitems__(range(64))
    as_it_is = data.on_after_batch_transfer(stored, 0)
    assert as_it_is.view is None
    data.trainer = Training()
    batch = data.on_after_batch_transfer(stored, 0)
    assert batch.view.shape == batch.image.shape
    assert not torch.equal(batch.view, batch.image)
    if how != "dynamic":
        assert torch.equal(batch.image, stored.image / 255)
    if how != "none":
        assert set(batch.view.unique().tolist()) <= {0.0, 1.0}
        assert set(batch.image.unique().tolist()) <= {0.0, 1.0}
    torch.manual_seed(5)
    one = data.on_after_batch_transfer(stored, 0).view
    torch.manual_seed(5)
    assert torch.equal(one, data.on_after_batch_transfer(stored, 0).view)


def test_without_a_recipe_the_encoder_sees_the_image():
    data = read_data(compose("digits", ["data.augment=none"]))
    data.trainer = Training()
    batch = data.on_after_batch_transfer(data.train_set.__getitems__(range(8)), 0)
    assert isinstance(batch, Batch)
    assert batch.view is None


def test_a_run_draws_what_the_encoder_sees(acn):
    words = [*QUICK, "data.augment=affine", "trainer.max_epochs=1", "evaluation.linear=none"]
    assert acn("fit", "digits", *words)[0] == 0
    picture = np.asarray(Image.open(only_run() / "images" / "augmented.png"))
    assert picture.ndim == 2
    assert picture.std() > 10


def test_only_the_images_of_training_steps_are_transformed(monkeypatch):
    """Passes at a boundary, which need the images as they are, transform none."""
    data, module = digits("data.subset=200", "data.augment=affine", "data.validation=40")
    taken = []

    def transformed(image):
        taken.append(len(image))

    monkeypatch.setattr(data, "transformed", transformed)
    callbacks = [RefreshNeighbours(), AverageWeights(decay=0.9), WarnOfFaults()]
    trainer(*callbacks, max_epochs=2).fit(module, datamodule=data)
    assert sum(taken) == 2 * len(data.rows)
