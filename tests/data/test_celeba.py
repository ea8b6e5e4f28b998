"""CelebA in the publisher's layout, and each part of it missing or wrong."""

import numpy as np
import pytest
from PIL import Image

from acn_lightning.data import ImageData
from acn_lightning.data.sources.celeba import read_celeba
from acn_lightning.utils.errors import UsageError

PARTS = [0, 0, 1, 0, 2, 2, 1, 0, 2, 0]
SMILES = [1, -1, 1, 1, -1, 1, -1, -1, 1, 1]


@pytest.fixture
def faces(tmp_path):
    """Ten images of 178 x 218: grey inside, black in the 20 rows that a square leaves out."""
    (tmp_path / "img_align_celeba").mkdir()
    for i in range(10):
        pixels = np.zeros((218, 178, 3), np.uint8)
        pixels[20:-20] = 20 + 20 * i
        Image.fromarray(pixels).save(tmp_path / f"img_align_celeba/{i + 1:06}.jpg", quality=95)
    rows = [f"{i + 1:06}.jpg  1 {smile:2} -1" for i, smile in enumerate(SMILES)]
    text = "\n".join(["10", "Bald Smiling Wearing_Hat ", *rows, ""])
    (tmp_path / "list_attr_celeba.txt").write_text(text)
    partition = [f"{i + 1:06}.jpg {part}\n" for i, part in enumerate(PARTS)]
    (tmp_path / "list_eval_partition.txt").write_text("".join(partition))
    return tmp_path


def test_parts_pixels_and_labels(faces):
    source = read_celeba(faces, (8, 8), "Smiling")
    assert source.classes == ("not Smiling", "Smiling")
    for part, number in (source.train, 0), (source.test, 2):
        rows = [i for i in range(10) if PARTS[i] == number]
        grey = np.array([20 + 20 * i for i in rows])[:, None, None, None]
        assert part.images.shape == (len(rows), 3, 8, 8)
        # JPEG is 2 off at most; the outermost pixels have a tenth of what lies beyond them.
        difference = np.abs(part.images.numpy().astype(int) - grey)
        assert difference[:, :, 1:-1].max() <= 4
        assert (difference <= 2 + 0.12 * grey).all()
        assert part.labels.tolist() == [int(SMILES[i] == 1) for i in rows]


def test_another_attribute_and_shape(faces):
    source = read_celeba(faces, (10, 4), "Wearing_Hat")
    assert source.train.images.shape == (5, 3, 10, 4)
    assert source.train.labels.tolist() == [0] * 5
    assert source.classes == ("not Wearing_Hat", "Wearing_Hat")


def test_the_data_module_reads_it(faces):
    options = {"source": "celeba", "root": str(faces), "binarisation": "none"}
    data = ImageData(**options, image_size=4, attribute="Bald", validation=1)
    data.setup()
    assert data.image_shape == (3, 4, 4)
    assert data.classes == ("not Bald", "Bald")
    with pytest.raises(UsageError, match=r"CelebA needs an image size: data\.image_size=64"):
        ImageData(**options).setup()


def test_an_unknown_attribute(faces):
    with pytest.raises(UsageError, match=r"data\.attribute: 'Smilling' .*Did you mean 'Smiling'"):
        read_celeba(faces, (8, 8), "Smilling")


@pytest.mark.parametrize(
    "name", ["img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"]
)
def test_a_missing_part_is_named(faces, name):
    (faces / name).rename(faces / "elsewhere")
    with pytest.raises(UsageError, match=f"has no {name}.*publisher's page"):
        read_celeba(faces, (8, 8), "Smiling")


def test_a_listed_image_that_is_missing_or_damaged(faces):
    path = faces / "img_align_celeba" / "000005.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UsageError, match=r"000005\.jpg cannot be read"):
        read_celeba(faces, (8, 8), "Smiling")
    path.unlink()
    with pytest.raises(UsageError, match=r"has no 000005\.jpg, which list_eval_partition"):
        read_celeba(faces, (8, 8), "Smiling")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("attr_celeba", "10\n", "11\n", "promises 11 images and lists 10"),
        ("attr_celeba", "10\n", "", "does not begin with the number of images"),
        ("attr_celeba", "000002.jpg  1 -1 -1", "000002.jpg  1 -1", r"line 4 of .*3 values of"),
        ("attr_celeba", "000002.jpg  1 -1", "000002.jpg  1 0", r"line 4 of .*3 values of -1 or 1"),
        ("attr_celeba", "000002.jpg", "000003.jpg", "promises 10 images and lists 9"),
        ("attr_celeba", "000002.jpg", "000099.jpg", r"only one of .* has 000002\.jpg"),
        ("eval_partition", "000003.jpg 1", "000003.jpg 3", "line 3 of .*not a name and 0, 1 or 2"),
        ("eval_partition", "000003.jpg 1", "000003.jpg", "line 3 of"),
        ("eval_partition", "000003.jpg 1\n", "", r"only one of .* has 000003\.jpg"),
        ("eval_partition", " 2", " 1", "has no images in part 2"),
    ],
)
def test_wrong_lists(faces, name, old, new, message):
    path = faces / f"list_{name}.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UsageError, match=message) as error:
        read_celeba(faces, (8, 8), "Smiling")
    assert path.name in str(error.value)


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_lists_that_are_no_text(faces, name):
    (faces / name).write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UsageError, match=f"{name} cannot be read as text"):
        read_celeba(faces, (8, 8), "Smiling")
    (faces / name).write_bytes(b"\n")
    with pytest.raises(UsageError, match=f"{name} is empty"):
        read_celeba(faces, (8, 8), "Smiling")
