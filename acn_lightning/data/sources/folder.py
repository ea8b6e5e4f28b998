"""A folder of image files."""

from pathlib import Path
from typing import Any

import torch

from acn_lightning.data.files import decoded_size, identity, read_files
from acn_lightning.data.listing import Listing, list_folder
from acn_lightning.data.opener import MAX_PIXELS
from acn_lightning.data.pixels import Form
from acn_lightning.data.report import describe
from acn_lightning.data.sources.base import (
    Outline,
    Source,
    Split,
    Splits,
    folder_of,
    require_folder,
    split_off_test,
)
from acn_lightning.utils.errors import UnreadableError, UsageError, check_choice, keyed
from acn_lightning.utils.text import as_text


class FolderSource(Source, kind="folder"):
    """A folder of image files, with a sub-folder for each class or none. Folders `train` and `test`
    are the splits; without them, a fixed tenth of the images becomes the test split.

    Args:
        root: the folder.
        image_size: [height, width] to resize images to; one number for squares. null keeps their
            size; auto does too if all share one of at most 32 x 32, else it is 32.
        channels: 1 for grey or 3 for RGB; null takes 1 if all images are grey, else 3.
        background: colour behind transparent pixels: a name or `rgb(240,240,240)`.
        bits: how many of 16 bits grey values use, from 8 to 16; null takes as many as the brightest
            pixel of all 16-bit images needs, of 8, 10, 12, 14 and 16.
        unreadable: "stop" at a file that cannot be read, or "skip" it.
        max_pixels: images of more pixels cannot be read; at most 178956970.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        image_size: Any = None,
        channels: int | None = None,
        background: str = "white",
        bits: int | None = None,
        unreadable: str = "stop",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_choice("data.unreadable", unreadable, ("stop", "skip"))
        self.form = Form.of(
            image_size,
            channels=channels,
            background=background,
            bits=bits,
            max_pixels=max_pixels,
        )
        self.root: Path = folder_of(root, "folder")
        self.unreadable = unreadable
        self.listing: Listing | None = None

    def outline(self) -> Outline:
        listing = self.listing = self.list()
        files = [file for part in (listing.train, listing.test) if part for file in part.files]
        known = identity(files, self.form, self.unreadable, listing.left_out, self.root.resolve())
        return Outline(len(files) * decoded_size(files, self.form), known)

    def list(self) -> Listing:
        """Its files, which are listed once for `outline` and `read`."""
        if self.listing is None:
            require_folder(self.root)
            with keyed("data.root", UsageError):
                self.listing = list_folder(self.root)
        return self.listing

    def read(self) -> Splits:
        """Reads all images and labels, by the rule of `list_folder`.

        Raises:
            UsageError: the folder is missing or has no images, an image cannot be read, or sizes
                differ.
        """
        listing, self.listing = self.list(), None
        parts = [part for part in (listing.train, listing.test) if part]
        files = [file for part in parts for file in part.files]
        way_out = "To leave such files out: data.unreadable=skip."
        with keyed("data.root", UnreadableError, way_out if self.unreadable == "stop" else ""):
            read = read_files(files, self.form, self.unreadable, self.storage)
        every = [label for part in parts for label in part.labels]
        labels = [every[row] for row in read.rows]
        self.report = describe(
            as_text(self.root.resolve().name), read, self.form, every, listing.left_out
        )
        self.prepared = {"bits": read.bits} if read.bits else {}
        classes = sorted({label for label in labels if label is not None})
        number = {label: i for i, label in enumerate(classes)}
        whole = Split(
            read.images,
            torch.tensor([-1 if label is None else number[label] for label in labels]),
            tuple(as_text(files[row]) for row in read.rows),
        )
        if listing.test is None:
            return split_off_test(whole, tuple(classes), 0.1, str(self.root), self.storage)
        first = sum(row < len(listing.train.files) for row in read.rows)
        return Splits(*divide(whole, first, self.root), tuple(classes))


def divide(whole: Split, first: int, root: Path) -> tuple[Split, Split]:
    """The first images, for training, and the others, for testing. Both share the whole's memory.

    Raises:
        UsageError: there are none of one kind.
    """
    if not 0 < first < len(whole.images):
        which = "test" if first else "training"
        raise UsageError(f"data.root: in {root}, no image of the {which} split can be read.")
    return (
        Split(whole.images[:first], whole.labels[:first], whole.names[:first]),
        Split(whole.images[first:], whole.labels[first:], whole.names[first:]),
    )
