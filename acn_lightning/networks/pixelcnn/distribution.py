"""The autoregressive distribution over images that a gated PixelCNN defines."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from acn_lightning.networks.distributions import check_one_sample
from acn_lightning.networks.likelihoods import Likelihood
from acn_lightning.networks.pixelcnn.network import GatedPixelCNN
from acn_lightning.networks.pixelcnn.sampler import IncrementalSampler


class AutoregressiveImages(Distribution):
    """prod_i r(x_i | x_1, ..., x_(i-1), z), in raster order: batch shape (B,), event shape
    (C, H, W). It has no closed-form mean.

    Args:
        network: gives each pixel's parameters from the pixels before it and the condition.
        likelihood: turns these parameters into a distribution.
        features: the condition, (B, F, H, W) or (B, F, 1, 1); None if there is none.
        batch: B.
        event_shape: (C, H, W).
    """

    arg_constraints = {}  # noqa: RUF012  # torch's name and type for it

    def __init__(
        self,
        network: GatedPixelCNN,
        likelihood: Likelihood,
        features: Tensor | None,
        batch: int,
        event_shape: Sequence[int],
    ) -> None:
        self.network, self.likelihood, self.features = network, likelihood, features
        super().__init__(torch.Size([batch]), torch.Size(event_shape), validate_args=False)

    def describe(self, value: Tensor) -> Tensor:
        """The parameters of each pixel's distribution given the pixels before it, (B, P, H, W), in
        one pass over all pixels."""
        parameters: Tensor = self.network(value, self.features)
        return parameters

    def log_prob(self, value: Tensor) -> Tensor:
        """log r(x|z) in nats, (B,)."""
        log_prob: Tensor = self.likelihood(self.describe(value)).log_prob(value)
        return log_prob

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Samples pixel by pixel, all images of the batch at once."""
        check_one_sample(sample_shape)
        return self.fill(lambda parameters: self.likelihood(parameters).sample())

    @torch.no_grad()
    def fill(self, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Images whose pixels are chosen one by one, in raster order, for all images of the batch
        at once.

        Args:
            choose: maps a pixel's parameters (B, P, 1, 1) to its values (B, C, 1, 1).
        """
        weight = self.network.output.weight
        image = torch.zeros(
            *self.batch_shape, *self.event_shape, device=weight.device, dtype=weight.dtype
        )
        height, width = image.shape[2:]
        with torch.autocast(weight.device.type, enabled=False):
            pixels = IncrementalSampler(self.network, self.features, len(image), width)
            for i in range(height):
                pixels.start_row(i, image[:, :, i - 1 : i] if i else None)
                for j in range(width):
                    parameters = pixels.next(j, image[:, :, i, j - 1] if j else None)
                    image[:, :, i, j] = choose(parameters[:, :, None, None])[:, :, 0, 0]
        return image
