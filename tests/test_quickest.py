"""How steps run is chosen by timing them, once for a run, and without a trace in what is drawn."""

import json
import math
import weakref

import pytest
import torch
import yaml

from acn_lightning.config.compose import compose
from acn_lightning.experiment import quickest
from acn_lightning.experiment.build import build_for, read_data
from acn_lightning.experiment.quickest import Way, with_quickest
from acn_lightning.experiment.trainer import quiet_trainer
from acn_lightning.utils.errors import InterruptionError
from tests.conftest import QUICK, only_run
from tests.processes import Run, measure_as_first

CPU = ("trainer.accelerator=cpu",)
OPEN = (*QUICK, *CPU, "trainer.precision=auto", "channels_last=auto")
PLAIN = Way("32-true", True)
BITS = Way("bf16-mixed", True)


@pytest.fixture
def native(monkeypatch):
    """A machine that multiplies 16 bits."""
    monkeypatch.setattr(quickest, "quickest_precision", lambda _: "bf16-mixed")


def taking(monkeypatch, seconds):
    """Lets a step of each way take so many seconds, or raise an error."""

    def seconds_of(work, module, way):
        if isinstance(seconds[way], BaseException):
            raise seconds[way]
        return seconds[way]

    monkeypatch.setattr(quickest, "seconds_of", seconds_of)


def chosen(*words):
    config = compose("digits", [*QUICK, *CPU, *words])
    return with_quickest(config, read_data(config))


def test_where_nothing_is_left_nothing_is_measured(monkeypatch):
    taking(monkeypatch, {})
    config, found = chosen("compile=false", "channels_last=false")
    assert (config["channels_last"], found) == (False, None)


def test_a_machine_that_emulates_16_bits_has_no_choice(monkeypatch):
    monkeypatch.setattr(quickest, "quickest_precision", lambda _: "32-true")
    taking(monkeypatch, {})
    config, found = chosen("trainer.precision=auto")
    assert config["trainer"]["precision"] == "32-true"
    assert found.lines() == ["This CPU trains in 32-true, channels last: the only way."]


@pytest.mark.parametrize(
    ("bits", "precision"), [(0.5, "bf16-mixed"), (0.98, "32-true"), (1.5, "32-true")]
)
def test_16_bits_are_taken_where_they_are_clearly_faster(monkeypatch, native, bits, precision):
    taking(monkeypatch, {PLAIN: 1.0, BITS: bits})
    config, found = chosen("trainer.precision=auto")
    assert config["trainer"]["precision"] == precision
    assert (config["channels_last"], config["compile"]) == (True, False)
    (line,) = found.lines()
    assert line.startswith(f"This CPU trains in {precision}, channels last: a step takes 1000.0 ms")
    assert f"{1000 * bits:.1f} ms (bf16-mixed, channels last)." in line


def test_precision_and_memory_format_are_chosen_together(monkeypatch, native):
    apart = Way("bf16-mixed", False)
    taking(monkeypatch, {PLAIN: 3.0, Way("32-true", False): 2.0, BITS: 1.9, apart: 1.0})
    config, found = chosen("trainer.precision=auto", "channels_last=auto")
    assert (config["trainer"]["precision"], config["channels_last"]) == ("bf16-mixed", False)
    assert len(found.timings.seconds) == 4


@pytest.mark.parametrize(("broken", "left"), [(BITS, PLAIN), (PLAIN, BITS)])
def test_a_way_that_crashes_leaves_the_other(monkeypatch, native, broken, left):
    taking(monkeypatch, {broken: RuntimeError("no\nsuch kernel"), left: 5.0})
    config, found = chosen("trainer.precision=auto")
    assert config["trainer"]["precision"] == left.precision
    assert found.lines()[1:] == [f"{broken.words()} does not work here: no such kernel"]
    assert found.as_json()["failed"] == {broken.words(): "no such kernel"}


