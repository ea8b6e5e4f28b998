"""acn runs, compare and report: of runs whole, half written, damaged and hostile."""

import base64
import fcntl
import gzip
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from PIL import Image

from acn_lightning.cli import undashed
from acn_lightning.commands.runs import runs as runs_command
from acn_lightning.config.compose import compose, flatten
from acn_lightning.experiment.folder import run_folder, writing
from acn_lightning.experiment.resume import fit_config
from acn_lightning.runs import comparison, curves, listing, pages, sections
from acn_lightning.runs.finding import find_runs, named_run
from acn_lightning.runs.reading import STATES, parse_metrics, read_run
from acn_lightning.utils.errors import UsageError
from tests.test_explorer import BROWSER, DRIVER

EVIL = "</script><script>window.evil = 1</script><img src=x onerror='window.evil = 1'>\"'&"

RESULTS = {
    "images": 20,
    "nats_per_image": {"reconstruction": 90.0, "ordered": 95.5, "unordered": 98.25},
    "bits_per_dim": {"ordered": 2.0, "unordered": 2.5},
    "representations": {
        "codes": {"linear": 0.5, "knn": 0.75, "labels_100": {"mean": 0.4, "std": 0.1}},
        "pca": {"linear": 0.625, "knn": 0.5},
        "pixels": None,
    },
    "training": {"epochs": 3, "steps": 60, "seconds": 42.0},
}


@pytest.fixture
def light(monkeypatch):
    """Pages without the library of their charts, whose packing takes most of the time."""
    monkeypatch.setattr(pages, "plotly_script", lambda command: "")


def metrics(costs):
    """metrics.csv with a row of training and one of validation for each epoch."""
    rows = ["epoch,step,train/total,val/total"]
    for epoch, cost in enumerate(costs):
        rows += [f"{epoch},{epoch * 20},,{cost}", f"{epoch},{epoch * 20},{cost + 1},"]
    return "\n".join(rows) + "\n"


def make_run(folder, costs=(5.0, 3.0, 4.0), results=RESULTS, last=True, **config):
    """A run's folder. `results=None` leaves that file out."""
    (folder / "checkpoints").mkdir(parents=True)
    known = {"experiment": folder.parent.name, "run": folder.name, "trainer": {"max_epochs": 3}}
    (folder / "config.yaml").write_text(yaml.safe_dump(known | config))
    if costs:
        (folder / "metrics.csv").write_text(metrics(costs))
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))
    if last:
        (folder / "checkpoints" / "last.ckpt").touch()
    return folder


def results_with(**figures):
    """Results with other costs."""
    return RESULTS | {"nats_per_image": RESULTS["nats_per_image"] | figures}


# ---------------------------------------------------------------- a run's folder


def test_metrics_are_placed_by_epoch_and_a_row_still_being_written_is_left_out():
    table = "a,epoch,step\n1,0,1\n2,0,2\nnan,0,3\n,0,4\n3,1,5\n,x,6\n4,2"
    assert parse_metrics(table.encode()) == {"a": [(0.5, 1.0), (1.0, 2.0), (2.0, 3.0)]}
    assert parse_metrics(b"") == {}
    with pytest.raises(ValueError, match="no column of epochs"):
        parse_metrics(b"a,b\n1,2\n")


def test_states():
    assert read_run(make_run(Path("runs/x/a"))).state == "finished"
    assert read_run(make_run(Path("runs/x/b"), results=None)).state == "stopped"
    assert read_run(make_run(Path("runs/x/c"), results=None, last=False)).state == "failed"
    assert read_run(make_run(Path("runs/x/d"), (), None, last=False)).state == "empty"
    resumed = make_run(Path("runs/x/e"), costs=(5, 4, 3, 2))  # further than its results
    assert read_run(resumed).state == "stopped"
    damaged = make_run(Path("runs/x/f"))
    (damaged / "results.json").write_text("{")
    assert read_run(damaged).state == "damaged"
    assert {read_run(one).state for one in find_runs(Path("runs"))} == {*STATES} - {"running"}


def test_the_time_of_a_run_that_has_not_ended_is_that_of_its_epochs():
    run = make_run(Path("runs/x/a"), results=None)
    assert read_run(run).seconds is None
    (run / "metrics.csv").write_text("epoch,train/epoch_seconds\n0,2.5\n1,3\n")
    assert read_run(run).seconds == 5.5


