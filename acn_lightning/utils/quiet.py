"""Hides library messages that a user cannot act on, and shows warnings on one line."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from acn_lightning.utils.text import printable

UNNEEDED = (
    ".*does not have many workers.*",  # data is in memory: workers would slow it down
    ".*smaller than the logging interval.*",  # we log per epoch
    ".*Experiment logs directory.*exists and is not empty.*",  # it holds our config.yaml
    ".*Checkpoint directory.*exists and is not empty.*",  # a run that resumes; new ones are checked
    ".*LeafSpec.*is deprecated.*",  # between Lightning and torch
    ".*The dirpath has changed.*",
    ".*recommended to use `self.log.*sync_dist.*",  # what one process measures for all of them
    ".*distributed.nn.functional.* is deprecated.*",
)
"""Warnings that would make a user look for problems that do not exist."""

ADVERTS = ("litlogger", "litmodels", "`weights_only` was not set")
"""Parts of Lightning's adverts, and of a message about loading that it logs when saving."""

LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
)
"""Where Lightning logs these."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hides messages and shows warnings on one line while the body runs."""
    shown, loggers = warnings.formatwarning, [logging.getLogger(name) for name in LOGGERS]
    with warnings.catch_warnings():
        for message in UNNEEDED:
            warnings.filterwarnings("ignore", f"(?s){message}")  # a path may hold a line break
        warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no file; our report does
        warnings.formatwarning = warning_line
        for logger in loggers:
            logger.addFilter(keep_record)
        try:
            yield
        finally:
            warnings.formatwarning = shown
            for logger in loggers:
                logger.removeFilter(keep_record)


def keep_record(record: logging.LogRecord) -> bool:
    """Whether a message of Lightning's is shown, without control characters from paths in it."""
    message = record.getMessage()
    record.msg, record.args = "\n".join(map(printable, message.split("\n"))), ()
    return not any(word in message for word in ADVERTS)


def warning_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as it is printed."""
    return f"acn: warning: {printable(' '.join(str(message).split()))}\n"
