"""Runs of several processes, started as users start them."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from tests.conftest import QUICK
from tests.nursery import ROOT, python
from tests.processes import (
    Run,
    compare_statistics,
    compare_weights,
    fail_as_first,
    take_long_as_first,
)
from tests.test_experiment import rows, same, wait_for

TWO = ("trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")
FIT = (
    "fit", "digits", *QUICK, "data.subset=700", "pictures.every_n_epochs=0",
    "evaluation.linear=none", "data.binarisation=dynamic", "trainer.max_epochs=4",
)  # fmt: skip


def start(*words, cwd, **variables):
    """Python, with a group of its own for all the processes that it starts."""
    known = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [python(), *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        env=os.environ | known | variables, start_new_session=True,
    )  # fmt: skip


def ended(process, timeout=120):
    """(status, what it said). It waits for all that write there: every process of the run."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out + err


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of a run of two processes that Lightning started, and what it said. One run, also
    where pytest itself has several processes."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "whole"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            words = ["-m", "acn_lightning", *FIT, *TWO]
            status, said = ended(start(*words, cwd=folder))
            assert status == 0, said
            (folder / "said").write_text(said)
    (run,) = folder.glob("runs/*/*")
    return run, (folder / "said").read_text()


def last_of(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_two_processes_count_each_image_once_and_fill_one_bank(acn, whole):
    folder, said = whole
    assert said.count("codes refreshed, last epoch") == 1
    assert "630 of 630" in said
    # each process takes half of the 630 images: 5 steps of 64 an epoch
    assert last_of(folder)["global_step"] == 20
    results = json.loads((folder / "results.json").read_text())
    assert results["images"] == 359
    one = ["trainer.devices=1", "trainer.strategy=auto", "trainer.default_root_dir=tested"]
    assert acn("test", folder / "checkpoints" / "best.ckpt", *one)[0] == 0
    (tested,) = Path("tested").glob("*/*/results.json")
    again = json.loads(tested.read_text())
    assert again["accuracy"]["knn"] == pytest.approx(results["accuracy"]["knn"], abs=1e-6)
    costs = [run["nats_per_image"]["ordered"] for run in (results, again)]
    assert costs[0] == pytest.approx(costs[1], rel=0.02)  # other noise in z
    metrics = rows(folder)
    assert [float(metrics[epoch]["bank/refreshed"]) for epoch in range(4)] == 4 * [630]
    received = float(metrics[1]["bank/received_megabytes"]) * 1e6
    # rows and codes of the other half of all 700 images, and its part of the table
    assert received == pytest.approx(350 * (8 + 4 * 4) + 315 * 5 * 4)


def test_torchrun_ends_all_at_one_step_and_goes_on_to_the_same_end(whole, tmp_path):
    """The same run under torchrun, which gets a SIGTERM in its second epoch."""
    torchrun = [
        "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-id=job",
        "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "acn_lightning",
    ]  # fmt: skip
    words = [*torchrun, *FIT, *TWO, "resume=auto", "checkpoints.keep=9"]
    process = start(*words, cwd=tmp_path)
    folder = tmp_path / "runs" / "digits" / "torchrun-job"
    metrics = folder / "metrics.csv"
    wait_for(lambda: metrics.is_file() and 0 in rows(folder), process, seconds=120)
    process.send_signal(signal.SIGTERM)
    status, said = ended(process)
    assert status != 0
    assert said.count("acn: interrupted. Resume with the same command.") == 1, said
    assert 5 <= last_of(folder)["global_step"] < 20
    # Started by something else this time, under the same name
    on = [*FIT, *TWO, "run=torchrun-job", "resume=auto", "checkpoints.keep=9"]
    status, said = Run(*on, folder=tmp_path, size=2).ended()
    assert status == 0, said
    one, other = last_of(whole[0]), last_of(folder)
    for part in ("state_dict", "optimizer_states", "code_bank", "epoch", "global_step"):
        assert same(one[part], other[part]), part
    assert rows(whole[0]) == rows(folder)


def test_three_processes_come_to_what_one_comes_to(acn, tmp_path):
    """Without learning: codes, table, accuracies, and costs that have no noise in them. Three
    batches of 21 are one of 63: they have one mean and variance, which codes are made with."""
    still = ["optimizer.learning_rate=1e-29", "model.prior.kind=standard_normal",
             "data.augment=none", "data.binarisation=none", "trainer.max_epochs=1"]  # fmt: skip
    fit = [word for word in (*FIT, *still) if "prior.width" not in word]
    three = ["trainer.accelerator=cpu", "trainer.devices=3", "trainer.strategy=ddp", "logger=wandb"]
    status, said = Run(*fit, *three, "data.batch_size=21", folder=tmp_path, size=3).ended()
    assert status == 0, said
    assert acn(*fit, "data.batch_size=63", "trainer.default_root_dir=one")[0] == 0
    assert len(list(tmp_path.glob("**/offline-run-*"))) == 1
    folders = [next(path.glob("*/*")) for path in (tmp_path / "runs", Path("one"))]
    several, one = (last_of(folder)["code_bank"] for folder in folders)
    assert (several["written"] == one["written"]).all()
    torch.testing.assert_close(several["codes"], one["codes"], rtol=1e-4, atol=1e-5)
    # by rounding, two that are as near may change places
    assert (several["neighbours"] == one["neighbours"]).float().mean() > 0.999
    found = [rows(folder) for folder in folders]
    for name in ("val/rate", "val/knn_accuracy", "test/rate", "test/knn_accuracy"):
        values = [float(value[name]) for run in found for value in run.values() if name in value]
        assert len(values) == 2
        assert values[0] == pytest.approx(values[1], rel=1e-5), name


FAILS = """
import sys
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from acn_lightning.cli import main
from acn_lightning.retrieval.code_bank import CodeBank

def write(self, *_):
    raise OSError("the disk is on fire")

if rank_zero_only.rank == 1:
    CodeBank.write = write
sys.exit(main())
"""


def test_a_process_that_fails_ends_the_one_that_started_it(tmp_path):
    (tmp_path / "fails.py").write_text(FAILS)
    begin = time.monotonic()
    status, said = ended(start("fails.py", *FIT, *TWO, cwd=tmp_path), timeout=90)
    assert status != 0
    assert "acn: the disk is on fire" in said
    assert time.monotonic() - begin < 75


def test_a_first_process_that_fails_ends_the_others(tmp_path):
    begin = time.monotonic()
    run = Run(*FIT, *TWO, folder=tmp_path, size=2, before=fail_as_first)
    status, said = run.ended()
    assert status == 2
    assert run.processes[1].wait() == 2
    assert "acn: the disk is on fire" in said
    assert "acn: another process of this run has ended" in said
    assert time.monotonic() - begin < 60


def test_processes_learn_the_same_weights_before_and_after_a_thaw(whole, tmp_path):
    """Lightning's own way leaves each process with weights of its own. With `refresh.encode` all
    codes are of an epoch's last weights, whichever process trained on an image."""
    status, said = Run(
        "finetune", whole[0] / "checkpoints" / "best.ckpt", "digits", "data.subset=300",
        "freeze=[encoder]", "unfreeze_epoch=1", "trainer.max_epochs=3", "refresh.encode=true",
        *FIT[-4:-1], *TWO, folder=tmp_path, size=2, before=compare_weights,
    ).ended()  # fmt: skip
    assert status == 0, said
    assert said.count("encoder: 14 of 14 tensors loaded") == 1
    found = [line.split()[2:] for line in said.splitlines() if line.startswith("epoch ")
             and line.split()[1].isdigit()]  # fmt: skip
    assert [one[:3] for one in found] == 3 * [["True", "True", "True"]]
    sums = [one[3] for one in found]
    assert len(set(sums)) == 3  # epoch 0 aside, they moved


def test_ranks_with_other_images_are_refused(tmp_path):
    """Each process reads the file that its rank is in the name of, as on hosts with disks of their
    own."""
    for rank in range(2):
        images = np.random.default_rng(rank).integers(0, 2, (60, 8, 8), dtype=np.uint8) * 255
        np.savez(tmp_path / f"{rank}.npz", images=images, labels=np.arange(60) % 3)
    source = ["data.source=npz", "data.root=${oc.env:LOCAL_RANK,0}.npz", "data.subset=null"]
    words = [*FIT, *TWO, *source]
    status, said = Run(*words, folder=tmp_path, size=2).ended()
    assert status == 2, said
    assert "acn: data.root: ranks [1] have different training images from rank 0" in said
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_rank_that_does_not_see_the_checkpoint_ends_the_run(whole, tmp_path):
    """Each process has a folder of runs of its own, and only the first one's has the run."""
    shutil.copytree(whole[0], tmp_path / "0" / "digits" / "lost")
    own = ["trainer.default_root_dir=${oc.env:LOCAL_RANK,0}", "run=lost", "resume=auto"]
    run = Run(*FIT, *TWO, *own, "trainer.max_epochs=5", folder=tmp_path, size=2)
    status, said = run.ended()
    assert status == 2, said
    assert "acn: resume: ranks have checkpoints of different steps: [20, none]" in said


def test_processes_wait_for_what_only_the_first_one_measures(tmp_path):
    """Longer than for anything else: the group's timeout is shorter than probe and measurement."""
    short = ["trainer.max_epochs=1", "probe.every_n_epochs=1", "probe.linear=false"]
    run = Run(*FIT, *TWO, *short, folder=tmp_path, size=2, before=take_long_as_first)
    status, said = run.ended(seconds=180)
    assert status == 0, said
    (folder,) = tmp_path.glob("runs/*/*")
    assert rows(folder)[0]["codes/knn_accuracy"]
    assert (folder / "results.json").is_file()


NORMED = """
from torch import nn

def body():
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
"""


def test_processes_encode_with_the_same_running_statistics(tmp_path):
    """DDP shares them before a step only, and an epoch ends after one."""
    (tmp_path / "normed.py").write_text(NORMED)
    fit = [word for word in FIT if not word.startswith("model.encoder")]
    own = ["model.encoder.kind=import", "model.encoder.path=normed:body", "refresh.encode=true",
           "average.decay=0.9", "trainer.max_epochs=2"]  # fmt: skip
    run = Run(*fit, *TWO, *own, folder=tmp_path, size=2, before=compare_statistics)
    status, said = run.ended()
    assert status == 0, said
    told = [line for line in said.splitlines() if line.startswith("statistics of the same images")]
    assert told == 4 * ["statistics of the same images: True"]
