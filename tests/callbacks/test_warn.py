"""Each fault is found in figures that show it and not in those of a good run, and said once."""

import json
import math
import random
import warnings

import pytest
import torch
from lightning import Callback

from acn_lightning.callbacks import (
    MeasureTest,
    ProbeCodes,
    RefreshNeighbours,
    SeedEpochs,
    WarnOfFaults,
)
from acn_lightning.evaluation.warnings import Figures, below_pixels, find, needed, shared_cores
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK
from tests.test_module import digits, trainer

GOOD = {
    "codes/active_dimensions": 16.0, "codes/effective_dimensions": 15.4,
    "codes/eigenvalue_max": 3.0, "codes/drift": 1.2, "codes/gain": 24.0,
    "codes/statistics_gap": 4.0, "bank/refreshed": 1294.0, "bank/unseen": 0.0, "bank/recall": 1.0,
    "val/rate": 7.8, "val/total": 105.0, "train/total": 110.0,
}  # fmt: skip
"""Figures of an ordinary run of digits after its fifth epoch."""

RISING = [(100.0, 90.0), (95.0, 80.0), (97.0, 75.0), (98.0, 70.0), (99.0, 65.0)]


def figures(change=(), **facts):
    history = facts.pop("history", [(120.0, 130.0), (110.0, 115.0), (105.0, 110.0)])
    about = {"epochs": 5, "images": 1294, "batch_size": 64, "code_size": 16, "steps": 630.0,
             "done": 200, "recall": 0.95, "advice": "Raise neighbours.effort."}  # fmt: skip
    return Figures({**GOOD, **dict(change)}, history, **about | facts)


def test_a_good_run_is_left_alone():
    assert find(figures()) == []
    assert find(figures(history=[])) == []
    assert find(Figures({})) == []  # nothing was logged
    assert find(figures(history=[(1.0, 2.0)] * 9)) == []


@pytest.mark.parametrize(
    ("name", "change", "facts", "word"),
    [
        ("collapse", {"codes/active_dimensions": 2.0}, {}, "model.shape.kind=white"),
        ("collapse", {"codes/eigenvalue_max": 0.2}, {}, "model.shape.kind=white"),
        ("thread", {"codes/effective_dimensions": 1.3}, {}, "model.shape.decorrelation"),
        ("stale_codes", {"codes/drift": 1.6}, {}, "refresh.encode=false"),
        ("statistics_gap", {"codes/statistics_gap": 8.1}, {"done": 315}, "optimizer.learning_rate"),
        (
            "statistics_gap",
            {"codes/statistics_gap": 8.1},
            {"done": 1000, "steps": math.inf},
            "optimizer.learning_rate",
        ),
        ("ignored_codes", {"codes/gain": 0.05}, {}, "model.decoder.kind=conv"),
        ("ignored_codes", {"codes/gain": -3.0}, {}, "model.decoder.kind=conv"),
        ("ignored_codes", {"codes/gain": 0.45, "val/rate": 0.3}, {}, "model.decoder.kind=conv"),
        ("ignored_codes", {"codes/gain": 2.0, "val/rate": 50.0}, {}, "model.decoder.kind=conv"),
        ("unfilled_bank", {"bank/refreshed": 1293.0}, {}, "trainer.limit_train_batches"),
        ("recall", {"bank/recall": 0.94}, {}, "neighbours.effort"),
        ("few_steps", {}, {"steps": 100.0}, "trainer.max_epochs"),
        ("few_steps", {}, {"steps": 30.0, "batch_size": 1024}, "data.batch_size"),
        ("overfitting", {}, {"history": RISING}, "best.ckpt"),
    ],
)
def test_each_fault_is_found_with_its_key(name, change, facts, word):
    (found,) = find(figures(change, **facts))
    assert found.name == name
    assert word in found.remedy
    assert "nan" not in found.message


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"codes/active_dimensions": 2.0}, {"epochs": 1}),  # codes begin so
        ({"codes/drift": 4.0}, {"epochs": 1}),
        ({"codes/drift": 1.4}, {}),
        ({"codes/statistics_gap": 8.1}, {"done": 314}),  # a healthy folder's fourth epoch has it
        ({"codes/statistics_gap": 8.1}, {"done": 999, "steps": 9000.0}),
        ({"codes/statistics_gap": 7.9}, {"done": 630}),
        ({"codes/gain": 0.6}, {}),
        ({"codes/effective_dimensions": 3.0}, {}),
        ({"codes/gain": 0.05}, {"epochs": 1}),
        ({"codes/gain": 0.05}, {"done": 199}),
        ({"codes/effective_dimensions": 1.6, "codes/statistics_gap": 0.1}, {"code_size": 2}),
        ({"codes/statistics_gap": 9.0}, {"epochs": 2}),
        ({"codes/effective_dimensions": 1.3}, {"epochs": 2}),
        ({"codes/effective_dimensions": 1.3, "codes/eigenvalue_max": 0.9}, {}),  # a collapse
        ({}, {"history": RISING[:3]}),
        ({}, {"history": [(a, 90.0 + i) for i, (a, _) in enumerate(RISING)]}),  # train rises too
        ({}, {"history": [(95 + (a - 95) / 100, b) for a, b in RISING]}),  # by next to nothing
        ({}, {"steps": math.inf}),
    ],
)
def test_what_is_no_fault(change, facts):
    assert find(figures(change, **facts)) == []


