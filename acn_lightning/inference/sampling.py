"""Images drawn from a model, as in the paper's figures."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from acn_lightning.data import ImageData
from acn_lightning.module import ACN
from acn_lightning.utils.errors import UsageError, check_choice

Images = Float[Tensor, "batch channel height width"]
Columns = list[Float[Tensor, "rows channel height width"]]


@torch.no_grad()
def draw(
    module: ACN, data: ImageData, *, kind: str = "reconstructions", rows: int = 8, columns: int = 8
) -> Float[Tensor, "rows columns channel height width"]:
    """A grid of images; torch's generator decides what is drawn.

    Args:
        module: trained; its bank holds the codes of `data`.
        data: read. Test images, picked at random, stand in the first column.
        kind: "reconstructions": x, then x' ~ r(x|z) with z ~ q(z|x), another z in each column;
            "daydream": x, then step by step the prior's z ~ p(z|c) of the last image's code c, and
            x' ~ r(x|z), which is encoded in its turn (arXiv 1804.02476, figure 1);
            "unconditional": a stored code, the prior's z ~ p(z|c), and x ~ r(x|z): no test images;
            "interpolation": x, then r(x|z) for z along the line from its code to that of another
            test image, which stands in the last column.
        rows: of the grid.
        columns: of the grid, test images included.

    Returns:
        Pixel values 0 to 1.

    Raises:
        UsageError: an option is out of range, or there are too few test images.
    """
    check_choice("kind", kind, KINDS)
    least = 3 if kind == "interpolation" else 2
    if rows < 1 or columns < least:
        raise UsageError(
            f"rows, columns: {rows} x {columns} is too small for {kind}: 1 x {least} is the least."
        )
    needed = rows * (2 if kind == "interpolation" else 1)
    if needed > len(data.test_set):
        raise UsageError(
            f"rows: {rows} rows need {needed} test images; there are {len(data.test_set)}."
        )
    chosen = torch.randperm(len(data.test_set))[:needed]
    images = data.test_set.images[chosen].to(module.device) / 255
    return torch.stack(KINDS[kind](module, images, columns), dim=1).cpu()


def reconstructions(module: ACN, images: Images, columns: int) -> Columns:
    """Each image, and what the decoder makes of samples of its posterior."""
    posterior = module(images)
    return [
        images,
        *(module.decoder(posterior.sample()).sample() for _ in progress(columns - 1)),
    ]


def daydream(module: ACN, images: Images, columns: int) -> Columns:
    """Each image, and a walk from neighbour to neighbour."""
    dreamt = [images]
    for _ in progress(columns - 1):
        z = module.prior(module(dreamt[-1]).mean).sample()
        dreamt.append(module.decoder(z).sample())
    return dreamt


def unconditional(module: ACN, images: Images, columns: int) -> Columns:
    """Samples of the model; of the images only how many counts."""
    marginal = module.prior.marginal(module.bank.codes[module.bank.rows], nearest=1)
    return [module.decoder(marginal.sample((len(images),))).sample() for _ in progress(columns)]


def interpolation(module: ACN, images: Images, columns: int) -> Columns:
    """The first half of the images, the way to the second half, and that half."""
    first, last = images.chunk(2)
    start, end = module(first).mean, module(last).mean
    between = [
        module.decoder(start + (end - start) * (step + 1) / (columns - 1)).sample()
        for step in progress(columns - 2)
    ]
    return [first, *between, last]


KINDS: dict[str, Callable[[ACN, Images, int], Columns]] = {
    one.__name__: one for one in (reconstructions, daydream, unconditional, interpolation)
}


def progress(columns: int) -> "tqdm[int]":
    """A bar over columns: each takes one pass over the pixels of its images."""
    return tqdm(range(columns), desc="drawing", unit="column", leave=False)
