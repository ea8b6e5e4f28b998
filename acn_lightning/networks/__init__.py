"""Networks, most of which return a distribution. Importing them registers every kind."""

from acn_lightning.networks import (
    decoders,
    encoders,
    imported_encoder,
    likelihoods,
    priors,
    shapes,
)

__all__ = ["decoders", "encoders", "imported_encoder", "likelihoods", "priors", "shapes"]