def test_a_few_costs_of_a_long_history_tell_as_much_as_all():
    generator, said = random.Random(0), []
    for _ in range(20):
        whole, kept = [[100.0, 100.0]], []
        for _ in range(40):  # mostly, one rises and the other falls
            steps = generator.uniform(-0.5, 2), generator.uniform(-2, 0.5)
            whole.append([cost + step for cost, step in zip(whole[-1], steps, strict=True)])
        for epoch, costs in enumerate(whole):
            kept = needed([*kept, costs])
            found = find(figures(history=kept))
            assert found == find(figures(history=whole[: epoch + 1]))
            said.append(bool(found))
        assert needed(whole) == kept  # of a checkpoint that holds them all
        assert len(kept) == 5
    assert 100 < sum(said) < 700


def test_codes_that_do_worse_than_pixels():
    of = {"codes": {"linear": 0.8}, "pca": {"linear": 0.7}, "pixels": {"linear": 0.8}}
    assert below_pixels(of, 500).name == "codes_below_pixels"
    assert "as well on pixels as on the codes" in below_pixels(of, 500).message
    assert below_pixels(of | {"codes": {"linear": 0.81}}, 500) is None
    assert below_pixels(of | {"pixels": None}, 500) is None


def test_how_much_worse_is_told_in_images():
    of = {"codes": {"linear": 0.8}, "pca": {"linear": 0.82}, "pixels": {"linear": 0.7}}
    few, many = below_pixels(of, 500).message, below_pixels(of, 10_000).message
    assert "10 more of 500 test images right from principal components" in few
    assert few.endswith("the codes, which may be luck.")
    assert "200 more of 10,000" in many
    assert many.endswith("the codes.")


@pytest.mark.parametrize(
    ("share", "threads", "load", "found"),
    [
        (0.33, 2, 3.3, True),  # measured: digits beside two busy programs on two cores
        (0.33, 2, 2.1, False),  # it waits for its images, not for cores
        (0.65, 1, 3.3, False),  # one thread waits for no other
        (0.95, 2, 3.3, False),  # the others are short
        (0.5, 2, 3.3, False),
    ],
)
def test_threads_that_wait_for_each_other(share, threads, load, found):
    finding = shared_cores(share, threads, load, cores=2)
    assert (finding is not None) == found
    if finding:
        assert "33% of the time" in finding.message
        assert "OMP_NUM_THREADS=1" in finding.remedy


# ---------------------------------------------------------------- in a run


