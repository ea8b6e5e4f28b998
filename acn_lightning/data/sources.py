"""Where images come from. Each reader returns a `Source`: all images of one size, in memory."""

import gzip
import math
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from acn_lightning.errors import UsageError, nearest


class Part(NamedTuple):
    """Images and their classes; -1 where an image has none."""

    images: UInt8[Tensor, "size channel height width"]
    labels: Int[Tensor, " size"]


class Source(NamedTuple):
    """A data set: what to train on, what to test on, and the names of the classes."""

    train: Part
    test: Part
    classes: tuple[str, ...]


def held_out_rows(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Divides 0 ... size - 1 at random into (the rest, `count` held out), each in order.

    Always the same division: what was held out from one run is not trained on by the next one,
    whatever its seed.
    """
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    return order[count:].sort().values, order[:count].sort().values


def divide(part: Part, classes: tuple[str, ...], fraction: float, name: str) -> Source:
    """A source whose publisher has no test set: a fixed `fraction` of it becomes one."""
    count = round(len(part.images) * fraction)
    if count < 1:
        raise UsageError(
            f"data.root: {name} has {len(part.images)} images, too few to hold any out for testing."
        )
    train, test = (
        Part(part.images[rows], part.labels[rows])
        for rows in held_out_rows(len(part.images), count)
    )
    return Source(train, test, classes)


# ---------------------------------------------------------------- digits


def read_digits() -> Source:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 (UCI, Alpaydin and Kaynak); a fixed fifth
    of them is the test set."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 17 grey values
    part = Part(torch.from_numpy(grey)[:, None], torch.from_numpy(digits.target).long())
    return divide(part, tuple(str(name) for name in digits.target_names), 0.2, "digits")


# ---------------------------------------------------------------- IDX


def read_idx(root: Path) -> Source:
    """A folder in MNIST's file layout, files plain or .gz.

    Raises:
        UsageError: a file is missing, damaged or no IDX; counts or sizes differ.
    """
    train, test = (read_idx_part(root, prefix) for prefix in ("train", "t10k"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UsageError(
            f"data.root: in {root} training images are {size_words(train.images)} and test images "
            f"{size_words(test.images)}."
        )
    highest = int(max(train.labels.max(), test.labels.max()))
    return Source(train, test, tuple(str(label) for label in range(highest + 1)))


def read_idx_part(root: Path, prefix: str) -> Part:
    """The images and labels of one part: `prefix` is train or t10k."""
    images_path, labels_path = (
        find_idx(root, f"{prefix}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    images, labels = read_idx_file(images_path, 3), read_idx_file(labels_path, 1)
    check_counts(len(images), images_path, len(labels), labels_path)
    return Part(images[:, None], labels.long())


def find_idx(root: Path, name: str) -> Path:
    """The file of that name, with or without .gz."""
    require_folder(root)
    for path in (root / f"{name}.gz", root / name):
        if path.is_file():
            return path
    raise UsageError(
        f"data.root: {root} has no {name} or {name}.gz. Point data.root at a folder with the IDX "
        "files, or let data.download=true fetch them where the source is a published one."
    )


def read_idx_file(path: Path, dimensions: int) -> Tensor:
    """An IDX file of unsigned bytes (format: LeCun's MNIST page): four bytes of magic, the sizes
    as big-endian 32-bit integers, the data.

    Raises:
        UsageError: it is truncated, damaged, or another kind of file.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"data.root: {path} is truncated or damaged ({error}).") from error
    header = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < header:
        raise UsageError(f"data.root: {path} is no IDX file of {dimensions}-dimensional bytes.")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    if len(content) - header != math.prod(shape):
        raise UsageError(
            f"data.root: {path} is truncated or damaged: it promises {math.prod(shape):,} bytes of "
            f"data and has {len(content) - header:,}."
        )
    if not shape[0]:
        raise UsageError(f"data.root: {path} is empty.")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())


# ---------------------------------------------------------------- a folder of images

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_folder(root: Path, image_size: Sequence[int] | None, channels: int | None) -> Source:
    """Images in a folder: a sub-folder for each class, or no sub-folders where there are no
    classes. Where `root` has sub-folders `train` and `test`, these are the two parts; else a fixed
    tenth is the test set.

    Args:
        root: the folder.
        image_size: (height, width) to resize to; None takes the images as they are.
        channels: 1 for grey, 3 for RGB; None takes 1 where all images are grey, else 3.

    Raises:
        UsageError: the folder is missing or has no images, an image cannot be read, sizes differ.
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
    if len(listings) == 1:
        return divide(Part(images, labels), tuple(classes), 0.1, str(root))
    parts = [len(paths) for paths, _ in listings]
    train, test = map(Part, images.split(parts), labels.split(parts))
    return Source(train, test, tuple(classes))


def list_images(root: Path) -> tuple[list[Path], bool]:
    """(files, whether their folders are classes)."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    own, files = (
        [
            path
            for folder in places
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in SUFFIXES and path.name[0] != "."
        ]
        for places in ([root], folders or [root])
    )
    if folders and own:
        raise UsageError(
            f"data.root: {root} has images beside its sub-folders ({own[0].name}). Give each "
            "image a sub-folder, its class, or none."
        )
    if not files:
        raise UsageError(
            f"data.root: {root} has no images ({', '.join(SUFFIXES)}), neither in it nor in "
            "sub-folders of it, one for each class."
        )
    return files, bool(folders)


