"""A folder of image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from acn_lightning.data.files import list_images, parse_size, read_images
from acn_lightning.data.sources.base import (
    Source,
    Split,
    Splits,
    folder_of,
    require_folder,
    split_off_test,
)
from acn_lightning.utils.errors import UsageError


class FolderSource(Source, kind="folder"):
    """A folder of image files, see `read_folder`.

    Args:
        root: the folder.
        image_size: [height, width] to resize images to; one number for squares. null keeps their
            size.
        channels: 1 for grey or 3 for RGB; null takes 1 if all images are grey, else 3.
    """

    def __init__(
        self, *, root: str | None = None, image_size: Any = None, channels: int | None = None
    ) -> None:
        if channels not in (None, 1, 3):
            raise UsageError(f"data.channels: {channels} is neither 1 (grey) nor 3 (RGB).")
        self.root: Path = folder_of(root, "folder")
        self.image_size, self.channels = parse_size(image_size), channels

    def read(self) -> Splits:
        return read_folder(self.root, self.image_size, self.channels)


def read_folder(root: Path, image_size: Sequence[int] | None, channels: int | None) -> Splits:
    """Reads images from a folder with a sub-folder for each class, or with no sub-folders if there
    are no classes. If `root` has sub-folders `train` and `test`, these are the two splits.
    Otherwise a fixed tenth becomes the test split.

    Args:
        root: the folder.
        image_size: (height, width) to resize to; None keeps the images' size.
        channels: 1 for grey, 3 for RGB; None takes 1 if all images are grey, else 3.

    Raises:
        UsageError: the folder is missing or has no images, an image cannot be read, or sizes
            differ.
    """
    require_folder(root)
    if (root / "train").is_dir() and (root / "test").is_dir():
        listings = [list_images(root / part) for part in ("train", "test")]
    else:
        listings = [list_images(root)]
    classes = sorted(
        {path.parent.name for paths, labelled in listings if labelled for path in paths}
    )
    files = [path for paths, _ in listings for path in paths]
    images = read_images(files, image_size, channels)
    labels = torch.tensor(
        [
            classes.index(path.parent.name) if labelled else -1
            for paths, labelled in listings
            for path in paths
        ]
    )
    names = tuple(map(str, files))
    if len(listings) == 1:
        return split_off_test(Split(images, labels, names), tuple(classes), 0.1, str(root))
    first = len(listings[0][0])
    # Slices share the images' memory.
    train = Split(images[:first], labels[:first], names[:first])
    test = Split(images[first:], labels[first:], names[first:])
    return Splits(train, test, tuple(classes))
