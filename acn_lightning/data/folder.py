"""A folder of image files."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from acn_lightning.data.sources import Part, Source, divide, require_folder
from acn_lightning.errors import UsageError

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
