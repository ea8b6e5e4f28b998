"""Pixels are where they belong."""

import numpy as np
import torch

from acn_lightning.inference.pictures import grid


def test_every_image_is_enlarged_at_its_place():
    rows = torch.rand(2, 3, 1, 8, 8)
    picture = np.asarray(grid(rows, apart=1))
    assert picture.shape == (2 * 58 + 2, 3 * 58 + 2 + 10)
    for i in range(2):
        for j in range(3):
            left = 2 + j * 58 + (10 if j else 0)
            patch = picture[2 + i * 58 :, left:][:56:7, :56:7]
            assert np.array_equal(patch, (rows[i, j, 0] * 255).round().byte().numpy())
    assert (picture[:, 58:70] == 255).all()  # the gap


def test_colour_and_large_images():
    assert grid(torch.zeros(1, 2, 3, 64, 64)).size == (2 * 66 + 2, 66 + 2)
    assert grid(torch.zeros(1, 2, 3, 64, 64)).mode == "RGB"
