"""Augmentation: while training, the encoder sees a randomly transformed copy of each image.

The decoder still describes the original image, so a code can only hold what survives the
transformation: what the image shows, not where its pixels are. The cost stays a bound, because it
is one for any posterior: that of a random copy is a mixture over the transformations.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from acn_lightning.utils.errors import UsageError, check_choice, nearest


class Transform(NamedTuple):
    """One transform of a recipe.

    Attributes:
        size: the size at strength 1.
        most: the largest size allowed.
        what: what the size means.
    """

    size: float
    most: float
    what: str


RECIPES: dict[str, dict[str, Transform]] = {
    "none": {},
    "affine": {
        "rotation": Transform(15.0, 180.0, "degrees, in either direction"),
        "scale": Transform(0.12, 0.9, "change of size, up or down"),
        "shift": Transform(0.07, 1.0, "fraction of a side, in each direction"),
        "shear": Transform(8.0, 60.0, "degrees, along each axis"),
        "flip": Transform(0.0, 1.0, "probability of a mirror image"),
    },
    "colour": {
        "crop": Transform(0.5, 0.95, "fraction of the area that may be cut off"),
        "flip": Transform(0.5, 1.0, "probability of a mirror image"),
        "brightness": Transform(0.15, 1.0, "added or subtracted, as a fraction of white"),
        "contrast": Transform(0.4, 1.0, "relative change"),
        "saturation": Transform(0.4, 1.0, "relative change; colour images only"),
        "hue": Transform(0.1, 0.5, "fraction of the colour circle; colour images only"),
        "grey": Transform(0.1, 1.0, "probability of losing all colour; colour images only"),
        "blur": Transform(0.2, 1.0, "probability"),
    },
}
"""The transforms of each recipe, by name."""


def transform_sizes(
    recipe: str, strength: float, transforms: Mapping[str, Any]
) -> dict[str, float]:
    """The sizes of a recipe's transforms.

    Args:
        recipe: a name in `RECIPES`.
        strength: multiplies the recipe's own sizes.
        transforms: sizes of single transforms, which `strength` does not multiply.

    Raises:
        UsageError: there is no such recipe or transform, or a size is out of range.

    Example:
        >>> transform_sizes("affine", 0.5, {"flip": 0.5})
        {'rotation': 7.5, 'scale': 0.06, 'shift': 0.035, 'shear': 4.0, 'flip': 0.5}
    """
    check_choice("data.augment", recipe, RECIPES)
    known = RECIPES[recipe]
    if not 0 <= strength <= 10:
        raise UsageError(f"data.augment_strength: {strength} is not between 0 and 10.")
    for name in transforms:
        if name not in known:
            what = f"{recipe} has {', '.join(known)}" if known else "data.augment=none has none"
            raise UsageError(
                f"data.augment_transforms.{name}: there is no such transform; {what}."
                f"{nearest(name, known)}"
            )
    sizes = {}
    for name, transform in known.items():
        size = transforms.get(name, strength * transform.size)
        if isinstance(size, bool) or not isinstance(size, int | float):
            raise UsageError(f"data.augment_transforms.{name}: {size!r} is not a number.")
        if not 0 <= size <= transform.most:
            key = f"augment_transforms.{name}" if name in transforms else "augment_strength"
            raise UsageError(
                f"data.{key}: a {name} of {size:g} is not between 0 and {transform.most:g} "
                f"({transform.what})."
            )
        sizes[name] = float(size)
    return sizes


class Augmentation(nn.Module):
    """Transforms each image of a batch independently. The random numbers come from torch's global
    generator, so seeding or resuming training also seeds or resumes them.

    Args:
        recipe: a name in `RECIPES`.
        sizes: of its transforms, from `transform_sizes`.
        image_shape: (C, H, W).
    """

    def __init__(
        self, recipe: str, sizes: Mapping[str, float], image_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        if recipe == "affine":
            self.steps: nn.Module = AffineMap(sizes)
        else:
            self.steps = nn.Sequential(*colour_steps(sizes, image_shape))

    @torch.no_grad()
    def forward(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        changed: Tensor = self.steps(image)
        return changed.clamp(0, 1)


class AffineMap(nn.Module):
    """One affine map of each image about its centre, and mirroring: shear, then rotation and scale,
    then shift. Border pixels extend outwards.

    Kornia's RandomAffine does the same by six times as many small operations, whose launching is
    what a GPU's step of small networks waits for.

    Args:
        sizes: of the transforms of `RECIPES["affine"]`.
    """

    def __init__(self, sizes: Mapping[str, float]) -> None:
        super().__init__()
        self.sizes = dict(sizes)

    def forward(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        count, _, height, width = image.shape
        maps = self.from_output(count, height, width, image.device)
        grid = functional.affine_grid(maps, list(image.shape), align_corners=False)
        return functional.grid_sample(
            image, grid.to(image.dtype), padding_mode="border", align_corners=False
        )

    def from_output(
        self, count: int, height: int, width: int, device: torch.device
    ) -> Float[Tensor, "count 2 3"]:
        """Draws maps from output to input coordinates, each in [-1, 1] over the image."""
        draw = torch.rand(7, count, device=device)
        angle, scale, across, down, shear_x, shear_y = draw[:6].mul(2).sub(1)
        turn, grow = angle * math.radians(self.sizes["rotation"]), 1 + scale * self.sizes["scale"]
        tan_x, tan_y = (
            torch.tan(a * math.radians(self.sizes["shear"])) for a in (shear_x, shear_y)
        )
        mirror = 1 - 2 * (draw[6] < self.sizes["flip"]).to(draw.dtype)
        sine, cosine = turn.sin(), turn.cos()
        # In pixels the map is grow * rotation @ shear @ mirror; here is its inverse, by entries.
        # Shear is that along x after that along y, whose product can be inverted at any angle.
        both = 1 + tan_x * tan_y
        xx = mirror * (both * cosine + tan_x * sine) / grow
        xy = mirror * (both * sine - tan_x * cosine) / grow
        yx, yy = -(tan_y * cosine + sine) / grow, (cosine - tan_y * sine) / grow
        # Coordinates in [-1, 1] count half widths and half heights, and the shift is a fraction of
        # a whole side.
        aspect = height / width
        shift_x, shift_y = (2 * self.sizes["shift"] * part for part in (across, down))
        xy, yx = xy * aspect, yx / aspect
        moved = xx * shift_x + xy * shift_y, yx * shift_x + yy * shift_y
        return torch.stack([xx, xy, -moved[0], yx, yy, -moved[1]], 1).view(count, 2, 3)


def colour_steps(sizes: Mapping[str, float], image_shape: tuple[int, ...]) -> list[nn.Module]:
    """A random crop, resized to the image's size, then mirroring, colour changes and blur."""
    import kornia.augmentation as kornia

    channels, height, width = image_shape
    aspect = width / height
    steps: dict[str, nn.Module] = {
        "crop": kornia.RandomResizedCrop(
            (height, width),
            scale=(1 - sizes["crop"], 1.0),
            ratio=(0.8 * aspect, 1.25 * aspect),
            p=1.0,
        ),
        "flip": kornia.RandomHorizontalFlip(p=sizes["flip"]),
        "brightness": kornia.RandomBrightness(span(sizes["brightness"]), p=0.8),
        "contrast": kornia.RandomContrast(span(sizes["contrast"]), p=0.8),
        "saturation": kornia.RandomSaturation(span(sizes["saturation"]), p=0.8),
        "hue": kornia.RandomHue((-sizes["hue"], sizes["hue"]), p=0.8),
        "grey": kornia.RandomGrayscale(p=sizes["grey"]),
        "blur": kornia.RandomGaussianBlur((3, 3), (0.1, 1.0), p=sizes["blur"]),
    }
    unused = ("saturation", "hue", "grey") if channels == 1 else ()
    return [step for name, step in steps.items() if sizes[name] and name not in unused]


def span(size: float) -> tuple[float, float]:
    """A range of factors around 1."""
    return 1 - size, 1 + size
