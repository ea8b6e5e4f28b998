"""The base class of encoders, shapes, priors, decoders and likelihoods."""

from torch import nn

from acn_lightning.utils.registry import Registered


class Component(Registered, nn.Module):
    """A network that a config chooses by `kind`. Its families are `Encoder`, `Shape`, `Prior`,
    `Decoder` and `Likelihood`."""