def read_images(
    files: Sequence[Path], image_size: Sequence[int] | None, channels: int | None
) -> UInt8[Tensor, "size channel height width"]:
    """All of them, of one size and one number of channels; a bar where it takes long.

    Raises:
        UsageError: one cannot be read, or sizes differ.
    """
    from tqdm import tqdm

    with ThreadPoolExecutor() as pool:
        arrays = list(
            tqdm(
                pool.map(lambda path: read_image(path, image_size, channels), files),
                total=len(files),
                desc="reading images",
                unit="image",
                delay=2,
            )
        )
    if channels is None and any(array.ndim == 3 for array in arrays):
        arrays = [a if a.ndim == 3 else np.repeat(a[..., None], 3, axis=2) for a in arrays]
    for path, array in zip(files, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise UsageError(
                f"data.image_size: images differ in size: {files[0]} is {pixels(arrays[0])}, "
                f"{path} is {pixels(array)}. Give a size to bring them to: data.image_size=[64,64]."
            )
    stacked = torch.from_numpy(np.stack(arrays))
    return stacked[:, None] if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2).contiguous()


def read_image(path: Path, image_size: Sequence[int] | None, channels: int | None) -> np.ndarray:
    """(H, W) for grey, (H, W, 3) for colour. Resized to cover `image_size`, the rest cut off
    evenly on both sides, so that nothing is stretched."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            deep = file.mode.startswith("I")  # 16 bits a pixel; Pillow's convert would cut at 255
            whole = Image.fromarray((np.asarray(file) // 257).astype(np.uint8)) if deep else file
            grey = channels == 1 or (channels is None and whole.mode in ("1", "L", "LA"))
            image = ImageOps.exif_transpose(whole).convert("L" if grey else "RGB")
            if image_size is not None:
                height, width = image_size
                image = ImageOps.fit(image, (width, height))
            return np.asarray(image)
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"data.root: {path} cannot be read as an image ({error}).") from error


def pixels(array: np.ndarray) -> str:
    """Width x height, as programs for pictures say it."""
    return f"{array.shape[1]} x {array.shape[0]}"


# ---------------------------------------------------------------- .npz


def read_npz(path: Path) -> Source:
    """NumPy arrays in one file: `images` (N, H, W) or (N, H, W, C), uint8, and optionally `labels`
    (N,) of integers from 0, `test_images`, `test_labels`. Without `test_images` a fixed tenth is
    the test set.

    Raises:
        UsageError: the file is missing or damaged, an array is missing or not of that form.
    """
    if not path.is_file():
        raise UsageError(f"data.root: there is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays.files}
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        AttributeError,
        TypeError,
    ) as error:
        raise UsageError(f"data.root: {path} is no readable .npz file ({error}).") from error
    train = npz_part(content, "", path)
    labels = [train.labels]
    test = npz_part(content, "test_", path) if "test_images" in content else None
    if test is not None:
        labels.append(test.labels)
        if train.images.shape[1:] != test.images.shape[1:]:
            raise UsageError(
                f"data.root: in {path} images are {size_words(train.images)} and test_images "
                f"{size_words(test.images)}."
            )
    classes = tuple(str(label) for label in range(int(torch.cat(labels).max()) + 1))
    return Source(train, test, classes) if test else divide(train, classes, 0.1, str(path))


def npz_part(content: dict[str, np.ndarray], prefix: str, path: Path) -> Part:
    """The arrays `{prefix}images` and `{prefix}labels`, checked."""
    name = f"{prefix}images"
    if name not in content:
        raise UsageError(
            f"data.root: {path} has no array '{name}', only {', '.join(content) or 'none'}."
            f"{nearest(name, content)}"
        )
    images = content[name]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise UsageError(
            f"data.root: '{name}' in {path} is {images.dtype} {images.shape}, not uint8 "
            "(N, H, W) or (N, H, W, C)."
        )
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        raise UsageError(
            f"data.root: '{name}' in {path} has {images.shape[3]} channels (last), not 1 or 3."
        )
    labels = content.get(f"{prefix}labels")
    if labels is None:
        labels = np.full(len(images), -1)
    elif labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise UsageError(f"data.root: '{prefix}labels' in {path} are not integers from 0, (N,).")
    check_counts(len(images), f"'{name}'", len(labels), f"'{prefix}labels' of {path}")
    tensor = torch.from_numpy(images)
    tensor = tensor[:, None] if images.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()
    return Part(tensor, torch.from_numpy(labels.astype(np.int64)))


# ---------------------------------------------------------------- common


def require_folder(root: Path) -> None:
    """Raises:
    UsageError: there is none.
    """
    if not root.is_dir():
        raise UsageError(f"data.root: there is no folder {root}.")


def check_counts(images: int, images_name: object, labels: int, labels_name: object) -> None:
    """Raises:
    UsageError: they differ.
    """
    if images != labels:
        raise UsageError(
            f"data.root: {images:,} images in {images_name}, but {labels:,} labels in "
            f"{labels_name}."
        )


def size_words(images: Tensor) -> str:
    """Channels x height x width."""
    return " x ".join(str(side) for side in images.shape[1:])
