"""`acn show`."""


def show(name: str | None, overrides: list[str]) -> str:
    """Print the complete config of an experiment.

    Args:
        name: an experiment or a YAML file, plus any layers: mnist+small; by default digits.
        overrides: changes to its config.
    """
    from acn_lightning.config.compose import compose, to_yaml

    return to_yaml(compose(name or "digits", overrides)).rstrip()
