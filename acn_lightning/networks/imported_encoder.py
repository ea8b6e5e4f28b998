"""An encoder from your own code or another package."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from acn_lightning.networks.encoders import Encoder, FeatureEncoder
from acn_lightning.networks.weights import describe_report, load_matching, read_weights
from acn_lightning.utils.errors import UsageError, one_line
from acn_lightning.utils.registry import import_object
from acn_lightning.utils.text import shape_words


class ImportedEncoder(FeatureEncoder, Encoder, kind="import"):
    """A feature network from your own code or another package, then one linear layer to the mean,
    which is always trained here.

    A code in the bank should equal the one that the same weights give afterwards. If the network
    has batch normalisation or dropout, freeze it (`finetune.freeze`), or leave `refresh.encode` on,
    which encodes the bank in evaluation mode at each boundary.

    Args:
        image_shape: (C, H, W).
        code_size: D.
        path: package.module:Name of an `nn.Module`, or of a function that returns one. The network
            maps images (B, C, H, W) in [-1, 1] to features (B, ...). Modules in the current folder
            are found too.
        arguments: keyword arguments to construct it with.
        weights: a file of weights for it, see `read_weights`. Tensors that do not fit keep their
            initial values, with a warning.
        float32: compute features in 32 bits, whatever the precision. With 16 bits, which are faster
            on a GPU, a network that starts from random weights may never learn; one with trained
            weights does not need 32.

    Raises:
        UsageError: there is no such network, it cannot be constructed, it does not accept the
            images, or none of the weights fit.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        code_size: int,
        *,
        path: str = "",
        arguments: dict[str, Any] | None = None,
        weights: str | None = None,
        float32: bool = True,
    ) -> None:
        super().__init__()
        self.float32 = float32
        self.body = make(path, arguments or {})
        if weights is not None:
            taken = load_matching(self.body, read_weights(weights))
            if not taken.names:
                raise UsageError(f"model.encoder.weights: no tensor of {weights} fits {path}.")
            own = dict(self.body.named_parameters())
            self.pretrained = [f"body.{name}" for name in taken.names if name in own]
            if taken.anew or taken.left:
                found = "\n".join([f"weights of {weights} for {path}", *describe_report(taken)])
                rank_zero_warn(found)
        try:
            with torch.no_grad(), isolate_rng(include_cuda=False):
                features = self.body.eval()(torch.zeros(2, *image_shape)).flatten(1).shape[1]
        except Exception as error:  # a foreign network may raise anything
            size = shape_words(image_shape)
            raise UsageError(
                f"model.encoder.path: {path} returns no features (B, ...) for images of {size}: "
                f"{one_line(error)}"
            ) from error
        self.body.train()
        self.make_mean(features, code_size)


def make(path: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Constructs the network at package.module:Name.

    Raises:
        UsageError: there is none, or it cannot be constructed.
    """
    found = import_object(path, "model.encoder.path")
    try:
        network = found(**arguments)
    except Exception as error:  # foreign code may raise anything
        raise UsageError(
            f"model.encoder.path: {path} cannot be constructed: {one_line(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"model.encoder.path: {path} does not return an nn.Module.")
    return network
