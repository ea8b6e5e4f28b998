"""Runs that stop and go on: in the same folder, from what is left, with what has to agree."""

import errno
import io
import json
import os
import re
import shutil
import signal
import uuid
import warnings
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from lightning import Trainer

from acn_lightning.callbacks import warn
from acn_lightning.checkpoint import DurableCheckpointIO, newest_checkpoint, read_checkpoint, rotate
from acn_lightning.config.compose import compose
from acn_lightning.experiment import folder as run
from acn_lightning.experiment import train
from acn_lightning.experiment.loggers import wandb_id
from acn_lightning.experiment.resume import Resumed, best_beside, own_checkpoint
from acn_lightning.runs.reading import read_run
from acn_lightning.utils.errors import TrainingError, UsageError
from acn_lightning.utils.locks import make_lock
from tests.conftest import CHEAP, QUICK
from tests.test_experiment import assert_same_end, rows, stopped_at

FIT = (
    "fit", "digits", *QUICK, "pictures.every_n_epochs=0", "evaluation.linear=none",
    "data.subset=300", *CHEAP,
)  # fmt: skip
"""Five steps an epoch."""

AUTO = ("run=mine", "resume=auto")


def stop(acn, *words, epoch):
    """Runs a command that Ctrl-C ends in that epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", stopped_at(epoch=epoch))
        status, _, err = acn(*words)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning had it ignored
    assert status == 130
    return err


# ---------------------------------------------------------------- resume=auto


def test_the_same_command_goes_on_in_the_same_folder(acn):
    auto = [*FIT, *AUTO, "trainer.max_epochs=3", "checkpoints.every_n_steps=4"]
    err = stop(acn, *auto, epoch=1)
    assert err.strip().splitlines()[-1] == "acn: interrupted. Resume with the same command."
    # what was logged after the checkpoint that is left
    folder = Path("runs/digits/mine")
    with (folder / "metrics.csv").open("a") as file:
        file.write((folder / "metrics.csv").read_text().splitlines()[1].replace("0", "1") + "\n")
    status, _, err = acn(*auto)
    assert status == 0, err
    assert acn(*FIT, "trainer.max_epochs=3", "trainer.default_root_dir=whole")[0] == 0
    whole = next(Path("whole").glob("*/*"))
    assert rows(folder) == rows(whole)
    assert_same_end("runs", "whole")
    assert [path.name for path in Path("runs/digits").iterdir()] == ["mine"]
    # a run that is complete is complete when asked for once more
    results = json.loads((folder / "results.json").read_text())
    assert acn(*auto)[0] == 0
    assert rows(folder) == rows(whole)
    again = json.loads((folder / "results.json").read_text())
    assert again["nats_per_image"] == results["nats_per_image"]


ENDING_EARLY = ("early_stopping.patience=1", "early_stopping.min_delta=1e9")


@pytest.mark.parametrize("ends", [("trainer.max_epochs=1",), ENDING_EARLY])
def test_results_are_gone_while_a_run_trains_on_and_no_sooner(acn, ends, monkeypatch):
    """They would be taken for those of the epochs that it has by now."""
    results, seen, test = Path("runs/digits/mine/results.json"), [], Trainer.test

    def watched(*arguments, **options):
        seen.append(results.exists())
        return test(*arguments, **options)

    monkeypatch.setattr(Trainer, "test", watched)
    for _ in range(2):  # the second time nothing is left to train
        assert acn(*FIT, *AUTO, *ends)[0] == 0
    assert seen == [False, True]
    epochs = json.loads(results.read_text())["training"]["epochs"]
    longer = [f"trainer.max_epochs={epochs + 1}", "early_stopping.patience=9"]
    stop(acn, *FIT, *AUTO, *longer, epoch=epochs)
    assert read_run(results.parent).state == "stopped"
    assert acn(*FIT, *AUTO, *longer)[0] == 0
    assert seen == [False, True, False]
    assert json.loads(results.read_text())["training"]["epochs"] == epochs + 1


def test_figures_are_written_as_soon_as_they_are_measured(acn, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(warn, "below_pixels", full)  # the next that a run does
    status, _, err = acn(*FIT, *AUTO, "trainer.max_epochs=1")
    assert status
    assert "no space left" in err
    results = json.loads(Path("runs/digits/mine/results.json").read_text())
    assert results["training"]["epochs"] == 1


@pytest.mark.parametrize("locks", [True, False])
def test_a_run_that_is_refused_leaves_no_folder(locks, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def absent(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if not locks:
        monkeypatch.setattr(fcntl, "flock", absent)
    with pytest.raises(UsageError, match="wrong"), run.writing(Path("runs/x/a"), {}):
        raise UsageError("wrong")
    assert list(Path().iterdir()) == []


def test_a_run_that_has_trained_keeps_its_folder_without_a_checkpoint(acn, monkeypatch):
    def refused(*_, **__):
        raise UsageError("too late")

    monkeypatch.setattr(train, "evaluate", refused)
    words = ["run=mine", "trainer.max_steps=1", "trainer.enable_checkpointing=false"]
    status, _, err = acn(*FIT, *words)
    assert (status, "too late" in err) == (2, True)
    assert Path("runs/digits/mine/config.yaml").is_file()


def test_a_run_that_goes_on_keeps_its_wandb_id(acn):
    auto = [*FIT, *AUTO, "logger=wandb", "trainer.limit_train_batches=1"]
    assert acn(*auto, "trainer.max_epochs=1")[0] == 0
    assert acn(*auto, "trainer.max_epochs=2")[0] == 0
    found = [path.name.rpartition("-run-")[2].partition("-")[2]
             for path in Path("runs/digits/mine/wandb").glob("offline-run-*")]  # fmt: skip
    assert len(found) == 2
    about = json.loads(Path("runs/digits/mine/about.json").read_text())
    assert set(found) == {about["wandb"]}
    assert about["wandb_run"] == "digits-mine"


def test_a_wandb_id_belongs_to_one_folder():
    config, folder = compose("digits"), Path("runs/digits/mine")
    one, other = wandb_id(config, folder), wandb_id(config, folder)  # a colleague's
    assert one != other
    assert re.fullmatch(r"digits-mine-[0-9a-f]{8}", one)
    folder.mkdir(parents=True)
    for written, kept in [({"wandb": one}, True), ({"wandb": None}, False), ([], False)]:
        (folder / "about.json").write_text(json.dumps(written))
        assert (wandb_id(config, folder) == one) is kept
    (folder / "about.json").write_text(json.dumps({"wandb": "digits-mine"}))  # it went on once
    assert wandb_id(config, folder) == "digits-mine"
    (folder / "about.json").write_text("[]")
    (folder / "wandb").mkdir()  # of an earlier version, which wrote no id
    assert wandb_id(config, folder) == "digits-mine"
    (folder / "about.json").write_text(json.dumps({"wandb": one}))
    swept = {"wandb": "a1b2c3", "wandb_run": "digits-mine"}  # a sweep's agent chose the id
    (folder / "about.json").write_text(json.dumps(swept))
    assert wandb_id(config, folder) == "a1b2c3"
    shutil.copytree(folder, "runs/digits/copy")
    assert wandb_id(config, Path("runs/digits/copy")).startswith("digits-copy-")
    shutil.rmtree("runs/digits/copy")
    (folder / "about.json").write_text(json.dumps({"wandb": one}))
    shutil.copytree(folder, "runs/digits/copy")
    assert wandb_id(config, Path("runs/digits/copy")).startswith("digits-copy-")


@pytest.mark.parametrize("option", ["fast_dev_run=true", "enable_checkpointing=false"])
def test_an_attempt_that_keeps_nothing_tests_no_earlier_checkpoint(acn, option):
    assert acn(*FIT, *AUTO, "trainer.max_epochs=1")[0] == 0
    folder = Path("runs/digits/mine")
    before = json.loads((folder / "results.json").read_text())
    status, _, err = acn(*FIT, *AUTO, "trainer.max_epochs=3", f"trainer.{option}")
    assert status == 0, err
    after = json.loads((folder / "results.json").read_text())
    assert after["checkpoint"] is None
    if "fast" not in option:  # which has an epoch less than there were
        assert after["nats_per_image"] != before["nats_per_image"]


def test_what_another_process_saves_before_it_ends_is_not_overwritten(acn, monkeypatch):
    """As one that a scheduler stops, while the next one has begun."""
    assert acn(*FIT, *AUTO, "trainer.max_epochs=1")[0] == 0
    folder = Path("runs/digits/mine")
    last, metrics = folder / "checkpoints/last.ckpt", (folder / "metrics.csv").read_text()
    check = train.check_limits

    def ends_meanwhile(*arguments):
        check(*arguments)
        shutil.copyfile(last, "copy.ckpt")
        os.replace("copy.ckpt", last)

    with monkeypatch.context() as patched:
        patched.setattr(train, "check_limits", ends_meanwhile)
        status, _, err = acn(*FIT, *AUTO, "trainer.max_epochs=2")
    assert status == 2
    assert err.strip().splitlines()[-1] == (
        f"acn: run: another process has saved {last} since this one began. Repeat the command."
    )
    assert (folder / "metrics.csv").read_text() == metrics
    assert acn(*FIT, *AUTO, "trainer.max_epochs=2")[0] == 0


@pytest.mark.parametrize("logger", ["csv", "wandb"])
@pytest.mark.parametrize("mine", [True, False])
def test_only_the_wandb_run_that_a_training_started_is_ended_with_it(logger, mine):
    before = wandb.init(mode="disabled") if mine else None
    with run.writing(Path("runs/x/a"), {"experiment": "x", "logger": logger}):
        inside = wandb.init(mode="disabled") if logger == "wandb" and not mine else before
        assert wandb.run is inside
    assert wandb.run is before
    wandb.finish()


def test_auto_takes_its_name_from_the_scheduler(monkeypatch, tmp_path):
    def folder(**more):
        config = {"experiment": "digits", "run": None, "resume": "auto",
                  "trainer": {"default_root_dir": str(tmp_path)}}  # fmt: skip
        return run.run_folder(config | more).name

    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    # By itself torchrun draws a new one at each start on one host, whatever --rdzv-id says.
    for nameless in ("none", str(uuid.uuid4())):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", nameless)
        with pytest.raises(UsageError, match=r"Set run=NAME"):
            folder()
    assert folder(run="mine") == "mine"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "abc")
    assert folder() == "torchrun-abc"
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert folder() == "slurm-17"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "16")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert folder() == "slurm-16_3"
    assert folder(resume=None) not in ("slurm-16_3", folder(resume=None))


def test_two_runs_do_not_share_a_folder(acn):
    one = [*FIT, "run=mine", "trainer.max_epochs=1"]
    assert acn(*one)[0] == 0
    status, _, err = acn(*one)
    assert status == 2
    assert "runs/digits/mine already exists. Resume it with resume=auto" in err
    status, _, err = acn(*one, "resume=auto", "model.code_size=5")
    assert status == 2
    assert "model.code_size: the checkpoint was trained with 4" in err
    with make_lock(Path("runs/digits/mine/.lock")):
        status, _, err = acn(*one, "resume=auto")
    assert status == 2
    assert "another process is writing to runs/digits/mine" in err
    assert Path("runs/digits/mine/results.json").is_file()
    for name in ("..", "a/b", ""):
        status, _, err = acn(*FIT, f"run={name!r}")
        assert status == 2
        assert "is not a valid folder name" in err


def test_half_written_checkpoints_of_other_hosts_go_while_nobody_else_writes(monkeypatch):
    folder = Path("runs/digits/mine")
    left = folder / f"checkpoints/.acn-elsewhere-{os.getpid()}-{'0' * 16}.partial"
    own = folder / "checkpoints/.acn-notes.partial"
    left.parent.mkdir(parents=True)
    for path in (left, own):
        path.write_bytes(b"half")
    with monkeypatch.context() as patch:
        patch.setattr(run, "acquire", lambda lock: None)  # there are no locks
        with run.writing(folder, compose("digits")):
            assert left.exists()
    with run.writing(folder, compose("digits")):
        assert not left.exists()
        assert own.exists()


# ---------------------------------------------------------------- what has to agree


def test_other_images_under_the_same_labels_are_refused(acn):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 2, (60, 8, 8), dtype=np.uint8) * 255
    labels = np.arange(60) % 3
    source = ["data.source=npz", "data.root=mine.npz", "data.subset=null", "trainer.max_epochs=1"]
    np.savez("mine.npz", images=images, labels=labels)
    assert acn(*FIT, *AUTO, *source)[0] == 0
    images[7, 0, 0] = 255 - images[7, 0, 0]
    np.savez("mine.npz", images=images, labels=labels)
    status, _, err = acn(*FIT, *AUTO, *source, "trainer.max_epochs=2")
    if "other data" not in err:  # the one that was changed is a test image
        pytest.fail(err)
    assert status == 2
    assert "acn: data.root: the checkpoint was trained on other data: 54 images, " in err


# ---------------------------------------------------------------- what is left of a checkpoint


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run of two epochs, with three checkpoints."""
    from acn_lightning.cli import main

    folder = tmp_path_factory.mktemp("stopped")
    words = [
        *FIT,
        "trainer.max_epochs=2",
        "checkpoints.keep=3",
        f"trainer.default_root_dir={folder}",
    ]
    assert main(words) == 0
    (run,) = folder.glob("*/*")
    return run


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


