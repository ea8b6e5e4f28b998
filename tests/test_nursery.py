"""The quick Python does what Python does."""

import os
import signal
import subprocess
import sys

import pytest

from tests.nursery import python

SAY = """
import os, sys
print(os.getcwd(), sys.argv, os.environ["WORD"], sys.stdin.read(), __name__, flush=True)
os.write(2, b"err")
sys.exit({status})
"""


@pytest.mark.parametrize(("end", "status"), [("3", 3), ("None", 0), ("'a line'", 1)])
@pytest.mark.parametrize("how", ["-c", "-m", "file"])
def test_words_streams_folder_environment_and_status(tmp_path, how, end, status):
    code = SAY.format(status=end)
    (tmp_path / "said.py").write_text(code)
    words = {"-c": ["-c", code], "-m": ["-u", "-m", "said"], "file": ["said.py"]}[how]
    real, quick = (
        subprocess.run([program, *words, "one", "two words"], input="typed", text=True,
                       capture_output=True, cwd=tmp_path, env=os.environ | {"WORD": "é\n"})
        for program in (sys.executable, python())
    )  # fmt: skip
    assert quick.returncode == real.returncode == status
    assert (quick.stdout, quick.stderr) == (real.stdout, real.stderr)


def test_an_error_is_said():
    done = subprocess.run([python(), "-c", "1 / 0"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_end_it(number):
    """The pipe is at its end when the forked process has ended, not only the one that stands for
    it."""
    code = "import time; print(1); time.sleep(99)"
    process = subprocess.Popen([python(), "-u", "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == b""
    assert process.returncode == -number


def test_torch_is_there_already():
    code = "import sys; print({'torch', 'lightning', 'acn_lightning.module'} <= set(sys.modules))"
    done = subprocess.run([python(), "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
