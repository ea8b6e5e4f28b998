"""What the encoder sees while training: a randomly transformed copy of each image.

The decoder still describes the image as it is, so a code can only hold what survives the
transformation: what the image shows, and not where its pixels are. The cost stays a bound: it is
one for any posterior, and that of a random copy is a mixture over the transformations.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from acn_lightning.utils.errors import UsageError, check_choice, nearest


class Transform(NamedTuple):
    """One transform of a recipe.

    Attributes:
        size: at strength 1.
        most: the largest that there is.
        what: it means.
    """

    size: float
    most: float
    what: str


RECIPES: dict[str, dict[str, Transform]] = {
    "none": {},
    "affine": {
        "rotation": Transform(15.0, 180.0, "degrees, to either side"),
        "scale": Transform(0.12, 0.9, "change of size, up or down"),
        "shift": Transform(0.07, 1.0, "part of a side, in each direction"),
        "shear": Transform(8.0, 60.0, "degrees, along each axis"),
        "flip": Transform(0.0, 1.0, "probability of a mirror image"),
    },
    "colour": {
        "crop": Transform(0.5, 0.95, "part of the area that may be cut off"),
        "flip": Transform(0.5, 1.0, "probability of a mirror image"),
        "brightness": Transform(0.15, 1.0, "added or taken, as a part of white"),
        "contrast": Transform(0.4, 1.0, "change, as a part"),
        "saturation": Transform(0.4, 1.0, "change, as a part; of colour images"),
        "hue": Transform(0.1, 0.5, "part of the colour circle; of colour images"),
        "grey": Transform(0.1, 1.0, "probability of losing all colour; of colour images"),
        "blur": Transform(0.2, 1.0, "probability"),
    },
}
"""Their transforms, by name."""


def transform_sizes(
    recipe: str, strength: float, transforms: Mapping[str, Any]
) -> dict[str, float]:
    """The sizes of a recipe's transforms.

    Args:
        recipe: of `RECIPES`.
        strength: that multiplies all of the recipe's own sizes.
        transforms: sizes of single ones, which no strength multiplies.

    Raises:
        UsageError: there is no such recipe or transform, or a size is out of range.

    Example:
        >>> transform_sizes("affine", 0.5, {"flip": 0.5})
        {'rotation': 7.5, 'scale': 0.06, 'shift': 0.035, 'shear': 4.0, 'flip': 0.5}
    """
    check_choice("data.augment", recipe, RECIPES)
    known = RECIPES[recipe]
    if not 0 <= strength <= 10:
        raise UsageError(f"data.augment_strength: {strength} is not from 0 to 10.")
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
            raise UsageError(f"data.augment_transforms.{name}: {size!r} is no number.")
        if not 0 <= size <= transform.most:
            key = f"augment_transforms.{name}" if name in transforms else "augment_strength"
            raise UsageError(
                f"data.{key}: a {name} of {size:g} is not from 0 to {transform.most:g} "
                f"({transform.what})."
            )
        sizes[name] = float(size)
    return sizes


class Augmentation(nn.Module):
    """Transforms each image of a batch by random numbers of its own, from torch's global source:
    what seeds and resumes training seeds and resumes these.

    Args:
        recipe: of `RECIPES`.
        sizes: of its transforms, `transform_sizes`.
        image_shape: (C, H, W).
    """

    def __init__(
        self, recipe: str, sizes: Mapping[str, float], image_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        make = affine_steps if recipe == "affine" else colour_steps
        self.steps = nn.Sequential(*make(sizes, image_shape))

    @torch.no_grad()
    def forward(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        changed: Tensor = self.steps(image)
        return changed.clamp(0, 1)


def affine_steps(sizes: Mapping[str, float], image_shape: tuple[int, ...]) -> list[nn.Module]:
    """One affine map; what comes in at an edge is like the edge."""
    import kornia.augmentation as kornia  # half a second, which most commands need not wait for

    shear = sizes["shear"]
    return [
        kornia.RandomAffine(
            degrees=sizes["rotation"],
            translate=(sizes["shift"], sizes["shift"]),
            scale=(1 - sizes["scale"], 1 + sizes["scale"]),
            shear=cast(Any, (-shear, shear, -shear, shear)),  # two axes; its types know one
            padding_mode="border",
            p=1.0,
        ),
        kornia.RandomHorizontalFlip(p=sizes["flip"]),
    ]


def colour_steps(sizes: Mapping[str, float], image_shape: tuple[int, ...]) -> list[nn.Module]:
    """A part of the image, brought to its size, perhaps mirrored, in other colours and blurred."""
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
    """Factors around 1."""
    return 1 - size, 1 + size
