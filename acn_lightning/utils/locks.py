"""Locks between processes that end with the process that holds them, however that ends."""

import errno
from pathlib import Path

from filelock import BaseFileLock, FileLock

ABSENT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of a file system that has no locks, the last of them of NFS without a lock daemon."""


def make_lock(path: Path, timeout: float = -1) -> BaseFileLock:
    """A lock on a file; it is not held yet. Where there are no locks, filelock would have the file
    itself stand for one, and it would outlive a process that is killed.

    Args:
        path: of the file, which stays.
        timeout: seconds to wait for another process; -1 for ever.
    """
    return FileLock(path, timeout=timeout, fallback_to_soft=False)


def acquire(lock: BaseFileLock) -> None:
    """Takes a lock, if the file system has any: otherwise nobody holds one.

    Raises:
        OSError: its file cannot be written, or another process held it for too long.
    """
    try:
        lock.acquire()
    except NotImplementedError:
        return
    except OSError as error:
        if error.errno not in ABSENT:
            raise