def test_a_run_is_running_while_its_lock_is_held():
    folder = make_run(Path("runs/x/a"))
    assert read_run(folder).state == "finished"
    assert not (folder / ".lock").exists(), "reading must not write"
    with FileLock(folder / ".lock"):
        assert read_run(folder).state == "running"
    assert read_run(folder).state == "finished"
    (folder / ".lock").unlink(missing_ok=True)
    os.mkfifo(folder / ".lock")
    assert read_run(folder).state == "finished"


def test_a_run_starts_although_somebody_looks_at_its_lock():
    config = {"experiment": "x"}
    folder = Path("runs/x/a")
    folder.mkdir(parents=True)
    descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [descriptor]).start()
    with writing(folder, config):
        assert read_run(folder).running


def test_only_trainings_are_found(tmp_path):
    run = make_run(tmp_path / "runs/x/a")
    make_run(run / "outputs/test-1", results={"images": 1})  # of a run: never searched
    for name, files in {"exported": ["codes.npz"], "drawn": ["images/daydream.png"]}.items():
        folder = tmp_path / "runs/x" / name
        for file in ["config.yaml", *files]:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
    begun = tmp_path / "runs/outputs/test-1"  # of a pack: a test that runs, or was killed
    begun.mkdir(parents=True)
    for file in ("config.yaml", ".lock"):
        (begun / file).touch()
    (tmp_path / "runs/x/loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs/.hidden").mkdir()
    assert list(find_runs(tmp_path / "runs")) == [run]
    assert list(find_runs(run)) == [run]
    assert list(find_runs(tmp_path / "nowhere")) == []
    (tmp_path / "runs").rename(tmp_path / "outputs")  # as trainer.default_root_dir=outputs has it
    assert list(find_runs(tmp_path)) == [tmp_path / "outputs/x/a"]
    with pytest.raises(UsageError, match="not the folder of a run"):
        named_run(str(tmp_path / "outputs/outputs/test-1"))


@pytest.mark.parametrize(
    ("here", "text"),
    [("runs/x/a", "."), ("runs/x/a", "checkpoints/last.ckpt"), ("runs/x/a", "config.yaml"),
     ("runs/x/a/checkpoints", ".."), ("runs/x/a/checkpoints", "last.ckpt"), ("runs/x", "a/"),
     ("runs/x/b", "../a"), ("runs", "x/a/checkpoints/last.ckpt")],
)  # fmt: skip
def test_a_run_is_named_from_wherever_one_is(monkeypatch, here, text):
    make_run(Path("runs/x/a"), experiment=None)
    make_run(Path("runs/x/b"))
    monkeypatch.chdir(here)
    run = named_run(text)
    assert (run.name, run.experiment, run.state) == ("a", "x", "finished")
    assert "run=a-again" in dict(sections.commands(run))["Repeat it, as a new run:"]


def test_a_link_to_a_run_has_its_own_name():
    make_run(Path("runs/x/a"))
    Path("mine").symlink_to("runs/x/a")
    assert named_run("mine").name == named_run("mine/checkpoints/last.ckpt").name == "mine"


# ---------------------------------------------------------------- acn runs


def test_runs_lists_figures(acn):
    make_run(Path("runs/x/a"))
    status, out, err = acn("runs")
    assert (status, err) == (0, "")
    head, line, _, count = out.splitlines()
    assert head.split()[:2] == ["state", "epoch"]
    assert re.sub(" {2,}", "|", line).startswith(
        "finished|3/3|3.00|95.50|98.25|50.00|75.00|40.00|42 s|"
    )
    assert line.endswith("ago  runs/x/a")
    assert count == "1 run: 1 finished"


@pytest.mark.parametrize("words", [["--json"], ["json=true"], ["--json=true"]])
def test_runs_as_json(acn, words):
    make_run(Path("runs/x/a"))
    make_run(Path("runs/x/b"), results=None, costs=())
    (other, one) = json.loads(acn("runs", "runs", "sort=cost", *words)[1])[::-1]
    assert (other["val_cost"], other["state"], other["ordered"]) == (None, "stopped", None)
    assert (one["run"], one["experiment"], one["name"]) == ("runs/x/a", "x", "a")
    assert (one["best_epoch"], one["val_cost"], one["unordered"]) == (2.0, 3.0, 98.25)
    assert (one["linear"], one["labels_100"], one["seconds"]) == (0.5, 0.4, 42.0)


