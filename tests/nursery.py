"""A Python that starts in a moment, for tests that start processes.

To import torch and Lightning takes a process five to ten seconds of a core. A nursery has done so
and forks the processes that are asked for. `python()` is a program to start in place of
`sys.executable`: what it is told to run, `-m MODULE`, `-c CODE` or a file, runs in a process forked
there, in the caller's folder, environment, streams and network. Signals are passed on, and so is
how the process ended. All test processes of a session share one nursery.
"""

import importlib
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import numpy
from filelock import FileLock

PRELOADED = ("acn_lightning.experiment.train", "acn_lightning.commands._report",
             "torch.distributed.run")  # fmt: skip
ROOT = Path(__file__).parents[1]

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys

link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: link.send(bytes([number])))
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
streams = []
for number in range(3):
    try:
        os.fstat(number)
        streams.append(number)
    except OSError:
        streams.append(os.open(os.devnull, os.O_RDWR))
try:
    streams.append(os.open("/proc/self/ns/net", os.O_RDONLY))
except OSError:
    pass  # not Linux: there are no networks to choose from
socket.send_fds(link, [len(request).to_bytes(8, "big")], streams)
link.sendall(request)
for stream in range(3):
    os.close(streams[stream])  # a pipe's other end sees when the process closes it
status = int.from_bytes(link.recv(4) or bytes([0, 0, 0, 1]), "big", signed=True)
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def owner() -> int:
    """The process whose end is the session's: pytest, also where it has several processes."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def python() -> str:
    """The program to start, with a nursery behind it."""
    folder = Path(tempfile.gettempdir()) / f"acn-nursery-{owner()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    client, address = folder / "python", folder / "socket"
    with FileLock(folder / "lock"):
        if not client.exists():
            log = (folder / "log").open("w")
            server = subprocess.Popen(
                [sys.executable, "-m", "tests.nursery", str(address), str(owner())],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            while not address.exists():
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
            client.chmod(0o700)
    return str(client)


# ---------------------------------------------------------------- in the nursery


def serve(address: str, session: int) -> None:
    """Forks a keeper for each client, until the session has ended."""
    for name in PRELOADED:
        importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(64)
    os.rename(address + ".new", address)
    keepers = 0
    while is_alive(session):
        while keepers and os.waitpid(-1, os.WNOHANG)[0]:
            keepers -= 1
        if select.select([listener], [], [], 1)[0]:
            link, _ = listener.accept()
            keepers += 1
            if os.fork() == 0:
                listener.close()
                keep(link)
            link.close()
    shutil.rmtree(Path(address).parent)


def is_alive(process: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def keep(link: socket.socket) -> None:
    """Forks what a client wants, passes it the client's signals, and tells the client its end. If
    the client is gone, so is the process."""
    size, streams, _, _ = socket.recv_fds(link, 8, 4)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += link.recv(2**16)
    child = os.fork()
    if child == 0:
        link.close()
        become(*json.loads(request), streams)
    for stream in streams:
        os.close(stream)
    threading.Thread(target=pass_on, args=(link, child), daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        link.send(status.to_bytes(4, "big", signed=True))
    finally:
        os._exit(0)


def pass_on(link: socket.socket, child: int) -> None:
    """Sends a process the signals that come in."""
    while number := link.recv(1):
        os.kill(child, number[0])
    os.kill(child, signal.SIGKILL)


def become(words: list[str], folder: str, variables: dict[str, str], streams: list[int]) -> None:
    """Runs what Python would with these words; does not return."""
    for number, stream in enumerate(streams[:3]):
        os.dup2(stream, number)
    enter_network(*streams[3:])
    for stream in streams:
        os.close(stream)
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.stdout = sys.__stdout__ = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.executable = str(Path(sys.argv[1]).with_name("python"))
    random.seed()
    numpy.random.seed()
    paths = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [*paths, *(path for path in sys.path if path != str(ROOT))]
    know_rank()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which pytest's workers ignore
    status = 1
    try:
        status = run(words)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    finally:
        end(status)


def enter_network(*streams: int) -> None:
    """Enters the network of the client, if it has another one."""
    import ctypes

    for stream in streams:
        if os.fstat(stream).st_ino != os.stat("/proc/self/ns/net").st_ino:
            known = ctypes.CDLL(None, use_errno=True)
            assert known.setns(stream, 0) == 0, os.strerror(ctypes.get_errno())


def know_rank() -> None:
    """Has Lightning read its rank from the environment, as it did when it was imported."""
    from lightning.fabric.utilities.rank_zero import _get_rank
    from lightning_utilities.core.rank_zero import rank_zero_only

    rank_zero_only.rank = _get_rank() or 0


def run(words: list[str]) -> int:
    """Python's own words, as far as tests and launchers use them; the exit status."""
    words = [word for word in words if word != "-u"]
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            sys.path.insert(0, os.getcwd())
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            sys.path.insert(0, os.getcwd())
            exec(words[1], {"__name__": "__main__"})
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).resolve().parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    return 0


def end(status: int) -> None:
    """Ends as Python does: non-daemon threads, what is to be done at exit, and the streams."""
    import atexit

    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or 120
    os._exit(status & 0xFF)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
