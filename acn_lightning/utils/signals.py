"""Handlers of signals, for a while."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handling(
    names: Iterable[str], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handles signals while the body of the `with` statement runs. Those that the caller ignores
    stay ignored, as under nohup; those that this system lacks are left out.

    Args:
        names: of the signals, such as "SIGTERM".
        handler: called with the signal's number and a frame. In any but the main thread, which
            cannot handle signals, it never is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    heard = [one for one in numbers if signal.getsignal(one) != signal.SIG_IGN]
    before = {one: signal.signal(one, handler) for one in heard}
    try:
        yield
    finally:
        for one, old in before.items():
            signal.signal(one, old)
