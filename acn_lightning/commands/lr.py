"""`acn lr`."""

ROWS = 20
"""Rows of the table, and width of its longest bar."""


def lr(
    name: str, overrides: list[str], *, lowest: float = 1e-6, highest: float = 1.0, steps: int = 120
) -> str:
    """Suggest a learning rate: train for a moment with growing ones; nothing is written.

    Args:
        name: an experiment or a YAML file, plus any layers: mnist+small.
        overrides: changes to its config.
        lowest: learning rate of the first step.
        highest: learning rate of the last step; stops earlier if the loss diverges.
        steps: number of training steps.

    Raises:
        UsageError: the config, the data or an option is wrong, or the loss explodes at once.
    """
    from acn_lightning.config.compose import compose
    from acn_lightning.experiment.learning_rate import suggestion, try_rates

    tried = try_rates(compose(name, overrides), lowest, highest, steps)
    found = suggestion(tried)
    shown = tried[:: max(1, -(-len(tried) // ROWS))]
    losses = [loss for _, loss in shown]
    low, spread = min(losses), max(losses) - min(losses) or 1.0
    rows = [
        f"{rate:13.1e}{loss:12.2f}  {'#' * round(ROWS * (loss - low) / spread)}"
        for rate, loss in shown
    ]
    return "\n".join(
        ["learning rate        loss", *rows, "", f"Suggestion: optimizer.learning_rate={found:g}"]
    )