class Disturb(Callback):
    """Changes the encoder at the end of each epoch, or what a decoder gets."""

    def __init__(self, encoder=False, decoder=False):
        self.encoder, self.decoder = encoder, decoder

    def on_train_epoch_start(self, trainer, pl_module):
        if self.decoder:
            decode = type(pl_module.decoder).forward
            pl_module.decoder.forward = lambda z: decode(pl_module.decoder, torch.zeros_like(z))

    def on_validation_end(self, trainer, pl_module):
        if self.encoder and not trainer.sanity_checking:
            with torch.no_grad():
                pl_module.encoder.mean.weight.neg_()


def fit(folder, *callbacks, epochs=4, quick=QUICK, **options):
    data, module = digits("data.subset=150", quick=quick)
    warn = WarnOfFaults(folder)
    run = trainer(SeedEpochs(3), RefreshNeighbours(), *callbacks, warn, max_epochs=epochs,
                  num_sanity_val_steps=0, **options)  # fmt: skip
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run.fit(module, datamodule=data, ckpt_path=options.get("resume"))
    return run, warn, [str(one.message) for one in seen if one.category is UserWarning]


def test_faults_are_said_once_kept_and_their_figures_logged(tmp_path, monkeypatch):
    monkeypatch.setattr("acn_lightning.evaluation.warnings.SETTLED", 2)
    monkeypatch.setattr("acn_lightning.evaluation.warnings.STEPS", 5)
    run, warn, said = fit(tmp_path, Disturb(encoder=True, decoder=True))
    written = json.loads((tmp_path / "warnings.json").read_text())
    assert written == warn.given
    assert [set(one) for one in written] == [{"name", "epoch", "message", "remedy"}] * len(written)
    found = {one["name"]: one["epoch"] for one in written}
    assert found["stale_codes"] == found["ignored_codes"] == 1
    assert "few_steps" not in found
    for one in written:
        assert sum(one["message"] in line and one["remedy"] in line for line in said) == 1
    assert run.callback_metrics["codes/gain"] == 0
    assert run.callback_metrics["codes/drift"] > 1
    assert len(warn.history) == 4


def test_a_model_without_codes_has_none_of_their_faults(tmp_path, monkeypatch):
    monkeypatch.setattr("acn_lightning.evaluation.warnings.SETTLED", 1)
    monkeypatch.setattr("acn_lightning.evaluation.warnings.STEPS", 5)
    bare = [word for word in QUICK if not word.startswith(("model.encoder", "model.prior"))]
    bare += ["model.encoder.kind=none", "model.prior.kind=standard_normal", "model.shape.kind=free"]
    measure, probe = MeasureTest(linear="codes"), ProbeCodes(every_n_epochs=1)
    run, warn, _ = fit(tmp_path, measure, probe, epochs=2, quick=bare)
    assert warn.given == []
    assert not {"codes/gain", "codes/knn_accuracy"} & run.callback_metrics.keys()
    run.test(run.lightning_module, datamodule=run.datamodule, verbose=False)
    assert measure.results["representations"]["codes"] is None
    assert measure.results["accuracies"]["linear"] is None


def test_a_run_that_goes_on_says_nothing_twice_and_its_new_folder_has_the_list(tmp_path):
    _, warn, _ = fit(tmp_path / "a", epochs=2)
    assert [one["name"] for one in warn.given] == ["few_steps"]
    again = WarnOfFaults(tmp_path / "b")
    again.load_state_dict(json.loads(json.dumps(warn.state_dict())))
    data, module = digits("data.subset=150")
    run = trainer(RefreshNeighbours(), again, max_epochs=1)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run.fit(module, datamodule=data)
    assert not any("Steps of this run" in str(one.message) for one in seen)
    assert (tmp_path / "b/warnings.json").read_text() == (tmp_path / "a/warnings.json").read_text()
    assert again.history[:2] == warn.history