def test_the_last_ones_are_kept_in_order(stopped):
    names = ["last.ckpt", "last-1.ckpt", "last-2.ckpt"]
    assert [step_of(stopped / "checkpoints" / name) for name in names] == [10, 5, 0]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(acn, stopped, tmp_path, damage):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    last = folder / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "truncated":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        for place in range(len(content) // 2, len(content) // 2 + 300):  # more than padding has
            content[place] ^= 0xFF
        last.write_bytes(content)
    elif damage == "empty":
        last.write_bytes(b"")
    else:
        last.unlink()
    with pytest.warns(UserWarning, match=r"last\.ckpt.* Resuming from .*last-1\.ckpt"):
        path, checkpoint = newest_checkpoint(folder)
    assert path.name == "last-1.ckpt"
    assert checkpoint["global_step"] == 5
    if damage in ("flipped", "empty"):  # found as those that are truncated
        return
    with pytest.warns(UserWarning, match="Resuming from"):
        status, _, err = acn("fit", f"resume={last}", "trainer.default_root_dir=runs")
    assert status == 0, err
    assert_same_end("runs", stopped.parents[1])


def test_where_all_are_damaged_the_first_is_named(stopped, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"no")
    with pytest.raises(UsageError, match=r"run/checkpoints/last\.ckpt is not an acn checkpoint"):
        newest_checkpoint(folder)


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(tmp_path, locked):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("last.ckpt", "last-1.ckpt"):
        (folder / name).write_bytes(b"no")
    locked(folder / "last.ckpt")
    for read in (newest_checkpoint, lambda run: read_checkpoint(run / "checkpoints/last.ckpt")):
        with pytest.raises(PermissionError, match=r"last\.ckpt"):
            read(folder.parent)
    locked(folder)
    with pytest.raises(PermissionError, match="checkpoints"):  # a new run would write over it
        own_checkpoint({}, folder.parent)


class FailingDisk(io.FileIO):
    """Fails at the second read."""

    reads = 0

    def readinto(self, buffer):
        self.reads += 1
        if self.reads > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(buffer)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("fault", ["disk", "memory"])
def test_a_failing_machine_is_not_taken_for_a_damaged_checkpoint(stopped, monkeypatch, name, fault):
    """An older checkpoint would be resumed, and the best one written over."""
    error, said = (OSError, r"\.ckpt") if fault == "disk" else (UsageError, "more memory than")
    resumed = Resumed(stopped / "checkpoints" / "last.ckpt", {})
    opened = Path.open

    def failing(path, mode="r", *rest, **more):
        plain = mode != "rb" or path.name != name
        return opened(path, mode, *rest, **more) if plain else FailingDisk(path)

    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")

    if fault == "disk":
        monkeypatch.setattr(Path, "open", failing)
    else:
        monkeypatch.setattr(torch, "load", full)
    with pytest.raises(error, match=said):
        newest_checkpoint(stopped) if name == "last.ckpt" else best_beside(resumed)


def wider(content):
    content["hyper_parameters"]["acn_config"]["model"]["prior"]["width"] += 1


OTHERS = {
    "other networks": wider,
    "other images": lambda content: content["ImageData"].update(fingerprint="another"),
    "other sizes": lambda content: content["hyper_parameters"].update(image_shape=(1, 9, 9)),
    "no model": lambda content: content["hyper_parameters"]["acn_config"].pop("model"),
    "a later epoch": lambda content: content.update(epoch=9),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS.keys())
def test_the_best_checkpoint_of_another_run_is_not_inherited(stopped, tmp_path, change):
    resumed = Resumed(*newest_checkpoint(stopped))
    assert best_beside(resumed) == stopped / "checkpoints" / "best.ckpt"
    content = read_checkpoint(stopped / "checkpoints" / "best.ckpt")
    change(content)
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.warns(UserWarning, match=r"(has other|of a later|no section).* a new best"):
        assert best_beside(resumed._replace(path=tmp_path / "last.ckpt")) is None


@pytest.mark.parametrize("links", [True, False])
def test_at_whatever_moment_of_writing_a_process_dies_a_whole_one_is_left(tmp_path, links):
    """Dies at each call to the system in turn; what is left can be read, and is not older than the
    last that was complete. With hard links, the file that the run is resumed from is always there.
    """

    class DiedError(BaseException):
        pass

    writer = DurableCheckpointIO()

    def save(number):
        writer.save_checkpoint({"number": number}, tmp_path / "new.ckpt")
        rotate(tmp_path, 3)

    def newest():
        for name in ("last.ckpt", "new.ckpt", "last-1.ckpt"):
            if (tmp_path / name).is_file():
                return torch.load(tmp_path / name, weights_only=True)["number"]
        return None

    def refuses(*_):
        raise OSError(errno.EPERM, "no hard links")

    calls = {"torch.save": torch, "os.fsync": os, "pathlib.Path.replace": Path}
    calls |= {"os.link": os, "pathlib.Path.unlink": Path}
    for moment in range(30):
        for path in tmp_path.iterdir():
            path.unlink()
        with pytest.MonkeyPatch.context() as patch:
            if not links:
                patch.setattr(os, "link", refuses)
            for number in (1, 2, 3):
                save(number)
            left = moment

            def counted(call):
                def dies(*arguments, **options):
                    nonlocal left
                    if left == 0:
                        raise DiedError
                    left -= 1
                    return call(*arguments, **options)

                return dies

            for name, owner in calls.items():
                attribute = name.rpartition(".")[2]
                patch.setattr(owner, attribute, counted(getattr(owner, attribute)))
            try:
                save(4)
                died = False
            except DiedError:
                died = True
        assert newest() in ((3, 4) if died else (4,))
        assert (tmp_path / "last.ckpt").is_file() or not links
        for number in (5, 6, 7):  # whatever was left, it goes on as ever
            save(number)
        files = [tmp_path / f"last{age}.ckpt" for age in ("", "-1", "-2")]
        kept = [torch.load(file, weights_only=True)["number"] for file in files]
        assert kept == [7, 6, 5]
        if not died:
            break
    else:
        pytest.fail("it never came to an end")
    assert moment >= 8  # written, brought to the disk, renamed, its name too; then the rotation


def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(tmp_path):
    """The limit to a file's size stands for the end of a disk: both come from the system."""
    import resource

    writer = DurableCheckpointIO()
    path = tmp_path / "new.ckpt"
    writer.save_checkpoint({"weights": torch.zeros(1000)}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"new\.ckpt cannot be written: .*File too large"):
            writer.save_checkpoint({"weights": torch.zeros(10**6)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["new.ckpt"]


class Word(str):
    """A text of a class of one's own."""


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"when": [datetime(2000, 1, 1)]}, r"its callbacks\.Note\.when\[\] holds a datetime"),
        ({"when": np.datetime64("2000-01-01")}, r"callbacks\.Note\.when holds a date\b"),
        ({"seen": {1, 2}}, r"callbacks\.Note\.seen holds a set"),
        ({"word": Word("x")}, r"callbacks\.Note\.word holds a Word"),
        ({(1, 2): 3}, r"it has a key \(1, 2\)"),
        ([1, 2], "the state of a callback is no mapping"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, state, said):
    path = tmp_path / "new.ckpt"
    with pytest.raises(UsageError, match=f"A checkpoint could not be read again: .*{said}"):
        DurableCheckpointIO().save_checkpoint({"callbacks": {"Note": state}}, path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_no_tensors_are_not_written(tmp_path):
    """What a module's `get_extra_state` returns is among them."""
    weights = {"encoder._extra_state": {"seen": 3}}
    with pytest.raises(UsageError, match=r"its encoder\._extra_state holds a dict"):
        DurableCheckpointIO().save_checkpoint({"state_dict": weights}, tmp_path / "new.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_and_mappings_of_any_kind_are_written_as_pythons(tmp_path):
    path = tmp_path / "new.ckpt"
    seen = defaultdict(int, {np.int64(3): (np.float32(0.5), np.bool_(True)), "x": torch.Size([2])})
    DurableCheckpointIO().save_checkpoint({"callbacks": {"Note": {"seen": seen}}}, path)
    content = torch.load(path, weights_only=True)
    assert content["callbacks"] == {"Note": {"seen": {3: (0.5, True), "x": (2,)}}}


def test_no_warning_where_nothing_is_damaged(stopped):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest_checkpoint(stopped)[0] == stopped / "checkpoints" / "last.ckpt"
