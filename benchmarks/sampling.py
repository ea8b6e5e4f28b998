"""Times drawing images from a PixelCNN."""

from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from acn_lightning.config.compose import compose
from acn_lightning.experiment.build import build
from benchmarks import references
from benchmarks.data import images_in
from benchmarks.measure import Figure, alternate


@torch.no_grad()
def sampler(images: int = 64, repeats: int = 1, overrides: Sequence[str] = ()) -> Figure:
    """Compares `AutoregressiveImages.sample` of mnist+small's decoder with a pass over the whole
    image per pixel. Each is timed once by default, because the reference takes minutes.
    """
    with TemporaryDirectory() as folder:
        _, module = build(compose("mnist+small", [*images_in(folder, 3000), *overrides]))
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    z = torch.randn(images, module.bank.codes.shape[1], device=module.device)
    distribution = module.decoder(z)
    distribution.network.eval()

    def seeded(draw: Callable[[], Tensor]) -> Tensor:
        torch.manual_seed(1)
        return draw()

    module.decoder(z[:1]).sample()
    timed = alternate(
        lambda: seeded(distribution.sample),
        lambda: seeded(lambda: references.sample_by_full_passes(distribution)),
        repeats,
        warm_up=False,
    )
    equal = part_equal(timed.ours, timed.reference)
    note = f"{images} images, {equal:.4%} of the pixels equal"
    return Figure(timed.ours_s, timed.reference_s, ">= 50", note, {"fraction_equal": equal})


def part_equal(ours: Tensor, reference: Tensor) -> float:
    """Returns the share of equal pixels. Rounding may occasionally flip one, and those after it in
    its image.

    Raises:
        RuntimeError: more than a thousandth differ.
    """
    equal = float((ours == reference).double().mean())
    if equal < 0.999:
        raise RuntimeError(f"only {equal:.2%} of the pixels are the same")
    return equal
