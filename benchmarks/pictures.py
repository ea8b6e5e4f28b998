"""Writes folders of PNG files to train on and to compress, see `docs/compression.md`.

    python -m benchmarks.pictures clothes OUT FASHION_MNIST_ROOT
    python -m benchmarks.pictures icons OUT THEME_FOLDER ...

`clothes` writes 5,000 training images of Fashion-MNIST to OUT/train, and 5,000 test images to
OUT/test.
`icons` writes all PNG files of 32 x 32 pixels below the folders, on white and each only once: three
quarters to OUT/train and the others to OUT/test, chosen by a hash of their pixels.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from acn_lightning.data.sources.idx import read_idx

COUNT = 5000
SIDE = 32


def clothes(out: Path, root: str) -> None:
    """Writes images of Fashion-MNIST."""
    splits = read_idx(Path(root))
    for part in ("train", "test"):
        (out / part).mkdir(parents=True)
        for row, image in enumerate(getattr(splits, part).images[:COUNT]):
            Image.fromarray(image[0].numpy()).save(out / part / f"{row:05}.png")


def icons(out: Path, *themes: str) -> None:
    """Writes icons."""
    for part in ("train", "test"):
        (out / part).mkdir(parents=True)
    for digest, image in dict(small_icons(themes)).items():
        part = "test" if int(digest[:2], 16) % 4 == 0 else "train"
        image.save(out / part / f"{digest[:16]}.png")


def small_icons(themes: tuple[str, ...]) -> Iterator[tuple[str, Image.Image]]:
    """(digest of the pixels, icon) of all icons of the right size."""
    for path in sorted(path for theme in themes for path in Path(theme).rglob("*.png")):
        if not path.is_file():  # a broken link
            continue
        with Image.open(path) as file:
            if file.size != (SIDE, SIDE):
                continue
            icon = file.convert("RGBA")
        white = Image.new("RGBA", icon.size, "white")
        image = Image.alpha_composite(white, icon).convert("RGB")
        yield hashlib.sha256(image.tobytes()).hexdigest(), image


if __name__ == "__main__":
    commands = {"clothes": clothes, "icons": icons}
    if len(sys.argv) < 4 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