def test_what_a_test_finds_is_told_like_the_rest(tmp_path, monkeypatch):
    told = []

    class Logged:
        def alert(self, name, text):
            told.append((name, text))

        def add_text(self, name, text, step):
            told.append((name, text))

    run, warn, _ = fit(tmp_path, epochs=1)
    monkeypatch.setattr("acn_lightning.callbacks.warn.runs", lambda *_: [Logged()])
    measure = MeasureTest()
    even = {name: {"linear": 0.5} for name in ("codes", "pca", "pixels")}
    measure.results = {"images": 20, "representations": even}
    run.callbacks.append(measure)
    with pytest.warns(UserWarning, match="does as well on pixels as on the codes"):
        warn.on_test_end(run, run.lightning_module)
    assert [name for name, _ in told] == ["codes_below_pixels", "warnings/codes_below_pixels"]
    assert json.loads((tmp_path / "warnings.json").read_text())[-1]["name"] == told[0][0]


def test_what_a_test_said_goes_when_the_run_trains_on(tmp_path):
    written, (_, module) = tmp_path / "warnings.json", digits("data.subset=150")
    written.write_text("[]")
    WarnOfFaults(tmp_path).on_train_start(trainer(), module)
    assert not written.exists()


def test_a_validation_counts_once(tmp_path):
    _, warn, _ = fit(tmp_path, check_val_every_n_epoch=2)
    assert len(warn.history) == len(set(map(tuple, warn.history))) == 2


def test_looking_for_faults_changes_nothing(tmp_path):
    weights = []
    for callbacks in ([WarnOfFaults(tmp_path)], []):
        data, module = digits("data.binarisation=dynamic", "data.subset=150")
        trainer(SeedEpochs(3), RefreshNeighbours(), *callbacks, max_epochs=2).fit(
            module, datamodule=data
        )
        weights.append(torch.cat([one.flatten() for one in module.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize(("load", "said"), [(9.0, 1), (0.5, 0)])
def test_shared_cores_are_said_before_the_first_epoch_ends(tmp_path, monkeypatch, load, said):
    here = "acn_lightning.callbacks.warn"
    monkeypatch.setattr(f"{here}.WATCHED", 0)
    monkeypatch.setattr(f"{here}.time.process_time", lambda: 7.0)
    monkeypatch.setattr(f"{here}.os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(f"{here}.os.cpu_count", lambda: 2)
    monkeypatch.setattr(f"{here}.torch.get_num_threads", lambda: 2)
    seen = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append([one["name"] for one in warn.given])

    data, module = digits("data.subset=150")
    warn = WarnOfFaults(tmp_path)
    run = trainer(RefreshNeighbours(), Look(), warn, max_epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(module, datamodule=data)
    assert [names.count("shared_cores") for names in seen] == [said, said]


def test_none_are_looked_for_on_request():
    data, module = digits("data.subset=150")
    warn = WarnOfFaults(every_n_epochs=0)
    trainer(RefreshNeighbours(), warn, max_epochs=1).fit(module, datamodule=data)
    assert warn.given == warn.history == []


def test_its_state_does_not_grow_with_the_epochs(tmp_path):
    """Checkpoints were refused after some 33,300: as holding too many values."""
    _, warn, _ = fit(tmp_path, epochs=6)
    assert len(warn.state_dict()["history"]) == 5
    warn.load_state_dict({"given": [], "history": [[float(100 - one), 1.0] for one in range(9)]})
    assert [pair[0] for pair in warn.history] == [96.0, 95.0, 94.0, 93.0, 92.0]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"given": "x", "history": []},
        {"given": [{"name": "x"}], "history": []},
        {"given": [{"name": "x", "epoch": "1", "message": "", "remedy": ""}], "history": []},
        {"given": [], "history": [[1.0]]},
        {"given": [], "history": [[1.0, "x"]]},
    ],
)
def test_a_damaged_state_is_refused(state):
    with pytest.raises(UsageError, match="state of WarnOfFaults is damaged"):
        WarnOfFaults().load_state_dict(state)


def test_wrong_option():
    with pytest.raises(UsageError, match=r"warnings\.every_n_epochs: -1"):
        WarnOfFaults(every_n_epochs=-1)