def test_what_breaks_every_way_is_raised(monkeypatch, native):
    taking(monkeypatch, dict.fromkeys((PLAIN, BITS), RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory"):
        chosen("trainer.precision=auto")


class Kept:
    """Stands for what a step has in memory when it fails."""


def test_a_way_that_fails_keeps_nothing_in_memory(monkeypatch, native):
    kept, emptied = [], []

    def seconds_of(work, module, way):
        if way == PLAIN:
            large = Kept()
            kept.append(weakref.ref(large))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert emptied or not kept
        return 1.0

    monkeypatch.setattr(quickest, "seconds_of", seconds_of)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(kept[0]() is None))
    _, found = chosen("trainer.precision=auto")
    assert found.timings.failed == {PLAIN: "CUDA out of memory"}
    assert emptied == [True]


def test_a_signal_is_not_taken_for_a_way_that_fails(monkeypatch, native):
    taking(monkeypatch, {PLAIN: InterruptionError(None, 143), BITS: 1.0})
    with pytest.raises(InterruptionError):
        chosen("trainer.precision=auto")


def test_the_gpu_of_an_apple_is_waited_for_too(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    for kind in ("cpu", "cuda", "mps"):
        quickest.wait(torch.device(kind))
    assert waited == [torch.device("cuda"), torch.device("mps")]


def test_a_hopeless_way_is_timed_once(monkeypatch, native):
    turns = []

    def seconds_of(work, module, way):
        turns.append(way)
        return 9.0 if way == BITS else 1.0

    monkeypatch.setattr(quickest, "seconds_of", seconds_of)
    chosen("trainer.precision=auto")
    assert turns.count(BITS) == 2  # the untimed one, and one
    assert turns.count(PLAIN) == 1 + quickest.MOST


# ---------------------------------------------------------------- compiling


def test_a_short_run_does_not_try_to_compile(monkeypatch):
    taking(monkeypatch, {PLAIN: 0.1})
    config, found = chosen("compile=auto", "trainer.max_epochs=3")
    assert config["compile"] is False
    assert "not compiled, as that may take a minute and the run takes about 6 s" in found.lines()[0]


@pytest.mark.parametrize(("seconds", "compiled"), [(0.7, True), (0.99, False)])
def test_a_long_one_compiles_where_that_pays(monkeypatch, seconds, compiled):
    monkeypatch.setattr(quickest, "check_compiler", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda work, **_: work)
    taking(monkeypatch, {PLAIN: 1.0, PLAIN._replace(compile=True): seconds})
    config, found = chosen("compile=auto", "trainer.max_epochs=500")
    assert config["compile"] is compiled
    assert found.as_json()["not_compiled"] is None


def test_a_compiled_step_is_compared_with_all_others_timed_beside_it(monkeypatch, native):
    """By then other programs may slow the machine down: earlier times say nothing."""
    compiled = PLAIN._replace(compile=True)
    quiet, busy, ways = {PLAIN: 1.0, BITS: 1.0}, {PLAIN: 3.0, BITS: 1.5, compiled: 2.0}, set()

    def seconds_of(work, module, way):
        ways.add(way)
        return (busy if compiled in ways else quiet).get(way, 0.0)

    monkeypatch.setattr(quickest, "check_compiler", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda work, **_: work)
    monkeypatch.setattr(quickest, "seconds_of", seconds_of)
    config, found = chosen("trainer.precision=auto", "compile=auto", "trainer.max_epochs=500")
    assert (config["trainer"]["precision"], config["compile"]) == ("bf16-mixed", False)
    assert found.timings.seconds == busy


def test_without_a_compiler_there_is_nothing_to_try(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    taking(monkeypatch, {PLAIN: 1.0})
    config, found = chosen("compile=auto", "trainer.max_epochs=500")
    assert config["compile"] is False
    assert "there is no C++ compiler" in found.lines()[0]


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        (["trainer.max_epochs=3"], 3 * 21 * 2.0),
        (["trainer.max_epochs=3", "trainer.max_steps=4"], 4 * 2.0),
        (["trainer.max_epochs=-1"], math.inf),
        (["trainer.max_epochs=-1", "trainer.max_time=00:00:01:00"], 60),
        (["trainer.max_epochs=3", "trainer.limit_train_batches=5"], 3 * 5 * 2.0),
        (["trainer.max_epochs=0"], 0),
    ],
)
def test_how_long_a_run_is_planned_to_take(words, seconds):
    config = compose("digits", [*QUICK, *CPU, *words])
    planned = quickest.planned_seconds(config, read_data(config), quiet_trainer(config), 2.0)
    assert planned == seconds


# ---------------------------------------------------------------- in a run


def test_measuring_draws_nothing_that_a_run_draws(native):
    config = compose("digits", [*OPEN, "data.augment=affine"])
    data = read_data(config)
    module = build_for(data, config | {"channels_last": True})
    expected = [one.clone() for one in module.state_dict().values()], torch.rand(3)
    data = read_data(config)
    resolved, found = with_quickest(config, data)  # steps that are really taken
    module = build_for(data, resolved)
    assert all(map(torch.equal, module.state_dict().values(), expected[0]))
    assert torch.equal(torch.rand(3), expected[1])
    assert len(found.timings.seconds) + len(found.timings.failed) == 4


def test_a_run_keeps_what_it_chose_and_resumes_with_it(acn, monkeypatch, native):
    taking(monkeypatch, {PLAIN: 1.0, Way("32-true", False): 0.9, BITS: 0.8,
                         Way("bf16-mixed", False): 0.6})  # fmt: skip
    fit = ("fit", "digits", *OPEN, "run=mine", "resume=auto", "pictures.every_n_epochs=0")
    status, out, err = acn(*fit, "trainer.max_epochs=1")
    assert status == 0, err
    assert "This CPU trains in bf16-mixed, contiguous: a step takes 1000.0 ms (32-true" in out
    kept = yaml.safe_load((only_run() / "config.yaml").read_text())
    assert (kept["trainer"]["precision"], kept["channels_last"]) == ("bf16-mixed", False)
    about = json.loads((only_run() / "about.json").read_text())["quickest"]
    assert about["chosen"] == "bf16-mixed, contiguous"
    assert about["milliseconds"]["32-true, channels last"] == 1000
    taking(monkeypatch, {})  # it would fail if it measured again
    status, out, err = acn(*fit, "trainer.max_epochs=2")
    assert status == 0, err
    assert "trains in" not in out
    assert yaml.safe_load((only_run() / "config.yaml").read_text())["channels_last"] is False
    assert json.loads((only_run() / "about.json").read_text())["quickest"] == about


def test_all_ranks_take_their_steps_as_the_first_has_measured(tmp_path):
    two = ("trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=1")
    run = Run("fit", "digits", *OPEN, *two, "pictures.every_n_epochs=0", folder=tmp_path, size=2,
              before=measure_as_first)  # fmt: skip
    status, said = run.ended()
    assert status == 0, said
    for rank in range(2):
        assert f"rank {rank}: bf16-mixed, contiguous True" in said
