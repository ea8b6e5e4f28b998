"""A rehearsal of two hosts: two network namespaces with an address each, torchrun over both."""

import os
import signal
import subprocess
import time

import pytest

from tests.nursery import ROOT, python
from tests.test_experiment import rows, same
from tests.test_processes import FIT, last_of, whole  # noqa: F401  # a fixture

ADDRESSES = ("10.77.0.1", "10.77.0.2")


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def hosts():
    """The names of two network namespaces that reach each other and nothing else."""
    names = [f"acn-{os.getpid()}-{number}" for number in range(2)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", "wire", "netns", names[0], "type", "veth", "peer", "name", "wire",
               "netns", names[1])  # fmt: skip
            for name, address in zip(names, ADDRESSES, strict=True):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
                ip("-n", name, "link", "set", "wire", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", None) or error
            pytest.skip(f"network namespaces need iproute2 and the right to make them: {why}")
        yield names
    finally:
        for name in names:
            kill(name)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def kill(host):
    """All its processes at once, as a crash does."""
    found = subprocess.run(
        ["ip", "netns", "pids", host], capture_output=True, text=True, check=False
    )
    for number in found.stdout.split():
        os.kill(int(number), signal.SIGKILL)


def start(hosts, folder, *words):
    """The launch file on both; logs go to files in the folder."""
    torchrun = folder / "programs" / "torchrun"
    torchrun.parent.mkdir(exist_ok=True)
    torchrun.write_text(f'#!/bin/bash\nexec {python()} -m torch.distributed.run "$@"\n')
    torchrun.chmod(0o755)
    processes = []
    for host, address in zip(hosts, ADDRESSES, strict=True):
        variables = {"HOSTS": "2", "GPUS": "1", "FIRST": ADDRESSES[0], "JOB": "job",
                     "ADDRESS": address, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "wire",
                     "PATH": f"{torchrun.parent}:{os.environ['PATH']}",
                     "PYTHONPATH": str(ROOT)}  # fmt: skip
        log = (folder / f"{address}.log").open("a")
        processes.append(subprocess.Popen(
            ["ip", "netns", "exec", host, "bash", ROOT / "cluster/torchrun.sh", *words],
            stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=os.environ | variables,
        ))  # fmt: skip
    return processes


def logs(folder):
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.log")))


def test_a_host_that_is_lost_ends_the_job_which_goes_on_to_the_same_end(hosts, whole, tmp_path):  # noqa: F811
    _, *options = FIT
    words = [*options, "trainer.accelerator=cpu", "checkpoints.every_n_steps=4"]
    folder = tmp_path / "runs" / "digits" / "torchrun-job"
    metrics = folder / "metrics.csv"
    first, second = start(hosts, tmp_path, *words)
    end = time.monotonic() + 120
    while not (metrics.is_file() and 0 in rows(folder)):
        assert first.poll() is None, logs(tmp_path)
        assert time.monotonic() < end, logs(tmp_path)
        time.sleep(0.05)
    kill(hosts[1])
    assert second.wait(10) != 0
    assert first.wait(60) != 0  # and not half an hour later
    assert "acn: another process of this run has ended" in logs(tmp_path)
    assert last_of(folder)["global_step"] < 20
    for process in start(hosts, tmp_path, *words):
        assert process.wait(120) == 0, logs(tmp_path)
    one, other = last_of(whole[0]), last_of(folder)
    for part in ("state_dict", "optimizer_states", "code_bank", "epoch", "global_step"):
        assert same(one[part], other[part]), part
    assert rows(whole[0]) == rows(folder)
