"""3 x 3 convolutions that multiply less: after an upsampling, and of maps of 4 x 4."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle

CHANNELS = 64
"""Fewest channels for which `winograd` is faster."""

BATCH = 16
"""Fewest images for which `winograd` is faster: it transforms the kernel once a batch."""


class Conv3x3(nn.Conv2d):
    """A 3 x 3 convolution that keeps the resolution, without bias.

    On a CPU, maps of 4 x 4 take Winograd's way, in half the time; the result is the same up to
    rounding. (PyTorch's library for convolutions, oneDNN, has it for CPUs with AVX-512 only, and
    cuDNN for GPUs.) Not in 16 bits, whose rounding errors it would multiply.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return winograd(x, self.weight) if self._is_faster(x) else super().forward(x)

    def _is_faster(self, x: Tensor) -> bool:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False  # the batch might have another size
        return (
            x.shape[2:] == (4, 4)
            and len(x) >= BATCH
            and min(self.weight.shape[:2]) >= CHANNELS
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype in (torch.float32, torch.float64)
            and not torch.is_autocast_enabled("cpu")
        )


class UpsamplingConv3x3(nn.Conv2d):
    """`nn.Upsample(scale_factor=2)`, then a `Conv3x3`, with half of the multiplications.

    Of the nine pixels under the kernel at most four differ, so each of the four pixels that
    replace one has a kernel of 2 x 2, whose weights are sums. The result is the same up to
    rounding (Shi et al., arXiv 1609.07009, discuss the equivalence).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernels = [corner for half in halves(self.weight, 2) for corner in halves(half, 3)]
        four = conv2d(x, torch.stack(kernels, 1).flatten(0, 1), padding=1)
        # A pixel's last replacement comes first here, hence one row and column too many.
        return pixel_shuffle(four, 2)[:, :, 1:-1, 1:-1]


def halves(kernel: Tensor, dim: int) -> list[Tensor]:
    """What a kernel of 3 does to doubled pixels, as kernels of 2: centred on the second of two
    equal pixels, then on the first."""
    first, middle, last = kernel.unbind(dim)
    return [torch.stack([first + middle, last], dim), torch.stack([first, middle + last], dim)]


def winograd(
    x: Float[Tensor, "batch input 4 4"], kernel: Float[Tensor, "output input 3 3"]
) -> Float[Tensor, "batch output 4 4"]:
    """`conv2d(x, kernel, padding=1)` with 36 multiplications instead of 144 for each pair of
    channels (Winograd's F(4 x 4, 3 x 3); Lavin and Gray, arXiv 1509.09308).

    Each step is a product of matrices, so autograd's gradient is as fast.
    """
    (batch, inputs), outputs = x.shape[:2], len(kernel)
    of_output, of_kernel, of_input = transforms(x.dtype)
    seen = of_input @ x.permute(2, 3, 0, 1).reshape(16, -1)
    weight = of_kernel @ kernel.permute(2, 3, 0, 1).reshape(9, -1)
    each = seen.view(36, batch, inputs) @ weight.view(36, outputs, inputs).transpose(1, 2)
    found = (of_output @ each.view(36, -1)).view(4, 4, batch, outputs)
    return found.permute(2, 3, 0, 1).contiguous()


@cache
def transforms(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """`winograd`'s matrices: (16, 36) to the output, (36, 9) of the kernel, (36, 16) of the input.

    A product of polynomials is known from its values at six points. These are small, and not
    integers, because rounding errors grow with their powers.
    """
    points = (0.0, 0.7, -0.7, 1.5, -1.5)

    def values(terms: int) -> np.ndarray:
        """Of a polynomial of so many terms at the points, and its last coefficient, (6, terms)."""
        infinity = [*[0.0] * (terms - 1), 1.0]
        return np.array([*[[point**power for power in range(terms)] for point in points], infinity])

    padded = np.linalg.inv(values(6)).T[:, 1:5]  # without the two pixels of padding
    with torch.inference_mode(False):  # kept for training too
        both = [np.kron(one, one) for one in (values(4).T, values(3), padded)]
        of_output, of_kernel, of_input = (torch.from_numpy(one).to(dtype) for one in both)
    return of_output, of_kernel, of_input
