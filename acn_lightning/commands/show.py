"""`acn show`."""


def show(name: str | None, overrides: list[str], *, explain: bool = False) -> str:
    """Print the complete config of an experiment.

    Args:
        name: an experiment or a YAML file, plus any layers: mnist+small; by default digits.
        overrides: changes to its config.
        explain: whether to say what each key is, in comments of the YAML.
    """
    from acn_lightning.config.compose import compose, to_yaml
    from acn_lightning.config.explain import explained

    config = compose(name or "digits", overrides)
    return explained(config) if explain else to_yaml(config).rstrip()
