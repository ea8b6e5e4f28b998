"""CelebA, aligned and cropped (Liu, Luo, Wang and Tang 2015,
https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html), as published."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from acn_lightning.data.files import decoded_size, identity, published_form, read_images
from acn_lightning.data.pixels import parse_size
from acn_lightning.data.sources.base import (
    Outline,
    Source,
    Split,
    Splits,
    folder_of,
    read_lines,
    require_files,
    require_size,
)
from acn_lightning.data.storage import IN_MEMORY, Storage
from acn_lightning.utils.errors import UsageError, check_choice
from acn_lightning.utils.text import as_text

IMAGES, ATTRIBUTES, PARTITION = (
    "img_align_celeba",
    "list_attr_celeba.txt",
    "list_eval_partition.txt",
)


class CelebASource(Source, kind="celeba"):
    """CelebA, aligned and cropped, see `read_celeba`.

    Args:
        root: the folder of the published files.
        image_size: [height, width] to resize images to; one number for squares; auto is 32.
        attribute: attribute to use as the label; null for "Smiling".
    """

    def __init__(
        self, *, root: str | None = None, image_size: Any = None, attribute: str | None = None
    ) -> None:
        self.root: Path = folder_of(root, "celeba")
        self.image_size, self.attribute = parse_size(image_size), attribute or "Smiling"

    def outline(self) -> Outline | None:
        if self.image_size is None or not (self.root / IMAGES).is_dir():
            return None  # which reading reports
        files = sorted((self.root / IMAGES).iterdir())
        tables = [path for name in (ATTRIBUTES, PARTITION) if (path := self.root / name).is_file()]
        known = identity([*files, *tables], self.image_size, self.attribute)
        return Outline(len(files) * decoded_size(files, published_form(self.image_size)), known)

    def read(self) -> Splits:
        return read_celeba(self.root, self.image_size, self.attribute, self.storage)


def read_celeba(
    root: Path, image_size: Sequence[int] | None, attribute: str, storage: Storage = IN_MEMORY
) -> Splits:
    """Reads a folder with `img_align_celeba/` (000001.jpg ...), `list_attr_celeba.txt` and
    `list_eval_partition.txt`. The publisher's partition 0 is the training split and 2 the test
    split. Partition 1, for validation, is not used: as for every source, validation images are held
    out from training.

    Args:
        root: the folder.
        image_size: (height, width) to resize the 178 x 218 pixels to. A square gives the usual
            centre crop of 178 x 178. None is refused.
        attribute: which of the 40 attributes to use as the label: 1 for images that have it, else
            0.
        storage: where the images are to lie.

    Returns:
        Images (N, 3, *image_size); the classes "not ATTRIBUTE" and "ATTRIBUTE".

    Raises:
        UsageError: a file is missing, damaged or names a missing image; there is no such
            attribute; or no size is given.
    """
    size = require_size(image_size, "CelebA")
    require_files(
        root, (f"{IMAGES}/", ATTRIBUTES, PARTITION), "Get them from the publisher's page of CelebA."
    )
    values = read_attribute(root / ATTRIBUTES, attribute)
    partition = read_partition(root / PARTITION)
    if values.keys() != partition.keys():
        odd = min(values.keys() ^ partition.keys())
        raise UsageError(
            f"data.root: in {root}, only one of {ATTRIBUTES} and {PARTITION} has {odd}."
        )
    present = {path.name for path in (root / IMAGES).iterdir()}
    parts, form = [], published_form(size)
    for number in "02":
        names = [name for name, part in partition.items() if part == number]
        if not names:
            raise UsageError(f"data.root: {root / PARTITION} has no images in part {number}.")
        if absent := next((name for name in names if name not in present), None):
            raise UsageError(
                f"data.root: {root / IMAGES} has no {absent}, which {PARTITION} names. Unpack the "
                "images again."
            )
        files = [root / IMAGES / name for name in names]
        labels = torch.tensor([values[name] for name in names])
        parts.append(Split(read_images(files, form, storage), labels, tuple(map(as_text, files))))
    return Splits(parts[0], parts[1], (f"not {attribute}", attribute))


def read_attribute(path: Path, attribute: str) -> dict[str, int]:
    """Returns 1 for each image that has the attribute, 0 for the others. The file's first line is
    the number of images, the second the attributes' names. The rest are NAME and, for each
    attribute, -1 or 1."""
    lines = read_lines(path)
    if len(lines) < 2 or not lines[0].strip().isdecimal():
        raise UsageError(
            f"data.root: {path} does not begin with the number of images and the attributes' names."
        )
    names = lines[1].split()
    check_choice("data.attribute", attribute, names)
    column, known = 1 + names.index(attribute), {"-1": 0, "1": 1}
    values = {}
    for number, line in enumerate(lines[2:], 3):
        fields = line.split()
        if len(fields) != 1 + len(names) or fields[column] not in known:
            raise UsageError(
                f"data.root: line {number} of {path} is not a name and {len(names)} "
                "values of -1 or 1."
            )
        values[fields[0]] = known[fields[column]]
    if len(values) != int(lines[0]):
        raise UsageError(
            f"data.root: {path} is truncated or damaged: it promises {int(lines[0]):,} images and "
            f"lists {len(values):,}."
        )
    return values


def read_partition(path: Path) -> dict[str, str]:
    """Returns each image's part. A line is NAME and 0 (train), 1 (validation) or 2 (test)."""
    partition = {}
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise UsageError(f"data.root: line {number} of {path} is not a name and 0, 1 or 2.")
        partition[fields[0]] = fields[1]
    return partition
