"""What a source of the user's own may return."""

import pytest
import torch

from acn_lightning.data import ImageData, Source, Split, Splits
from acn_lightning.utils.errors import UsageError

BYTES = torch.arange(40 * 6 * 5).remainder(256).byte().view(40, 1, 6, 5)
LABELS = torch.arange(40) % 4
TEST = (BYTES[:10], LABELS[:10])


class Mine(Source):
    def __init__(self, found):
        self.found = found

    def read(self):
        return self.found


def read(found):
    data = ImageData(source=Mine(found), binarisation="none", validation=0)
    data.setup()
    return data


@pytest.mark.parametrize(
    "images",
    [
        BYTES,
        BYTES.numpy(),
        BYTES[:, 0],
        BYTES[:, 0].numpy(),
        BYTES.movedim(1, 3).numpy(),
        BYTES.float() / 255,
        (BYTES.double() / 255).numpy(),
        (BYTES[:, 0] / 255).numpy().astype(">f4"),
    ],
)
@pytest.mark.parametrize(
    "labels", [LABELS, LABELS.numpy(), LABELS.int(), LABELS.tolist(), LABELS.numpy().astype("u1")]
)
def test_what_is_clear_is_converted(images, labels):
    data = read(Splits(Split(images, labels), Split(*TEST), ("a", "b", "c", "d")))
    assert torch.equal(data.fixed_set.images, BYTES)
    assert data.fixed_set.images.dtype == torch.uint8
    assert torch.equal(data.labels, LABELS)
    assert data.labels.dtype == torch.int64


def test_colour_and_truth_values():
    colour = torch.arange(40 * 6 * 5 * 3).remainder(256).byte().view(40, 6, 5, 3)
    data = read(((colour.numpy(), None), (colour[:4].numpy(), None), ()))
    assert torch.equal(data.fixed_set.images, colour.movedim(3, 1))
    assert data.labels.tolist() == [-1] * 40
    assert not data.classes
    masks = BYTES > 100
    assert torch.equal(
        read(((masks, LABELS), (masks[:9], LABELS[:9]), None)).fixed_set.images, masks * 255
    )


def test_classes_are_counted_if_they_have_no_names():
    assert tuple(read(((BYTES, LABELS), TEST, ())).classes) == ("0", "1", "2", "3")
    assert tuple(read(((BYTES, LABELS), TEST, [0, 1, 2, 3])).classes) == ("0", "1", "2", "3")


def test_names_are_kept():
    names = [f"{row}.png" for row in range(40)]
    assert read((Split(BYTES, LABELS, names), TEST, ())).stored_names == tuple(names)


DARK = "images are uint8 and go from 0 to 1 only, which is black"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, r"Mine.read must return Splits\(train, test, classes\), not NoneType"),
        ((BYTES, LABELS), "must return Splits"),
        ((BYTES, BYTES, ()), r"training split must be Split\(images, labels\), not Tensor"),
        (((BYTES, LABELS), None, ()), "test split must be Split"),
        (((BYTES.tolist(), LABELS), TEST, ()), "images are list, not a tensor or an array"),
        ((((BYTES > 100).byte(), LABELS), TEST, ()), DARK),
        (((BYTES.long(), LABELS), TEST, ()), "images are int64"),
        (((BYTES.float(), LABELS), TEST, ()), "must lie between 0 and 1; these go from 0 to 255"),
        (((BYTES / 255 * 2 - 1, LABELS), TEST, ()), "these go from -1 to 1"),
        (((BYTES / 0.0, LABELS), TEST, ()), "must lie between 0 and 1"),
        (((BYTES.expand(-1, 2, -1, -1), LABELS), TEST, ()), r"shape \(40, 2, 6, 5\)"),
        (((BYTES[0, 0], LABELS), TEST, ()), r"shape \(6, 5\)"),
        (((BYTES[:0], LABELS[:0]), TEST, ()), "training split: there are no images"),
        (((BYTES, LABELS), (BYTES[:9, :, :5], LABELS[:9]), ()), "6 x 5 and test images 1 x 5 x 5"),
        (((BYTES, LABELS[:39]), TEST, ()), "training split: 40 images, but 39 labels"),
        (((BYTES, LABELS), (BYTES[:10], LABELS), ()), "test split: 10 images, but 40 labels"),
        (((BYTES, LABELS.float()), TEST, ()), "labels are not whole numbers"),
        (((BYTES, LABELS[:, None]), TEST, ()), "labels are not whole numbers"),
        (((BYTES, LABELS > 1), TEST, ()), "labels are not whole numbers"),
        (((BYTES, ["a"] * 40), TEST, ()), "labels are not whole numbers"),
        (((BYTES, [1, [2]] * 20), TEST, ()), "labels are not whole numbers"),
        (((BYTES, LABELS - 2), TEST, ()), "labels go down to -2"),
        (((BYTES, LABELS), TEST, ("a", "b")), "labels go up to 3, but there are 2 classes"),
        (((BYTES, LABELS, ["a.png"]), TEST, ()), "names must be one for each of 40 images"),
        (((BYTES, LABELS, "a" * 40), TEST, ()), "names must be one for each of 40 images"),
        (((BYTES, None), TEST, ("a", "b", "c", "d")), "only one of the training and"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_in_one_line(found, why):
    with pytest.raises(UsageError, match=why) as error:
        read(found)
    assert "\n" not in str(error.value)


def test_a_dark_data_set_is_not_refused():
    assert read(((BYTES * 0, LABELS), (BYTES[:4] * 0, LABELS[:4]), ())).image_shape == (1, 6, 5)


def test_bytes_of_a_user_are_not_copied():
    array = BYTES.numpy()
    assert read(((array, LABELS), TEST, ())).fixed_set.images.data_ptr() == array.ctypes.data
