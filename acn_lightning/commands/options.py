"""`acn options`."""


def options(key: str | None, overrides: list[str]) -> str:
    """List the keys of a config with types, defaults and choices.

    Args:
        key: a section, such as model.decoder, or a key, such as data.batch_size; by default the
            sections are listed.
        overrides: the kind to list the keys of, also your own:
            model.decoder.kind=package.module:Name. After a section, kind=NAME will do.

    Raises:
        UsageError: there is no such section, key or kind; or a word is about something else.
    """
    from acn_lightning.config.explain import about, overview

    if key is None and not overrides:
        return overview()
    return about(overrides[0].partition("=")[0] if key is None else key, overrides)
