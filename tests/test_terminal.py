"""Output never ends the work: for want of a character, of a reader, or of a stream."""

import io
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning import cli
from acn_lightning.utils.errors import InterruptionError, UsageError
from acn_lightning.utils.files import local_path
from acn_lightning.utils.quiet import quiet_libraries
from acn_lightning.utils.terminal import Outlet, steady_streams, wrap
from tests.conftest import QUICK
from tests.processes import Run, lose_reader

SAY = """
import sys
from acn_lightning.utils.terminal import steady_streams
steady_streams()
for _ in range(20000):
    print("caf\\u00e9 \\udce9 \\U0001f600")
print("end", file=sys.stderr)
"""
"""A program that writes more than a pipe holds."""


def say(redirected, **environment):
    """Runs the program in a shell; what else it prints, and its status."""
    command = f'"{sys.executable}" -c "$SAY" {redirected}'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env=os.environ | {"SAY": SAY, "LC_ALL": "C.UTF-8"} | environment,
        capture_output=True,
        timeout=60,
    )
    return done.stdout.decode(), done.stderr.decode(), done.returncode


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_does_not_end_a_program(unbuffered):
    out, err, status = say("| head -1", PYTHONUNBUFFERED=unbuffered)
    assert out == "café \\udce9 \U0001f600\n"
    assert (err, status) == ("end\n", 0)
    assert say("2>&1 | head -1", PYTHONUNBUFFERED=unbuffered)[1:] == ("", 0)


