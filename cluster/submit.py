"""Submits runs to SLURM without a batch script; several runs become one job array.

    pip install submitit
    python cluster/submit.py --hosts 1 --gpus 8 mnist data.root=/shared/mnist
    python cluster/submit.py --gpus 1 mnist logger=wandb ++ seed=0 ++ seed=1 neighbours.k=10

Arguments before the first ++ go to `acn fit` in every run. Each ++ starts a run of its own with the
arguments that follow. Near the time limit, or when preempted, a job saves and ends, and submitit
(https://github.com/facebookincubator/submitit) requeues it; the run then resumes where it stopped.
Logs are in runs/jobs/. With --cluster local the same happens on this machine, without SLURM.
"""

import argparse
import os
import signal
import subprocess
from datetime import datetime
from pathlib import Path

# SLURM sends this signal to all processes of a job, so acn must handle it.
os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")

import submitit


class Run:
    """Runs `acn fit` in each task of a submitit job, with a thread for each core."""

    def __init__(self, words: list[str], cpus: int) -> None:
        self.words, self.cpus = words, cpus

    def __call__(self) -> None:
        environment = {"OMP_NUM_THREADS": str(self.cpus)} | os.environ
        self.child = subprocess.Popen(["acn", "fit", *self.words], env=environment)
        self._wait()
        if status := self.child.wait():
            raise SystemExit(status)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        os.kill(self.child.pid, signal.SIGTERM)  # all ranks stop after the same step
        self._wait()
        return submitit.helpers.DelayedSubmission(Run(self.words, self.cpus))

    def _wait(self) -> None:
        # Like `Popen.wait`, but without its lock: a signal handler may call this during a wait.
        os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)

    __submitit_checkpoint__ = checkpoint  # the name that submitit is changing to


def main() -> list["submitit.Job[None]"]:
    """Submits the jobs, and prints their numbers and arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=1, help="GPUs per host, with one process each")
    parser.add_argument("--cpus", type=int, default=8, help="CPU cores per process")
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--partition")
    parser.add_argument("--cluster", choices=["slurm", "local"], default="slurm")
    asked, words = parser.parse_known_args()
    common, *others = split(words)
    executor = submitit.AutoExecutor(folder=Path("runs/jobs/%j"), cluster=asked.cluster)
    executor.update_parameters(
        name="acn", nodes=asked.hosts, tasks_per_node=asked.gpus, gpus_per_node=asked.gpus,
        cpus_per_task=asked.cpus, timeout_min=round(60 * asked.hours), slurm_signal_delay_s=300,
        slurm_srun_args=[f"--cpus-per-task={asked.cpus}"],  # else one core, since SLURM 22.05
    )  # fmt: skip
    if asked.partition:
        executor.update_parameters(slurm_partition=asked.partition)
    if asked.hosts * asked.gpus > 1:
        common += [f"trainer.num_nodes={asked.hosts}", f"trainer.devices={asked.gpus}",
                   "trainer.strategy=ddp"]  # fmt: skip
    begun = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    with executor.batch():
        jobs = [
            executor.submit(
                Run([*common, *own, "resume=auto", f"run={begun}-{number}"], asked.cpus)
            )
            for number, own in enumerate(others or [[]])
        ]
    for job, own in zip(jobs, others or [[]], strict=True):
        print(job.job_id, *own)
    return jobs


def split(words: list[str]) -> list[list[str]]:
    """Splits words at each ++."""
    groups: list[list[str]] = [[]]
    for word in words:
        if word == "++":
            groups.append([])
        else:
            groups[-1].append(word)
    return groups


if __name__ == "__main__":
    main()
