"""The launch files: what they start, and what they do about how it ends."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from acn_lightning.config.compose import compose
from acn_lightning.experiment.trainer import make_trainer
from acn_lightning.utils.errors import UsageError

FOLDER = Path(__file__).parents[1] / "cluster"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Makes a command that notes its words in a file and ends with a status."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def make(name, status=0, script=""):
        noted = tmp_path / f"{name}.txt"
        path = programs / name
        script = script.format(status=status)
        path.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {noted}\n{script}\nexit {status}\n')
        path.chmod(0o755)
        return noted

    return make


def bash(script, *words, **variables):
    return subprocess.run(
        ["bash", str(script), *words], env=os.environ | variables, capture_output=True, text=True
    )


WARNED = """
trap 'sleep 0.1; kill -USR1 $PPID; touch saved; exit {status}' USR1
sleep 0.2
kill -USR1 $PPID
for ((count = 0; count < 200; count++)); do sleep 0.05; done
"""
"""In the place of srun: SLURM warns the script, once more while the processes end."""


@pytest.mark.parametrize("warned", [True, False])
@pytest.mark.parametrize("status", [0, 137, 138, 143, 2])
def test_slurm_queues_a_job_again_whose_limit_was_near_and_no_other(stand_in, status, warned):
    srun, scontrol = stand_in("srun", status, WARNED if warned else ""), stand_in("scontrol")
    job = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "4", "SLURM_NTASKS_PER_NODE": "8",
           "SLURM_CPUS_PER_TASK": "6"}  # fmt: skip
    done = bash(FOLDER / "slurm.sbatch", "mnist+small", "data.root=DIR", **job)
    assert (done.returncode, done.stderr) == (status, "")
    first, second, *command = srun.read_text().splitlines()
    assert (first, second) == ("--kill-on-bad-exit=1", "--cpus-per-task=6")
    assert command[:3] == ["acn", "fit", "mnist+small"]
    trainer = compose(command[2], command[3:])["trainer"]
    assert (trainer["num_nodes"], trainer["devices"], trainer["strategy"]) == (4, 8, "ddp")
    assert Path("saved").exists() is warned  # the script has waited for it
    assert scontrol.exists() is (warned and status != 0)
    if scontrol.exists():
        assert scontrol.read_text().split() == ["requeue", "17"]


def test_slurm_warns_with_a_signal_that_a_run_listens_to():
    from acn_lightning.callbacks.signals import SIGNALS

    text = (FOLDER / "slurm.sbatch").read_text()
    asked = dict(re.findall(r"#SBATCH --(signal|requeue|open-mode)=?(?:B:)?(\w*)", text))
    assert f"SIG{asked['signal']}" in SIGNALS
    assert f"--signal=B:{asked['signal']}@" in text  # the script's, or it would end unheard
    assert {"requeue", "open-mode"} <= asked.keys()


def test_torchrun_says_what_it_lacks_and_starts_what_is_asked(stand_in):
    torchrun = stand_in("torchrun")
    done = bash(FOLDER / "torchrun.sh", "mnist")
    assert done.returncode != 0
    assert "HOSTS: how many hosts" in done.stderr
    hosts = {"HOSTS": "2", "GPUS": "8", "FIRST": "10.0.0.1", "JOB": "mine", "ADDRESS": "10.0.0.2"}
    done = bash(FOLDER / "torchrun.sh", "mnist", "data.root=a folder", **hosts)
    assert done.returncode == 0, done.stderr
    words = torchrun.read_text().splitlines()
    before, command = words[: words.index("fit")], words[words.index("fit") + 1 :]
    assert {"--rdzv-endpoint=10.0.0.1:29400", "--rdzv-id=mine", "--local-addr=10.0.0.2"} <= {
        *before
    }
    launched = get_args_parser().parse_args(words)  # all are options that torchrun has
    assert launched.shutdown_timeout > 30
    config = compose(command[0], command[1:])
    assert (config["trainer"]["num_nodes"], config["trainer"]["devices"]) == (2, 8)
    assert (config["data"]["root"], config["resume"]) == ("a folder", "auto")


def test_torchrun_needs_no_address_in_old_shells_either(stand_in):
    """bash before 4.4 takes an empty list for an unset variable."""
    torchrun = stand_in("torchrun")
    hosts = {"HOSTS": "2", "GPUS": "8", "FIRST": "10.0.0.1", "JOB": "mine", "ADDRESS": ""}
    assert bash(FOLDER / "torchrun.sh", "mnist", **hosts).returncode == 0
    words = torchrun.read_text().splitlines()
    assert words[words.index("--rdzv-id=mine") + 1] == "-m"
    assert '${own[@]+"${own[@]}"}' in (FOLDER / "torchrun.sh").read_text()


def test_kubernetes_counts_and_names_agree():
    service, job = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    words = container["args"]
    options = dict(word[2:].split("=") for word in words if word.startswith("--"))
    config = compose(words[words.index("fit") + 1], words[words.index("fit") + 2 :])
    hosts = {job["spec"]["completions"], job["spec"]["parallelism"], int(options["nnodes"])}
    assert hosts == {config["trainer"]["num_nodes"]}
    gpus = {int(options["nproc-per-node"]), container["resources"]["limits"]["nvidia.com/gpu"]}
    assert gpus == {config["trainer"]["devices"]}
    assert 30 < int(options["shutdown-timeout"]) < pod["terminationGracePeriodSeconds"]
    name = job["metadata"]["name"]
    assert options["rdzv-endpoint"] == f"{name}-0.{pod['subdomain']}:29400"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    claims = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == claims


PREEMPTED = """#!/bin/bash
# In the place of acn: waits for its end the first time, and is done the second.
echo "$OMP_NUM_THREADS" > threads
printf "%s\\n" "$@" > words-$BASHPID
if [ -e begun ]; then touch again; exit 0; fi
trap 'touch saved; exit 143' TERM
echo $PPID > begun
while true; do sleep 0.05; done
"""


@pytest.fixture
def submit(stand_in, tmp_path, monkeypatch):
    """Makes a command of a script, and runs `submit.py` with words."""
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("submitit is not installed")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_file_location("submit", FOLDER / "submit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(name, script, *words):
        stand_in(name)
        (tmp_path / "programs" / name).write_text(script)
        monkeypatch.setattr(sys, "argv", ["submit.py", *words])
        return module.main()

    return run


@pytest.mark.parametrize(("words", "cpus"), [([], 8), (["--cpus", "6"], 6)])
def test_submitit_asks_for_cores_and_hands_them_to_each_process(stand_in, submit, words, cpus):
    stand_in("srun")  # by which submitit knows SLURM
    script = "#!/bin/bash\necho Submitted batch job 17\n"
    assert len(submit("sbatch", script, *words, "mnist")) == 1
    (path,) = Path("runs/jobs").rglob("*submission.sh")
    asked, command = path.read_text().split("# command")
    assert f"#SBATCH --cpus-per-task={cpus}\n" in asked
    (srun,) = [line for line in command.splitlines() if line.startswith("srun ")]
    assert f" --cpus-per-task={cpus} " in srun


def test_submitit_saves_and_starts_again_what_is_preempted(submit, monkeypatch):
    """On this machine; what SLURM would do is submitit's."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    words = ["--cluster", "local", "--gpus", "1", "--cpus", "2", "mnist", "++", "seed=3"]
    (job,) = submit("acn", PREEMPTED, *words)
    end = time.monotonic() + 60
    while not (Path("begun").exists() and Path("begun").read_text().endswith("\n")):
        assert time.monotonic() < end, job.stdout()
        time.sleep(0.05)
    os.kill(int(Path("begun").read_text()), signal.SIGUSR1)  # as SLURM does to each task
    while not job.done():
        assert time.monotonic() < end, job.stdout()
        time.sleep(0.05)
    job.result()
    assert Path("saved").exists()
    assert Path("again").exists()
    assert Path("threads").read_text() == "2\n"
    first, second = (path.read_text().split() for path in Path().glob("words-*"))
    assert first == second
    assert first[:4] == ["fit", "mnist", "seed=3", "resume=auto"]
    assert compose(first[1], first[2:])["run"].endswith("-0")


