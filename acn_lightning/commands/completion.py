"""`acn completion`."""


def completion(shell: str, overrides: list[str]) -> str:
    """Print what a shell needs to complete commands, experiments, keys and values at TAB.

    Args:
        shell: "bash", "zsh" or "fish".
        overrides: none.

    Raises:
        UsageError: there is no such shell, or argcomplete is not installed.
    """
    from acn_lightning.utils.errors import UsageError, check_choice
    from acn_lightning.utils.optional import require_packages

    check_choice("SHELL", shell, ("bash", "zsh", "fish"))
    if overrides:
        raise UsageError(f"{overrides[0]}: acn completion has no options.")
    (argcomplete,) = require_packages("acn completion", "completion", "argcomplete")
    return argcomplete.shellcode(["acn"], shell=shell)
