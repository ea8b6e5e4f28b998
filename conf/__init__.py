"""Experiments, one YAML file each; `acn_lightning.config` reads them."""