def test_closed_streams_take_what_is_written():
    assert say(">&-") == ("", "end\n", 0)
    assert say("2>&- | tail -1") == ("café \\udce9 \U0001f600\n", "", 0)
    assert say("<&- >&- 2>&-") == ("", "", 0)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_characters_that_a_stream_lacks_are_escaped(environment):
    out, err, status = say("| tail -1", **environment)
    assert out == "caf\\xe9 \\udce9 \\U0001f600\n"
    assert (err, status) == ("end\n", 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error_once():
    _, err, status = say("> /dev/full")
    assert err.splitlines()[-1] == "OSError: [Errno 28] No space left on device"
    assert "Exception ignored" not in err
    assert status == 1


def test_a_run_whose_reader_goes_away_ends_well(tmp_path):
    run = Run(
        "fit", "digits", *QUICK, "trainer.max_epochs=1", "trainer.limit_train_batches=2",
        "run=mine", "data.subset=200", folder=tmp_path, before=lose_reader,
    )  # fmt: skip
    assert run.ended()[0] == 0
    assert (tmp_path / "runs/digits/mine/checkpoints/last.ckpt").is_file()
    assert (tmp_path / "runs/digits/mine/results.json").is_file()


def test_streams_of_others_stay(monkeypatch):
    for stream in (io.StringIO(), io.TextIOWrapper(io.BytesIO(), "ascii")):
        monkeypatch.setattr(sys, "stdout", stream)
        steady_streams()
        assert sys.stdout is stream
    print("é", flush=True)
    assert stream.buffer.getvalue() == b"\\xe9\n"


def test_what_was_not_written_when_the_reader_went_is_discarded():
    read, write = os.pipe()
    stream = wrap(Outlet(write, "w", closefd=False), "utf-8")
    os.close(read)
    print("x" * 100_000, file=stream)
    stream.flush()
    stream.close()
    os.close(write)


# ---------------------------------------------------------------- what acn prints


def test_errors_are_one_line_without_control_characters(acn):
    status, out, err = acn("show", "digits", "zz\n\x1b[2J\udce9=1")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "zz\\n\\x1b[2J\\udce9" in err


@pytest.mark.parametrize(
    ("result", "printed"),
    [
        ("a\x1bb\nc\td", "a\\x1bb\nc\\td\n"),
        (Path("a\nb"), "a\\nb\n"),
        ([Path("a\nb"), Path("\udce9")], "a\\nb\n\\udce9\n"),
    ],
)
def test_results_are_printed_without_control_characters(result, printed, capsys):
    cli.print_result(result)
    assert capsys.readouterr().out == printed


def test_a_config_that_is_shown_can_be_read_again(acn):
    root = "caf\udce9\u00a0\u202e\x1b"
    status, out, _ = acn("show", "folder", f"data.root={root}", "run=007")
    assert status == 0
    assert out.replace("\n", "").isprintable()
    Path("shown.yaml").write_text(out, "utf-8")
    assert acn("show", "shown.yaml")[1] == out


def test_warnings_are_one_line():
    with quiet_libraries():
        warning = UserWarning("a\x1b\n  b")
        shown = warnings.formatwarning(warning, UserWarning, "file.py", 3, line="x")
    assert shown == "acn: warning: a\\x1b b\n"


def test_advice_to_developers_is_not_shown():
    with warnings.catch_warnings(record=True) as shown, quiet_libraries():
        warnings.warn(
            "It is recommended to use `self.log('codes/drift', ..., sync_dist=True)` when logging",
            stacklevel=1,
        )
    assert not shown


def test_too_little_memory_is_one_line(acn, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(cli, "call", fail)
    assert acn("show") == (2, "", "acn: not enough memory.\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_import_that_a_signal_breaks_is_an_interruption(acn, monkeypatch, number, status):
    def half_imported(*_):
        try:
            signal.raise_signal(number)
        except BaseException as stop:  # as torch does in the middle of its own import
            raise AttributeError("partially initialized module 'torch'") from stop

    monkeypatch.setattr(cli, "call", half_imported)
    monkeypatch.setitem(sys.modules, "acn_lightning.utils.distributed", None)  # nor can it be
    assert acn("show") == (status, "", "\nacn: interrupted.\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(("launcher", "status"), [("LOCAL_RANK", 0), ("TORCHELASTIC_RUN_ID", 143)])
def test_torchrun_is_told_of_a_stop_by_every_process(monkeypatch, capsys, launcher, status):
    """Of a host without rank 0 it would believe that all is done."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv(launcher, "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert cli.interrupted(InterruptionError(None, 143), []) == status
    assert capsys.readouterr().err == ""


def test_the_command_to_resume_with_can_be_pasted(capsys):
    stop = InterruptionError(Path("my runs/digits/a b/checkpoints/last.ckpt"), 130)
    assert cli.interrupted(stop, []) == 130
    words = "acn fit 'my runs/digits/a b/config.yaml' 'run=a b' resume=auto"
    assert capsys.readouterr().err.endswith(f"Resume with: {words}\n")


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "digits", "trainer.default_root_dir=s3://bucket/runs"),
        ("fit", "digits", "trainer.default_root_dir=~nosuchuser/x"),
        ("fit", "folder", "data.root=https://host/photos"),
        ("fit", "folder", "data.root=~nosuchuser/x"),
        ("fit", "digits", "run=a\0b"),
        ("show", "digits\0"),
    ],
)
def test_what_is_no_path_of_this_machine_takes_one_line(acn, words):
    status, _, err = acn(*words)
    assert status == 2
    assert err.count("\n") == 1
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("out", ["s3://bucket/found", "~nosuchuser/found", "a\0b"])
@pytest.mark.parametrize("command", ["neighbours", "export", "compress", "onnx"])
def test_outputs_are_paths_of_this_machine(acn, trained, checkpoint, command, out):
    image = trained / "photos" / "digit 0" / "00.png"
    images = [] if command == "onnx" else [f"data.root={trained / 'photos'}"]
    images += [image] if command in ("neighbours", "compress") else []
    status, _, err = acn(command, checkpoint, *images, f"out={out}")
    assert status == 2
    assert err.startswith("acn: out: ")
    assert err.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_the_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/x #1", "out") == tmp_path / "x #1"
    assert local_path("a/~/b", "out") == Path("a/~/b")
    with pytest.raises(UsageError, match="out: gs"):
        local_path("gs://x", "out")