def test_orders_put_the_best_first_and_the_unknown_last():
    for name, cost, linear in [("a", 3, 0.2), ("b", 1, None), ("c", 2, 0.9), ("d", None, 0.5)]:
        codes = {"linear": linear, "knn": None, "labels_100": None}
        results = results_with(ordered=cost) | {"representations": {"codes": codes}}
        make_run(Path("runs/x") / name, results=results)
        os.utime(Path("runs/x") / name / "metrics.csv", (2e9 + (cost or 0), 2e9 + (cost or 0)))
    found = list(map(read_run, find_runs(Path("runs"))))

    def names(sort):
        return "".join(run.name for run in listing.ordered(found, sort))

    assert names("ordered") == "bcad"
    assert names("linear") == "cdab"
    assert names("written") == "acbd"
    assert names("name") == "abcd"
    for sort in listing.SORTS:
        assert sorted(names(sort)) == list("abcd")
    assert all(f'"{sort}"' in runs_command.__doc__ for sort in listing.SORTS)


def test_runs_of_one_experiment(acn):
    make_run(Path("runs/digits/a"))
    make_run(Path("runs/mnist+small/b"))
    assert [one["name"] for one in json.loads(acn("runs", "experiment=mnist*", "--json")[1])] == [
        "b"
    ]
    assert acn("runs", "experiment=cifar10")[2] == (
        "acn: experiment: no run of cifar10 in runs. There are digits, mnist+small.\n"
    )


def test_wrong_words_of_runs(acn):
    assert acn("runs") == (
        2, "", "acn: there is no folder runs. Name the one that your runs are in.\n"
    )  # fmt: skip
    Path("runs").mkdir()
    assert acn("runs")[:2] == (0, "no runs in runs\n")
    assert "is not one of written" in acn("runs", "sort=size")[2]
    assert acn("runs", "srot=cost")[0] == 2
    assert acn("runs", "runs", "more")[2].startswith("acn: 'more': acn runs has no such option")


def test_dashes_of_own_options():
    assert undashed(runs_command, "--json") == "json=true"
    assert undashed(runs_command, "--sort=cost") == "sort=cost"
    for word in ("--sort", "--other", "json=true", "-json", "runs", "--data.root=x"):
        assert undashed(runs_command, word) == word


