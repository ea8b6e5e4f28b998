"""Standard output and standard error that do not end the work."""

import errno
import io
import os
import sys
from typing import Any

GONE = (errno.EPIPE, errno.EIO)
"""Errors of a stream whose reader has gone: `| head -1`, or a terminal that was closed."""


def steady_streams() -> None:
    """Replaces standard output and standard error. Characters that they cannot encode are escaped.
    Once the reader has gone, or if they are closed, output is discarded. Streams that other code
    has put there, such as a notebook's, stay."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        keep_open(descriptor)
        stream = getattr(sys, name)
        if name == "stdin":
            continue
        if stream is None:
            setattr(sys, name, wrap(Outlet(descriptor, "w", closefd=False), "utf-8"))
        elif is_own(stream, descriptor):
            setattr(sys, name, rewrap(stream, descriptor))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Outlet(io.FileIO):
    """A stream's file. After the first error what is written to it is discarded, so that it cannot
    fail again when Python exits. That the reader has gone is no error."""

    def write(self, content: Any, /) -> int:
        """Writes some of `content`; returns how many bytes."""
        try:
            return super().write(content)
        except BlockingIOError:
            raise
        except OSError as error:
            discard(self.fileno())
            if error.errno not in GONE:
                raise
            return memoryview(content).nbytes


def keep_open(descriptor: int) -> None:
    """Opens a descriptor that is closed. A file opened later would get its number, and with it what
    libraries print."""
    try:
        os.fstat(descriptor)
    except OSError:
        discard(descriptor)


def discard(descriptor: int) -> None:
    """Redirects a descriptor to nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def is_own(stream: object, descriptor: int) -> bool:
    """Whether a stream is the one that Python opened at its start."""
    if type(stream) is not io.TextIOWrapper:
        return False
    raw = getattr(stream.buffer, "raw", stream.buffer)  # without a buffer under python -u
    return type(raw) is io.FileIO and raw.fileno() == descriptor


def rewrap(stream: io.TextIOWrapper, descriptor: int) -> io.TextIOWrapper:
    """The stream with an `Outlet`, otherwise the same."""
    stream.flush()
    outlet = Outlet(descriptor, "w", closefd=False)
    return wrap(outlet, stream.encoding, stream.line_buffering, stream.write_through)


def wrap(
    outlet: Outlet, encoding: str, line_buffering: bool = True, write_through: bool = False
) -> io.TextIOWrapper:
    """A text stream that writes to an outlet."""
    buffer: Any = outlet if write_through else io.BufferedWriter(outlet)
    return io.TextIOWrapper(
        buffer,
        encoding,
        "backslashreplace",
        line_buffering=line_buffering,
        write_through=write_through,
    )
