"""Images drawn from a model, as in the paper's figures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from acn_lightning.data import ImageData
from acn_lightning.inference.embedding import check_batch_size
from acn_lightning.inference.pictures import pixels_of
from acn_lightning.module import ACN
from acn_lightning.networks.layers import eval_mode
from acn_lightning.utils.errors import UsageError, check_choice, check_range

Images = Float[Tensor, "batch channel height width"]
Columns = list[Float[Tensor, "rows channel height width"]]


@torch.no_grad()
def draw(
    module: ACN,
    data: ImageData,
    *,
    kind: str = "reconstructions",
    rows: int = 8,
    columns: int = 8,
    noise: bool = False,
) -> Float[Tensor, "rows columns channel height width"]:
    """A grid of images, drawn with torch's global random generator.

    Args:
        module: a trained module; its bank holds the codes of `data`.
        data: data that has been read. Its test images, chosen at random, fill the first column.
        kind: "reconstructions": an image, then draws from its code, a new sample of it in each
            column; "daydream": an image, then repeatedly a code drawn from the prior given the last
            image's code, and the image decoded from it, which is encoded in turn (arXiv 1804.02476,
            figure 1). Where the mean of a black and white image is shown, a drawn one is encoded;
            "unconditional": images of codes drawn from the prior given stored codes, and no test
            images; "interpolation": an image, then what is decoded along the line from its code to
            the code of another test image, which fills the last column.
        rows: number of rows.
        columns: number of columns, including those of test images.
        noise: whether to draw each pixel even if pixels are independent given the code; otherwise
            their means are shown. An autoregressive decoder always draws its pixels.

    Returns:
        Pixel values from 0 to 1.

    Raises:
        UsageError: an option is out of range, or there are too few test images.
    """
    check_choice("kind", kind, KINDS)
    check_range("rows", rows, 1, 256)
    check_range("columns", columns, 3 if kind == "interpolation" else 2, 256)
    if kind == "unconditional":
        images = torch.zeros(rows, *data.image_shape)  # only their number matters
    else:
        images = some_test_images(data, rows * (2 if kind == "interpolation" else 1), rows)
        images = images.to(module.device) / 255
    with eval_mode(module), finite_predictions():
        return torch.stack(KINDS[kind](module, images, columns, noise), dim=1).cpu()


def some_test_images(data: ImageData, needed: int, rows: int) -> Tensor:
    """That many test images, chosen at random.

    Raises:
        UsageError: there are too few.
    """
    if needed > len(data.test_set):
        raise UsageError(
            f"rows: {rows} rows need {needed} test images; there are {len(data.test_set)}."
        )
    return data.test_set.images[torch.randperm(len(data.test_set))[:needed]]


@contextmanager
def finite_predictions() -> Iterator[None]:
    """Converts torch's error about probabilities that are not finite.

    Raises:
        UsageError: in place of that.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if "probability tensor" not in str(error) and "nan" not in str(error).lower():
            raise
        raise UsageError("The model predicts NaN or infinity: its weights are damaged.") from error


@torch.no_grad()
def draw_images(module: ACN, count: int, noise: bool = False, batch_size: int = 256) -> Images:
    """`count` samples of the model, 0 to 1, on the CPU: a stored code c, z ~ p(z|c), and
    `pixels_of` r(x|z), so many at once.

    Raises:
        UsageError: the batch size is out of range, or the model predicts NaN or infinity.
    """
    check_batch_size(batch_size)
    marginal = module.prior.marginal(module.bank.codes[module.bank.rows], nearest=1)
    with eval_mode(module), finite_predictions():
        parts = [
            pixels_of(module.decoder(marginal.sample((len(some),))), noise).cpu()
            for some in torch.arange(count).split(batch_size)
        ]
    return torch.cat(parts)


def reconstructions(module: ACN, images: Images, columns: int, noise: bool) -> Columns:
    """Each image, then images decoded from samples of its posterior."""
    posterior = module(images)
    return [
        images,
        *(
            pixels_of(module.decoder(posterior.sample()), noise)
            for _ in column_progress(columns - 1)
        ),
    ]


def daydream(module: ACN, images: Images, columns: int, noise: bool) -> Columns:
    """Each image, then a walk from neighbour to neighbour."""
    dreamt, seen = [images], images
    for _ in column_progress(columns - 1):
        decoded = module.decoder(module.prior(module(seen).mean).sample())
        seen = pixels_of(decoded, noise)
        dreamt.append(seen)
        # The encoder of black and white images knows no grey, as their means have it.
        if module.decoder.likelihood.binary and (seen % 1).any():
            seen = decoded.sample()
    return dreamt


def unconditional(module: ACN, images: Images, columns: int, noise: bool) -> Columns:
    """Samples of the model; only the number of images matters."""
    return [draw_images(module, len(images), noise) for _ in column_progress(columns)]


def interpolation(module: ACN, images: Images, columns: int, noise: bool) -> Columns:
    """The first half of the images, the steps to the second half, and the second half."""
    first, last = images.chunk(2)
    start, end = module(first).mean, module(last).mean
    between = [
        pixels_of(module.decoder(start + (end - start) * (step + 1) / (columns - 1)), noise)
        for step in column_progress(columns - 2)
    ]
    return [first, *between, last]


KINDS: dict[str, Callable[[ACN, Images, int, bool], Columns]] = {
    one.__name__: one for one in (reconstructions, daydream, unconditional, interpolation)
}


def column_progress(columns: int) -> "tqdm[int]":
    """A progress bar over columns. Each takes one pass over the pixels of its images."""
    return tqdm(range(columns), desc="drawing", unit="column", leave=False)