def test_runs_needs_no_torch(tmp_path):
    make_run(tmp_path / "runs/x/a")
    make_run(tmp_path / "runs/x/b")
    code = (
        "import sys; from acn_lightning.cli import main\n"
        "assert main(['runs']) == main(['compare', 'runs/x/a', 'runs/x/b']) == 0\n"
        "assert main(['report', 'runs/x/a']) == 0\n"
        "assert not {'torch', 'lightning', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


# ---------------------------------------------------------------- acn compare


def test_differences_and_figures():
    first = make_run(Path("runs/x/a"), seed=1, data={"source": "digits", "n": [1, 2]})
    second = make_run(
        Path("runs/x/b"), (9.0,), results_with(ordered=94.0), seed=2,
        data={"source": "digits", "n": [1, 2], "more": None},
    )  # fmt: skip
    third = make_run(Path("runs/x/c"), results=None, seed=1, data={"source": "digits", "n": "all"})
    found = [read_run(one) for one in (first, second, third)]
    rows = {row.name: row.cells for row in comparison.differences(found)}
    assert rows == {
        "seed": ["1", "2", "1"], "data.n": ["[1, 2]", "[1, 2]", "all"],
        "data.more": ["", "null", ""],
    }  # fmt: skip
    figures = {row.name: row for row in comparison.figures(found)}
    assert figures["lowest held-out cost"].cells == ["3.00", "9.00", "3.00"]
    assert figures["lowest held-out cost"].best == {0, 2}
    ordered = figures["ordered = reconstruction + tour"]
    assert (ordered.cells, ordered.best) == (["95.50", "94.00", ""], {1})
    assert figures["linear classifier"].best == set()  # equal
    assert figures["linear, 100 labels"].cells == ["40.00", "40.00", ""]
    assert comparison.caution(found) == ""


def test_costs_of_different_data_are_not_ranked(acn):
    make_run(Path("runs/x/a"), data={"source": "digits"})
    make_run(Path("runs/x/b"), results=results_with(ordered=1.0), data={"source": "idx"})
    status, out, _ = acn("compare", "runs/x/a", "runs/x/b")
    assert status == 0
    assert "*" not in out
    assert out.splitlines()[-1] == (
        "The runs are of different data (data.source), so figures do not compare."
    )
    content = json.loads(acn("compare", "runs/x/a", "runs/x/b", "--json")[1])
    assert content["comparable"] is False
    assert content["config"] == {"data.source": ["digits", "idx"]}
    assert content["runs"][1]["nats_per_image"]["ordered"] == 1.0


def test_json_has_no_numbers_that_json_lacks(acn):
    make_run(Path("runs/x/a"), results=None, seed=[{"a": float("nan")}], run=float("-inf"))
    make_run(Path("runs/x/b"), results=None, seed=1)
    (Path("runs/x/a") / "metrics.csv").write_text("epoch,train/epoch_seconds\n0,1e308\n1,1e308\n")

    def refused(word):
        raise AssertionError(word)

    text = acn("compare", "runs/x/a", "runs/x/b", "--json")[1]
    content = json.loads(text, parse_constant=refused)
    assert content["config"] == {"seed": [[{"a": "nan"}], 1]}
    listed = json.loads(acn("runs", "sort=name", "--json")[1], parse_constant=refused)
    assert [one["seconds"] for one in listed] == [None, None]
    assert acn("runs")[0] == 0


def test_a_star_marks_the_lowest_cost_of_a_set():
    make_run(Path("runs/x/a"), results=RESULTS | {"nats_per_image": {"set": 3.0}})
    make_run(Path("runs/x/b"), results=RESULTS | {"nats_per_image": {"set": 2.0}})
    rows = comparison.figures([read_run(Path("runs/x/a")), read_run(Path("runs/x/b"))])
    assert [row.best for row in rows if row.name.startswith("set")] == [{1}]


def test_a_cost_of_training_is_none_of_held_out_images(acn):
    for name, cost in [("a", 9.0), ("b", 8.0)]:
        make_run(Path("runs/x", name), (cost,), data={"validation": 0.1})
    without = make_run(Path("runs/x/c"), (), data={"validation": 0})
    (without / "metrics.csv").write_text("epoch,step,train/total\n0,1,7.0\n")
    found = json.loads(acn("runs", "sort=cost", "--json")[1])
    assert [(one["name"], one["val_cost"], one["best_epoch"]) for one in found] == [
        ("b", 8.0, 1.0), ("a", 9.0, 1.0), ("c", None, None)
    ]  # fmt: skip
    a, b, c = (read_run(Path("runs/x", name)) for name in "abc")
    rows = {row.name: row for row in comparison.figures([a, b, c])}
    assert rows["lowest held-out cost"].cells == ["9.00", "8.00", ""]
    assert sections.tiles(c)[0] == ("lowest cost, training", "7.00", "nats, epoch 1")
    assert sections.tiles(b)[0] == ("lowest cost, held out", "8.00", "nats, epoch 1")


HELD_OUT = "Held-out costs differ in {}, so they do not compare."
COSTS_DIFFER = "Costs of the test differ in {}, so they do not compare."
TESTED = "They were tested on 20 and 1,000 images, so figures of the test do not compare."


@pytest.mark.parametrize(
    ("config", "results", "said", "ranked"),
    [
        ({}, {}, "", {"lowest held-out", "ordered"}),
        ({"data": {"validation": 0.3}}, {}, HELD_OUT.format("data.validation"), {"ordered"}),
        ({"data": {"subset": 99}}, {}, HELD_OUT.format("data.subset"), {"ordered"}),
        (
            {"data": {"subset": 50}, "seed": 2},
            {},
            HELD_OUT.format("data.subset, seed"),
            {"ordered"},
        ),
        ({"seed": 2}, {}, "", {"lowest held-out", "ordered"}),
        ({"neighbours": {"k": 3}}, {}, HELD_OUT.format("neighbours.k"), {"ordered"}),
        (
            {"evaluation": {"tour_seconds": 9}},
            {},
            COSTS_DIFFER.format("evaluation.tour_seconds"),
            {"lowest held-out"},
        ),
        ({"evaluation": {"linear": "codes"}}, {}, "", {"lowest held-out", "ordered"}),
        ({}, {"images": 1000}, TESTED, {"lowest held-out"}),
    ],
)
def test_figures_of_other_images_are_not_ranked(config, results, said, ranked, light):
    known = {"validation": 0.1, "subset": None}
    make_run(Path("runs/x/a"), data=known, seed=1)
    config = {"seed": 1} | config | {"data": known | config.get("data", {})}
    make_run(Path("runs/x/b"), (2.0,), results_with(ordered=1.0) | results, **config)
    found = [read_run(Path("runs/x", name)) for name in "ab"]
    assert comparison.caution(found) == said
    starred = [row.name for row in comparison.figures(found) if row.best]
    assert {name.partition(" cost")[0].partition(" =")[0] for name in starred} == ranked
    assert json.loads(comparison.as_json(found))["comparable"] == (not said)
    page = pages.comparison_page(found, "")
    assert "The best of a row is in colour." in page
    assert said in page


@pytest.mark.parametrize(
    "key",
    ["path", "split", "test_split", "subset_name", "image", "label", "attribute", "bits",
     "background"],
)  # fmt: skip
def test_data_sets_that_differ_in_a_key_do_not_compare(key):
    for name in "ab":
        make_run(Path("runs/x", name), data={"source": "huggingface", key: name})
    found = [read_run(Path("runs/x", name)) for name in "ab"]
    assert comparison.other_data(found) == [f"data.{key}"]


@pytest.mark.parametrize(
    ("data", "prints", "said"),
    [
        ({"root": "/scratch/2/photos"}, ("1", "1"), ""),
        ({"root": "/scratch/1/photos/"}, None, ""),
        ({"root": "/scratch/2/photos"}, None, "different data (data.root)"),
        ({"root": "/scratch/2/photos"}, ("1", "2"), "different data (data.root)"),
        ({}, ("1", "2"), "different data (the test images)"),
        ({}, ("2", "1"), "Held-out costs differ in the training images,"),
        ({"binarisation": "static"}, ("1", "1"), "different data (data.binarisation)"),
    ],
)
def test_images_tell_whether_data_are_the_same(data, prints, said):
    known = {"root": "/scratch/1/photos", "binarisation": "none"}
    for name, own, found in [("a", known, ("1", "1")), ("b", known | data, prints)]:
        folder = make_run(Path("runs/x", name), data=own)
        told = dict(zip(("training", "test"), found, strict=True)) if found else None
        (folder / "about.json").write_text(json.dumps({"fingerprints": told}))
    caution = comparison.caution([read_run(Path("runs/x", name)) for name in "ab"])
    assert (said in caution) if said else not caution


def test_arrays_that_differ_in_number_or_form_do_not_compare():
    for name, size, count in [("a", 24, 20), ("b", 24, 12), ("c", 32, 20), ("d", 24, 20)]:
        folder = Path("runs/x", name)
        make_run(folder, data={"source": "arrays"})
        about = {"images": {"test": count}, "image_shape": [3, size, size]}
        (folder / "about.json").write_text(json.dumps(about))
    a, b, c, d = (read_run(Path("runs/x", name)) for name in "abcd")
    assert comparison.caution([a, d]) == ""
    for other in (b, c):
        assert "the form or the number of the test images" in comparison.caution([a, other])


def test_the_line_of_data_has_one_full_stop_at_most():
    make_run(Path("runs/x/a"))
    about = {"data": "icons: 800 images.", "images": {"test": 80}, "classes": 4}
    Path("runs/x/a/about.json").write_text(json.dumps(about))
    assert sections.data_line(read_run(Path("runs/x/a"))) == (
        "icons: 800 images; 80 test; 4 classes"
    )


def test_wrong_words_of_compare(acn, light):
    make_run(Path("runs/x/a"))
    make_run(Path("runs/x/b"))
    for words, said in [
        (["runs/x/a"], "name two runs or more to compare; runs/x/a is only one."),
        (["runs/x/a", "runs/x/a/checkpoints/last.ckpt"], "runs/x/a is named twice."),
        (["runs/x/a", "b"], "there is no folder b. Do you mean runs/x/b?"),
        (["runs/x/a", "runs/x/bb"], "there is no run runs/x/bb. Did you mean 'runs/x/b'?"),
        (["runs/x/a", "runs"], "runs is not the folder of one run: it holds 2, such as runs/x/a."),
        (["runs/x/a", "runs/x/b", "--json", "out=a.html"],
         "json: with out, a page is written and nothing is printed. Leave one out."),
        (["runs/x/a", "runs/x/b", "out=a.pdf"], "out: a.pdf is not an .html file."),
        (["runs/x/a", "runs/x/b", "seed=1"],
         "'seed=1': acn compare has no such option. See acn compare -h."),
    ]:  # fmt: skip
        assert acn("compare", *words) == (2, "", f"acn: {said}\n")
    Path("a.html").write_text("mine")
    assert "a.html already exists" in acn("compare", "runs/x/a", "runs/x/b", "out=a.html")[2]
    assert Path("a.html").read_text() == "mine"
    assert acn("compare", "runs/x/a", "runs/x/b", "out=b.html")[:2] == (0, "b.html\n")
    assert sorted(map(str, Path().glob("*.html"))) == ["a.html", "b.html"]


# ---------------------------------------------------------------- pages


class Page(HTMLParser):
    """A page as a browser sees it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.scripts, self.inside = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        else:
            self.text.append(data)


def hostile_run(folder):
    """A run with hostile text in each place that a page shows."""
    make_run(folder, seed=EVIL, model={"encoder": {"kind": EVIL, EVIL: EVIL}, "code_size": EVIL})
    (folder / "metrics.csv").write_text(f'epoch,"{EVIL.replace(chr(34), "")}",train/total\n0,1,2\n')
    caution = {"name": EVIL, "epoch": 2, "message": EVIL, "remedy": EVIL}
    (folder / "warnings.json").write_text(json.dumps([caution]))
    (folder / "about.json").write_text(json.dumps({"data": EVIL, "image_shape": [EVIL]}))
    (folder / "images").mkdir()
    for name in (EVIL.replace("/", ""), "samples"):
        Image.new("L", (4, 4)).save(folder / "images" / f"{name}.png")
    return folder


def check_inert(text):
    """A page whose only scripts are its own."""
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == len(page.scripts) == 3
    assert not [name for _, known in page.tags for name in known if name.startswith("on")]
    assert not [tag for tag, _ in page.tags if tag in ("iframe", "object", "link", "base", "form")]
    assert EVIL in page.text or any(EVIL in one for one in page.text)
    (policy,) = [one["content"] for tag, one in page.tags if "http-equiv" in one]
    charts, packed, script = page.scripts
    plotly = gzip.decompress(base64.b64decode(packed)).decode()
    for one in (script, plotly):
        digest = base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy.partition("style-src")[0]
    for tag, known in page.tags:
        for name in ("src", "href"):
            assert known.get(name, "data:").startswith(("data:", "explorer.html", "outputs")), tag
    return json.loads(charts)


def test_hostile_text_is_inert(acn):
    name = EVIL.replace("/", "")
    run = hostile_run(Path("runs") / name / name)
    make_run(Path("runs/x/b"))
    assert acn("report", run, "out=a.html")[0] == 0
    charts = check_inert(Path("a.html").read_text("utf-8"))
    assert {chart["title"] for chart in charts} == {"Cost", EVIL.replace('"', "")}
    assert acn("compare", run, "runs/x/b", "out=b.html")[0] == 0
    charts = check_inert(Path("b.html").read_text("utf-8"))
    assert all("<" not in line["name"] for chart in charts for line in chart["lines"])
    for _, command in sections.commands(read_run(run)):
        assert all("window" not in word or name in word for word in shlex.split(command))
    assert acn("runs")[0] == acn("runs", "--json")[0] == 0


GARBAGE = {
    "bytes": b"\xff\xfe\x00\x80garbage,,\n\x00",
    "half": b'{"nats_per_image": {"ordered": 1',
    "deep": b"[" * 100_000,
    "deep block": b"- " * 100_000,
    "list": b"[1, {}, null]",
    "other": b'{"training": 3, "nats_per_image": [1], "representations": {"codes": {"linear": '
    b'"x", "knn": NaN, "labels_100": 1e999}}, "model": 7, "trainer": {"max_epochs": []}, '
    b'"parameters": {"total": true}, "images": "many", "epoch": 1}',
    "empty": b"",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize(
    "file", ["config.yaml", "metrics.csv", "results.json", "warnings.json", "about.json"]
)
def test_damaged_files_are_a_state_and_no_error(acn, file, content):
    run = make_run(Path("runs/x/a"))
    make_run(Path("runs/x/b"))
    (run / file).write_bytes(content)
    found = read_run(run)
    assert found.faults.keys() <= {file}
    assert not json.dumps(listing.plain(found), allow_nan=False).count("NaN")
    listing.table([found])
    sections.commands(found)
    comparison.table([found, read_run(Path("runs/x/b"))])
    page = pages.report_page(found, "", Path())
    assert (f"{file} cannot be read" in page) == bool(found.faults)


def test_names_may_be_any_bytes(acn, light):
    name = os.fsdecode(b"caf\xe9\n")
    run = make_run(Path("runs") / name / name, seed="\udce9")
    (run / "warnings.json").write_text('[{"message": "\\ud800"}]')
    make_run(Path("runs/x/b"))
    assert json.loads(acn("runs", "--json")[1])
    assert "caf\\udce9\\n" in acn("runs")[1]
    assert acn("report", run, "out=a.html")[0] == acn("compare", run, "runs/x/b")[0] == 0
    assert acn("compare", run, "runs/x/b", "out=b.html")[0] == 0
    assert "caf\\udce9" in Path("a.html").read_text("utf-8")


def test_a_file_that_is_none_or_a_link_is_not_read():
    run = make_run(Path("runs/x/a"))
    for name in ("results.json", "metrics.csv"):
        (run / name).unlink()
    os.mkfifo(run / "results.json")
    (run / "metrics.csv").symlink_to("/etc/passwd")
    assert read_run(run).faults == {"results.json": "it is no file", "metrics.csv": "it is no file"}


def test_a_run_that_may_not_be_read_is_one_of_the_list(acn, light, locked):
    for name in ("a", "b"):
        locked(make_run(Path("runs/x", name), results=RESULTS if name == "b" else None)
               / "checkpoints")  # fmt: skip
    run = make_run(Path("runs/x/c"))
    status, out, err = acn("runs")
    assert status == 0, err
    assert "3 runs: 2 finished, 1 damaged" in out
    assert "runs/x/a: checkpoints cannot be read ([Errno 13] Permission denied" in out
    assert acn("report", "runs/x/a")[0] == acn("compare", "runs/x/a", "runs/x/c")[0] == 0
    (run / "images").mkdir()
    locked(run / "images")
    assert acn("report", run)[0] == 0
    assert "<b>images cannot be read:</b> [Errno 13]" in (run / "report.html").read_text()


def test_a_folder_of_runs_that_may_not_be_read_is_not_called_empty(acn, locked):
    make_run(Path("runs/x/a"))
    locked(Path("runs"))
    status, out, err = acn("runs")
    assert (status, out, err) == (2, "", "acn: [Errno 13] Permission denied: 'runs'\n")


def test_a_report_says_what_there_is():
    run = make_run(Path("runs/x/a"), model={"encoder": {"kind": "conv", "channels": 8}})
    about = {"data": "photos: 9 images", "parameters": {"encoder": 1234, "total": 5678}}
    (run / "about.json").write_text(json.dumps(about))
    caution = {"name": "collapse", "epoch": 2, "message": "It collapsed.", "remedy": "seed=1"}
    (run / "warnings.json").write_text(json.dumps([caution]))
    (run / "images").mkdir()
    (run / "images/samples.png").write_bytes(b"no picture")
    Image.new("L", (3, 2)).save(run / "images/neighbours.png")
    (run / "outputs/explore-1").mkdir(parents=True)
    (run / "outputs/explore-1/explorer.html").touch()
    text = pages.report_page(read_run(run), "", run)
    page = Page(text)
    words = " ".join(" ".join(page.text).split())
    for said in ("photos: 9 images", "conv, channels 8; 1,234 parameters", "5,678",
                 "It collapsed.", "What to do: seed=1", "Epoch 3: collapse",
                 "20 test images", "95.50", "98.25", "50.00", "62.50", "images/samples.png:",
                 "Train it longer:", "42 s"):  # fmt: skip
        assert said in words, said
    (image,) = [known for tag, known in page.tags if tag == "img"]
    assert (image["width"], image["height"]) == ("3", "2")
    assert "nearest training images" in image["alt"]
    assert [known["href"] for tag, known in page.tags if tag == "a"] == [
        "outputs/explore-1/explorer.html"
    ]
    charts = [known for tag, known in page.tags if known.get("class") == "chart"]
    assert all(known["role"] == "img" and known["aria-label"] for known in charts)
    (cost,) = json.loads(page.scripts[0])
    assert [(line["name"], line["y"]) for line in cost["lines"]] == [
        ("training", [6, 4, 5]), ("held out", [5, 3, 4])
    ]  # fmt: skip


@pytest.mark.parametrize("costs", [(), (4.0,)])
def test_a_report_of_a_run_that_has_only_begun(acn, light, costs):
    run = make_run(Path("runs/x/a"), costs, None, last=False)
    assert acn("report", run) == (0, "runs/x/a/report.html\n", "")
    text = (run / "report.html").read_text("utf-8")
    assert "Not tested yet" in text
    assert ("No epoch has been logged yet" in text) == (not costs)


def test_a_report_replaces_reports_only(acn, light):
    run = make_run(Path("runs/x/a"))
    report = run / "report.html"
    assert acn("report", run)[0] == 0
    first = report.read_text("utf-8")
    (run / "metrics.csv").write_text(metrics([7.0]))
    assert acn("report", run)[0] == 0
    assert report.read_text("utf-8") != first
    assert "already exists" in acn("report", run, f"out={report}")[2]
    report.write_text("mine")
    assert "already exists" in acn("report", run)[2]
    assert report.read_text() == "mine"
    report.unlink()
    report.symlink_to("elsewhere.html")
    assert "already exists" in acn("report", run)[2]


def test_long_curves_are_thinned_and_keep_their_end():
    run = read_run(make_run(Path("runs/x/a"), costs=range(2500)))
    line = curves.line(run, "val/total", "a", "red")
    assert len(line["x"]) <= curves.MOST_POINTS
    assert (line["x"][-1], line["y"][-1]) == (2500, 2499)


def test_each_metric_is_in_one_chart():
    run = make_run(Path("runs/x/a"), costs=())
    names = ["train/total", "val/total", "codes/nmi", "val/knn_accuracy", "train/learning_rate",
             "bank/recall", "test/total", "train/images_per_second"]  # fmt: skip
    rows = [",".join(["epoch", *names]), ",".join(["0", *"12345678"])]
    (run / "metrics.csv").write_text("\n".join(rows) + "\n")
    first, rest = curves.charts(read_run(run))
    shown = [line["title"] for chart in (*first, *rest) for line in chart["lines"]]
    assert len(shown) == len(names) - 1
    assert [chart["title"] for chart in rest] == ["bank/recall", "codes/nmi"]
    assert [chart["title"] for chart in first] == [
        "Cost", "Accuracy of codes", "Learning rate", "Speed"
    ]  # fmt: skip


# ---------------------------------------------------------------- a real run


def test_a_real_run_and_its_commands(acn, trained, monkeypatch):
    monkeypatch.chdir(trained)
    run = named_run("runs/folder/mine/checkpoints/best.ckpt")
    assert (run.state, run.epochs, run.max_epochs) == ("finished", 4, 4)
    assert run.folder == Path("runs/folder/mine")
    results = json.loads((run.folder / "results.json").read_text())
    assert run.about["images"]["test"] == results["images"]
    assert run.about["parameters"]["total"] > run.about["parameters"]["encoder"] > 0
    commands = {what: shlex.split(line) for what, line in sections.commands(run)}
    assert commands["Repeat it, as a new run:"][:2] == ["acn", "fit"]
    before = dict(flatten(run.config))
    again, resumed = fit_config(*split(commands["Repeat it, as a new run:"]))
    assert resumed is None
    changed = {key for key, value in flatten(again) if before.get(key) != value}
    assert changed == {"run"}
    longer, _ = fit_config(*split(commands["Train it longer:"]))
    assert run_folder(longer).resolve() == run.folder.resolve()
    assert (longer["resume"], longer["trainer"]["max_epochs"]) == ("auto", 8)
    text = pages.report_page(run, "", run.folder)
    assert "150 images" in text
    for image in (run.folder / "images").glob("*.png"):
        assert base64.b64encode(image.read_bytes()).decode() in text


def split(command):
    """(experiment, overrides) of `acn fit`."""
    _, _, *words = command
    names = [word for word in words if "=" not in word]
    return next(iter(names), None), [word for word in words if "=" in word]


def test_a_run_that_was_moved_goes_on_by_its_checkpoint(trained):
    shutil.copytree(trained / "runs/folder/mine", "elsewhere/mine")
    run = read_run(Path("elsewhere/mine"))
    assert sections.same_run(run) == ["resume=elsewhere/mine/checkpoints/last.ckpt"]
    assert compose("elsewhere/mine/config.yaml")["experiment"] == "folder"


@pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium and chromedriver here")
def test_in_a_browser(tmp_path):
    """Charts are drawn, nothing hostile runs, and a phone need not scroll sideways."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    name = EVIL.replace("/", "")
    run = hostile_run(tmp_path / "runs" / "x" / name)
    other = make_run(tmp_path / "runs/x/b", seed="a-long-value-without-any-space" * 8)
    plotly = pages.plotly_script("report")
    found = [read_run(run), read_run(other)]
    (tmp_path / "a.html").write_text(pages.report_page(found[0], plotly, tmp_path), "utf-8")
    (tmp_path / "b.html").write_text(pages.comparison_page(found, plotly), "utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for word in ("headless=new", "no-sandbox", "host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        size = {"width": 360, "height": 3000, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for page in ("a.html", "b.html"):
            driver.get((tmp_path / page).as_uri())
            end = time.monotonic() + 20
            while not driver.execute_script("return document.querySelector('.main-svg')"):
                assert time.monotonic() < end, driver.get_log("browser")
                time.sleep(0.1)
            wide = "return [document.documentElement.scrollWidth, typeof window.evil]"
            assert driver.execute_script(wide) == [360, "undefined"]
            assert driver.get_log("browser") == []
    finally:
        driver.quit()
