"""Code outside this package that a config names."""

import json

from acn_lightning.config.compose import Plain, flatten
from acn_lightning.utils.registry import is_path

SOURCE = "data.source"
ENCODER = "model.encoder"
ENCODER_KIND, ENCODER_PATH = f"{ENCODER}.kind", f"{ENCODER}.path"


def imports_of(config: Plain) -> dict[str, str]:
    """Code outside this package that building a config imports: import paths by key."""
    return {
        key: value
        for key, value in flatten(config)
        if is_path(value) and (key.endswith(".kind") or key in (SOURCE, ENCODER_PATH))
    }


def words_for(config: Plain) -> list[str]:
    """The overrides that name the outside code in a config, as commands require, and what an
    encoder of any package is called with."""
    own = imports_of(config)
    if ENCODER_PATH in own:
        arguments = config["model"]["encoder"].get("arguments") or {}
        own |= dict(flatten({f"{ENCODER}.arguments": arguments}))
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in own.items()
    ]
