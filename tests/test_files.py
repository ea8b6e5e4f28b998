"""Outputs appear whole or not at all, replace nothing, and follow no link."""

# ruff: noqa: PT012  # what is tested is a whole `with` block

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from acn_lightning.cli import signals_end_it
from acn_lightning.utils import files
from acn_lightning.utils.errors import InterruptionError, UsageError
from acn_lightning.utils.files import new_file, new_folder, partial_name, replacing
from acn_lightning.utils.locks import acquire, make_lock


def listening():
    return signals_end_it()


WRITERS = (replacing, new_file, new_folder)


def write(beside, text="new"):
    (beside / "inside" if beside.is_dir() else beside).write_text(text)


def left():
    return sorted(path.name for path in Path().iterdir())


@pytest.mark.parametrize("writer", WRITERS)
def test_a_path_appears_when_all_is_written(writer):
    with writer(Path("a/b/out")) as beside:
        write(beside)
        assert not Path("a/b/out").exists()
        assert beside.parent == Path("a/b")
    path = Path("a/b/out")
    assert (path / "inside" if path.is_dir() else path).read_text() == "new"
    assert [one.name for one in Path("a/b").iterdir()] == ["out"]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_what_fails(writer, error):
    with pytest.raises(error), writer(Path("out")) as beside:
        write(beside)
        raise error
    assert left() == []


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_an_error_that_names_the_file(writer):
    with pytest.raises(OSError, match="no space left to write out"), writer(Path("out")) as beside:
        write(beside)
        raise OSError(errno.ENOSPC, "No space left on device")
    assert left() == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EIO])
def test_a_folder_that_cannot_be_flushed_is_no_error(monkeypatch, number):
    def refused(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) or number == errno.EIO:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    broken = (
        pytest.raises(OSError, match=os.strerror(number)) if number == errno.EIO else nullcontext()
    )
    with broken, replacing(Path("out"), durable=True) as beside:
        write(beside)
    assert left() == ([] if number == errno.EIO else ["out"])


def test_an_old_file_stays_if_its_replacement_fails():
    Path("out").write_text("old")
    with pytest.raises(RuntimeError), replacing(Path("out")) as beside:
        write(beside)
        raise RuntimeError
    assert (left(), Path("out").read_text()) == (["out"], "old")
    with replacing(Path("out"), durable=True) as beside:
        write(beside)
    assert (left(), Path("out").read_text()) == (["out"], "new")


@pytest.mark.parametrize("writer", [new_file, new_folder])
@pytest.mark.parametrize("kind", ["file", "folder", "link", "dead link"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_nothing_that_exists_is_replaced(writer, kind, when):
    def appear():
        match kind:
            case "file":
                Path("out").write_text("old")
            case "folder":
                Path("out").mkdir()
            case "link":
                Path("other").write_text("old")
                Path("out").symlink_to("other")
            case "dead link":
                Path("out").symlink_to("nowhere")

    if when == "before":
        appear()
    with pytest.raises(UsageError, match="out: out already exists"), writer(Path("out")) as beside:
        write(beside)
        appear()
    assert not [name for name in left() if name.endswith(".partial")]
    assert Path("out").is_dir() or Path("out").is_symlink() or Path("out").read_text() == "old"
    assert not Path("nowhere").exists()


def test_two_writers_of_one_path_do_not_disturb_each_other():
    with (
        pytest.raises(UsageError, match="already exists"),
        new_folder(Path("out")) as first,
        new_folder(Path("out")) as second,
    ):
        assert first != second
        write(first, "first")
        write(second, "second")  # is done before the first
    assert (left(), Path("out/inside").read_text()) == (["out"], "second")


def test_a_temporary_file_is_never_an_existing_one_nor_through_a_link(monkeypatch):
    monkeypatch.setattr(files, "partial_name", lambda path: path.with_name("guessed"))
    Path("precious").write_text("mine")
    Path("guessed").symlink_to("precious")
    for writer in (replacing, new_file):
        with pytest.raises(FileExistsError), writer(Path("out")):
            pass
    assert Path("precious").read_text() == "mine"


def test_without_hard_links_a_new_file_is_renamed(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    with new_file(Path("out")) as beside:
        write(beside)
    assert (left(), Path("out").read_text()) == (["out"], "new")


def test_what_killed_processes_left_is_removed():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {}
    for key, process, host, age in (
        ("old", ended.pid, files.host(), 7200), ("recent", ended.pid, files.host(), 0),
        ("running", os.getpid(), files.host(), 7200), ("elsewhere", ended.pid, "other", 7200),
    ):  # fmt: skip
        names[key] = Path(f".acn-{host}-{process}-{'0' * 15}{len(names)}.partial")
        names[key].write_text("half")
        os.utime(names[key], (time.time() - age,) * 2)
    with replacing(Path("out")) as beside:
        write(beside)
    assert left() == sorted(
        [*(names[key].name for key in ("recent", "running", "elsewhere")), "out"]
    )
    assert files.PARTIAL.fullmatch(partial_name(Path("out")).name)


def test_a_path_that_cannot_be_written_is_named():
    Path("file").touch()
    for writer in (new_file, new_folder):
        with (
            pytest.raises(UsageError, match="out: cannot write file/out"),
            writer(Path("file/out")),
        ):
            pass
    assert left() == ["file"]


@pytest.fixture(params=[signal.SIGTERM, signal.SIGHUP])
def number(request):
    """A signal that nobody handles or ignores, though nohup may have started the tests."""
    before = signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_leaves_nothing_half_written(number):
    with pytest.raises(InterruptionError) as raised, listening(), new_folder(Path("out")) as beside:
        write(beside)
        os.kill(os.getpid(), number)
    assert raised.value.status == 128 + number
    assert left() == []
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_signal_that_the_caller_ignores_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_file_system_without_locks_keeps_no_file_for_one(monkeypatch, tmp_path):
    """Such a file would outlive a process that is killed."""
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / ".lock"
    for number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):

        def absent(*_, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", absent)
        locks = [make_lock(path, timeout=0.1) for _ in range(2)]
        for lock in locks:
            acquire(lock)
            assert not lock.is_locked
        for lock in locks:
            lock.release()
    monkeypatch.undo()
    with make_lock(path), pytest.raises(TimeoutError):
        acquire(make_lock(path, timeout=0.1))
