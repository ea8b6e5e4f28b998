"""How much memory there is, asked before something large is read, and shared by threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from threading import Condition

from acn_lightning.utils.distributed import started
from acn_lightning.utils.errors import UsageError

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux tells the limits of all groups of processes, and which of them this process is in."""


def total_memory() -> int:
    """Bytes that this process can have at most: the machine's memory, or the limit of its container
    or of its job."""
    most = 2**63
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in limit_files():
        try:
            most = min(most, int(path.read_text("ascii")))
        except (OSError, ValueError):  # no container, or no limit
            continue
    return most


def quarter_of_memory() -> int:
    """A quarter of it in bytes, for images, divided by the processes that torchrun or srun has
    started on this host: each reads its own."""
    return total_memory() // (4 * started()[1])


def limit_files() -> list[Path]:
    """Files that may tell the memory's limit of a group that this process is in, or of one above
    it; for both versions of Linux's control groups. SLURM, for one, gives each job a group below
    the top one."""
    own = {"": PurePosixPath("/"), "memory": PurePosixPath("/")}
    with suppress(OSError, ValueError):  # not Linux
        for line in OWN.read_text("utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            own |= {kind: PurePosixPath(path) for kind in kinds.split(",") if kind in own}
    return [
        GROUPS / kind / str(one).lstrip("/") / name
        for kind, name in {"": "memory.max", "memory": "memory.limit_in_bytes"}.items()
        for one in (own[kind], *own[kind].parents)
    ]


def check_memory(complaint: str, size: int) -> None:
    """Checks that an array fits into memory at all. Linux promises more than there is, and later
    kills the process without a word.

    Args:
        complaint: what the error begins with.
        size: bytes of the array.

    Raises:
        UsageError: it does not.
    """
    if size > (most := total_memory()):
        raise UsageError(
            f"{complaint} needs {size / 2**30:,.1f} GiB of memory; this machine has "
            f"{most / 2**30:,.1f}."
        )


class Room:
    """Memory that threads share: who finds too little left waits for the others.

    Args:
        size: how much all may take at once, in any unit.
    """

    def __init__(self, size: int) -> None:
        self.size = self.left = size
        self.returned = Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Takes so much while the body of the `with` statement runs. What is larger than the whole
        room waits until it is alone."""
        size = min(size, self.size)
        with self.returned:
            self.returned.wait_for(lambda: self.left >= size)
            self.left -= size
        try:
            yield
        finally:
            with self.returned:
                self.left += size
                self.returned.notify_all()