TORCHRUN = {"TORCHELASTIC_RUN_ID": "mine", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4",
            "LOCAL_WORLD_SIZE": "2"}  # fmt: skip
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}  # fmt: skip
BATCH = {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "0",
         "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}  # fmt: skip
BY_HAND = SRUN | {"SLURM_JOB_NAME": "interactive"}


def trainer_under(launcher, monkeypatch, *words):
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    config = compose("digits", ["trainer.accelerator=cpu", *words])
    return config["trainer"]["devices"], make_trainer(config, [], [], Path())


@pytest.mark.parametrize(
    ("launcher", "devices"), [({}, 1), (TORCHRUN, 2), (SRUN, 2), (BATCH, 1), (BY_HAND, 1)]
)
def test_a_run_has_one_device_or_as_many_as_were_started(monkeypatch, launcher, devices):
    hosts = 2 if devices == 2 else 1
    usual, trainer = trainer_under(launcher, monkeypatch, f"trainer.num_nodes={hosts}")
    assert usual == 1
    assert (trainer.num_devices, trainer.world_size) == (devices, devices * hosts)


@pytest.mark.parametrize("launcher", [TORCHRUN, SRUN])
@pytest.mark.parametrize("word", ["seed=0", "trainer.devices=3"])
def test_processes_that_the_run_does_not_count_are_refused(monkeypatch, launcher, word):
    with pytest.raises(UsageError, match=r"4 processes have been started.* trainer.num_nodes=2"):
        trainer_under(launcher, monkeypatch, word)


@pytest.mark.parametrize(("tasks", "devices"), [(1, 2), (2, 1)])
def test_a_batch_script_without_srun_is_refused(monkeypatch, tasks, devices):
    """Lightning would start no process, train on one device, or wait for the others."""
    batch = BATCH | {"SLURM_NTASKS": str(tasks)}
    words = [f"trainer.devices={devices}", "trainer.strategy=ddp"]
    with pytest.raises(
        UsageError, match=rf"make {devices}, .* of {tasks}\. .* with srun, or unset"
    ):
        trainer_under(batch, monkeypatch, *words)
