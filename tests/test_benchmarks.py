"""The references of the benchmarks do the same work as ours, and what is printed is so."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from acn_lightning.config.compose import compose
from acn_lightning.data import Batch, ImageData
from acn_lightning.data.sources.idx import CLOTHES, read_idx
from acn_lightning.evaluation import classifiers
from acn_lightning.experiment import quickest
from acn_lightning.experiment.build import build
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import InterruptionError
from benchmarks import __main__ as command
from benchmarks import (
    cache,
    codes,
    data,
    measure,
    overhead,
    plan,
    precision,
    references,
    sampling,
    scale,
    search,
    shards,
    training,
    using,
)
from benchmarks import command as commands
from benchmarks import folder as folder_benchmark
from tests.conftest import QUICK
from tests.nursery import python
from tests.processes import call, shard

SMALL = (*QUICK, "model.decoder.layers=2", "model.decoder.map_channels=8")


def acn_of_size(size, tmp_path):
    """(data, module): mnist+small, smaller still, for binary images of `size`."""
    images = torch.randint(0, 2, (60, size, size), dtype=torch.uint8).mul(255).numpy()
    path = tmp_path / "images.npz"
    data.np.savez(path, images=images)
    where = ("data.source=npz", f"data.root={path}", "data.validation=0")
    return build(compose("mnist+small", [*SMALL, *where]))


# ------------------------------------------------------------ timing


def test_ways_are_timed_by_turns_after_a_warm_up():
    calls = []
    timed = measure.alternate(
        lambda: calls.append("ours") or len(calls),
        lambda: calls.append("reference") or len(calls),
        2,
        prepare=lambda: calls.append("prepare"),
    )
    assert calls == ["prepare", "ours", "reference"] * 3
    assert (timed.ours, timed.reference) == (8, 9)


def test_seconds_are_medians_of_what_counts(monkeypatch):
    # Ours takes 9 in the warm-up, then 1, 5, 2; the reference 3 each time.
    seconds = iter([9, 9, 1, 3, 5, 3, 2, 3])
    now = 0.0

    def clock():
        nonlocal now, started
        started = not started
        now += 0 if started else next(seconds)
        return now

    started = False
    monkeypatch.setattr(measure, "clock", clock)
    timed = measure.alternate(lambda: None, lambda: None, 3)
    assert timed[:2] == (2, 3)


@pytest.mark.parametrize(
    ("target", "ratio", "met"), [("<= 1.1", 0.5, True), (">= 3", 2, False), ("", 2, None)]
)
def test_the_ratio_is_the_one_that_the_target_is_of(target, ratio, met):
    figure = measure.Figure(1.0, 2.0, target)
    assert (figure.ratio, figure.met) == (ratio, met)


def test_a_limit_that_is_missed_misses_the_target():
    limits = {"recall": ">= 0.95"}
    assert measure.Figure(1, 20, ">= 10", extra={"recall": 0.96}, limits=limits).met
    assert not measure.Figure(1, 20, ">= 10", extra={"recall": 0.94}, limits=limits).met


# ------------------------------------------------------------ references


@pytest.mark.parametrize(
    "reference", [references.flat_search, references.sklearn_search, references.cdist_search]
)
@pytest.mark.parametrize("code_size", [3, 20])
def test_searches_find_the_neighbours_that_the_bank_finds(reference, code_size):
    bank = search.bank_of(300, code_size)
    assert bank.refresh(NeighbourIndex(code_size, factory="Flat")).unseen == 0
    found = search.others(reference(bank.codes, 6), bank.rows)
    assert torch.equal(found.sort(1).values, bank.neighbours.long().sort(1).values)
    assert search.overlap(bank.neighbours, found) == 1


def test_overlap_counts_what_was_found():
    true, found = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2, 9], [4, 3]])
    assert search.overlap(found, true) == 0.75


def test_others_leave_out_the_row_or_the_last_where_it_is_missing():
    found = torch.tensor([[0, 5, 6], [7, 1, 8], [3, 4, 5]])
    assert search.others(found, torch.arange(3)).tolist() == [[5, 6], [7, 8], [3, 4]]


def test_made_up_codes_are_the_same_each_time_and_spread_as_trained_ones_are():
    codes = torch.cat([some for _, some in search.made_up_codes(70_000, 16)])
    again = torch.cat([some for _, some in search.made_up_codes(70_000, 16)])
    assert torch.equal(codes, again)
    assert codes.shape == (70_000, 16)
    assert 2 < codes.std() < 4


def test_full_passes_draw_the_same_pixels(tmp_path):
    _, module = acn_of_size(7, tmp_path)
    with torch.no_grad():
        images = module.decoder(torch.randn(3, 4))
    torch.manual_seed(1)
    ours = images.sample()
    torch.manual_seed(1)
    assert torch.equal(references.sample_by_full_passes(images), ours)
    assert 0 < ours.mean() < 1


def test_a_sampler_that_draws_other_pixels_gives_no_figure():
    pixels = torch.zeros(10_000)
    pixels[:5] = 1
    assert sampling.part_equal(pixels, torch.zeros(10_000)) == pytest.approx(0.9995)
    with pytest.raises(RuntimeError, match=r"only 99.80% of the pixels"):
        sampling.part_equal(pixels, torch.zeros(10_000).index_fill(0, torch.arange(25), 1))


def test_the_bare_loop_has_the_loss_of_a_training_step(tmp_path, monkeypatch):
    parts, module = acn_of_size(8, tmp_path)
    rows, code = torch.arange(20), torch.randn(20, 4)
    image = parts.fixed_set.images[:20] / 255
    for name in ("log", "log_dict"):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(module.bank, "draw", lambda index: code)
    bare = references.BareLoop(module)
    torch.manual_seed(3)
    expected = module.training_step(Batch(rows, image, torch.zeros(20).long()), 0)
    torch.manual_seed(3)
    torch.testing.assert_close(bare.loss(image, code), expected)
    before = [weight.clone() for weight in module.parameters()]
    bare.step(image, code)  # of the copies
    assert all(map(torch.equal, before, module.parameters()))
    assert bare.loss(image, code) < expected


def test_folders_earlier_step_has_the_loss_and_the_gradients_of_todays(tmp_path):
    where = data.photos_in(str(tmp_path), 40)
    small = ("model.encoder.channels=8", "model.decoder.channels=8", "model.decoder.kind=conv")
    parts, module = build(compose("folder", [*where, *small, "data.validation=0"]))
    image, code = parts.fixed_set.images[:20] / 255, torch.randn(20, 64)
    ours, earlier = references.BareLoop(module), references.EarlierFolder(module, mixtures=3)
    for one in (ours, earlier):  # in 32 bits some CPUs round a gradient by half a percent
        one.networks.double()
    losses = []
    for one in (ours, earlier):
        torch.manual_seed(3)
        losses.append(one.loss(image.double(), code.double()))
        losses[-1].backward()
    torch.testing.assert_close(*losses)
    both = zip(ours.networks.parameters(), earlier.networks.parameters(), strict=True)
    for one, other in both:
        # Shifting all codes changes nothing, so one gradient is 0 but for rounding.
        assert (one.grad - other.grad).norm() <= 1e-4 * other.grad.norm() + 1e-3
    kinds = {type(one).__module__.partition(".")[0] for one in earlier.networks[3].body}
    assert kinds == {"torch"}
    ten = references.EarlierFolder(module.float())
    assert ten.networks[3].output.out_channels == 100
    ten.step(image, code)


def test_the_decoders_reference_has_its_cost(tmp_path):
    parts, module = acn_of_size(8, tmp_path)
    image, z = parts.fixed_set.images[:5] / 255, torch.randn(5, 4)
    eager = references.decoder_cost(references.plainly(module.decoder), z, image)
    torch.testing.assert_close(eager, -module.decoder(z).log_prob(image).mean())


def test_the_decoder_is_compiled_only_where_that_is_asked_for(monkeypatch):
    def compiled(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(torch, "compile", compiled)
    assert compose("mnist+small")["compile"] == "auto"  # which is not to ask
    training.decoder(1, SMALL)
    with pytest.raises(InterruptedError):
        training.decoder(1, [*SMALL, "compile=true"])


def test_both_loaders_give_the_same_images(tmp_path):
    path = data.write_images(tmp_path, 130)
    images = ImageData(source="npz", root=str(path), binarisation="none", validation=0)
    images.setup()
    naive = references.per_image_loader(images.train_set.images, images.labels, 64)
    ours, theirs = (
        [torch.cat(parts) for parts in zip(*(batch[:3] for batch in epoch), strict=True)]
        for epoch in (data.batches(images), naive)
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        assert torch.equal(mine[ours[0].argsort()], other[theirs[0].argsort()])


# ------------------------------------------------------------ benchmarks, small


def test_steps_of_both_sides_are_timed_in_blocks():
    quick = (*SMALL, "data.validation=10", "data.batch_size=8")
    figure = training.step(block=5, blocks=2, size=300, overrides=quick)
    assert figure.ours_s > 0
    assert figure.reference_s > 0
    assert figure.note == "4 steps each"


def test_the_frameworks_own_time_is_measured_beside_lightnings():
    figure = overhead.overhead(block=overhead.SETTLING + 4, blocks=1)
    assert figure.target == "<= 1.2"
    assert figure.limits == {"own_s": "<= 0.001"}
    assert min(figure.extra["bare_s"], figure.ours_s, figure.reference_s) > 0
    assert figure.extra["own_s"] == pytest.approx(figure.ours_s - figure.extra["bare_s"])


def test_lightnings_reference_trains_the_same_loss(monkeypatch):
    ours = overhead.our_steps(6)
    assert len(ours.batches) == 6
    weights = [one.clone() for one in ours.bare.networks.parameters()]
    overhead.lightning_steps(ours, 6)
    assert not all(map(torch.equal, weights, ours.bare.networks.parameters()))


@pytest.mark.parametrize(("bits", "ratio"), [(0.5, 1), (4.0, 1), (0.99, 1 / 0.99)])
def test_the_precision_that_is_taken_is_compared_with_the_better_one(monkeypatch, bits, ratio):
    monkeypatch.setattr(quickest, "quickest_precision", lambda _: "bf16-mixed")
    for module in (quickest, precision):
        monkeypatch.setattr(module, "timings", lambda data, module, ways: quickest.Timings(
            {way: bits if way.precision == "bf16-mixed" else 1.0 for way in ways}, {}
        ))  # fmt: skip
    figure = precision.precision(rounds=1)
    assert figure.ratio == pytest.approx(ratio)
    assert figure.met


def test_a_start_is_compared_in_cpu_and_wall_time(monkeypatch):
    spent = iter([(9.0, 9.0), (9.0, 9.0), (3.0, 8.0), (2.0, 5.0)])
    monkeypatch.setattr(commands, "seconds", lambda *_: next(spent))
    figure = commands.fit_start(repeats=1)
    assert (figure.ours_s, figure.reference_s, figure.ratio) == (3.0, 2.0, 1.5)
    assert figure.extra["wall_ratio"] == 1.6
    assert not figure.met
    monkeypatch.undo()
    cpu, wall = commands.seconds(sys.executable, "-c", "pass")
    assert 0 < cpu < 10
    assert wall > 0


def test_a_step_of_folder_is_measured_against_ten_and_three_logistics():
    small = ("model.encoder.channels=8", "model.decoder.channels=8", "data.batch_size=8")
    figure = training.step_folder(repeats=1, overrides=small)
    assert figure.ours_s > 0
    assert figure.extra["ratio_of_equal_mixtures"] > 0
    assert "against 3 logistics" in figure.note


def test_a_boundary_is_measured_with_its_recall_and_memory(capfd):
    found = scale.measure(3000, code_size=8)
    assert found["ours_s"] > 0
    assert not found["extrapolated"]
    assert found["recall"] == 1
    assert found["peak_bytes_per_code_byte"] >= 0


def test_a_boundary_with_lists_says_what_its_parts_take():
    bank = search.bank_of(1000, 4)
    index = NeighbourIndex(4, factory="IVF8,Flat")
    bank.refresh(index)
    parts = scale.phases(bank, index, scale.inverted_lists(index.index))
    assert list(parts) == ["train", "assign", "search"]
    assert min(parts.values()) > 0


# ------------------------------------------------------------ shards


@pytest.mark.parametrize("route", ["lists", "all"])
def test_shards_find_what_one_index_finds_and_send_what_is_planned(route, monkeypatch):
    def start(_, arguments, nprocs, start_method):
        options, folder = arguments
        call(shard, *((rank, options, folder) for rank in range(nprocs)))

    monkeypatch.setattr(torch.multiprocessing, "start_processes", start)
    options = shards.Options(4 * shards.AT_ONCE, 2, 8, route=route, steps=3, lists=32)
    found = shards.simulate(options)
    assert found["as_one_index"] == 1
    assert found["recall"] == found["recall_of_one_index"] > 0.95
    assert 1 <= found["fanout"] <= 2
    for name in ("train", "fill", "search"):
        phase = found["phases"][name]
        received = sum(phase["received_bytes"]) / 2
        assert received == pytest.approx(phase["planned_received_bytes"], rel=0.1)
    held = found["bytes"]
    assert sum(held["codes"]) == options.codes * 8 * 4
    assert sum(held["index"]) == options.codes * (8 * 4 + 8)


def test_rows_are_dealt_out_in_blocks():
    rows = torch.arange(3 * shards.AT_ONCE)
    rank, position = shards.place(rows, 2)
    assert rank[:: shards.AT_ONCE].tolist() == [0, 1, 0]
    assert position[rank == 0].tolist() == list(range(2 * shards.AT_ONCE))
    assert position[rank == 1].tolist() == list(range(shards.AT_ONCE))


def test_lists_that_are_near_have_one_owner_and_owners_hold_as_many_codes():
    centroids = torch.cat([torch.randn(50, 3) + 20 * one for one in range(4)])
    owner = shards.owners_of(centroids, torch.full((200,), 7), 4)
    assert owner.bincount().tolist() == [50] * 4
    assert all(len(part.unique()) == 1 for part in owner.split(50))


def test_a_wrong_option_of_the_shards_is_one_line():
    assert shards.parse(["codes=1e5", "searched=.5"])[:2] == (100_000, 4)
    for word in ("shard=3", "codes=many", "route=none", "codes=9"):
        with pytest.raises(SystemExit, match=word):
            shards.parse([word])


def test_the_plan_in_the_docs_is_what_the_command_prints(capsys):
    root = Path(command.__file__).parents[1]
    plan.main(str(root / "docs/results/benchmarks.json"))
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "\n".join(printed) in (root / "docs/performance.md").read_text()


# ------------------------------------------------------------ the command


def test_an_unknown_name_is_one_line_and_status_2(capsys):
    assert command.main(["help", "hlep"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "'hlep' is none of help, " in err


def test_a_name_without_its_dash_means_all_that_do_not_take_long():
    assert command.chosen(["scale", "scale-1e5"]) == ["scale-1e4", "scale-1e5", "scale-1e6"]
    assert command.chosen(["scale-1e7"]) == ["scale-1e7"]
    assert set(command.BENCHMARKS) - set(command.chosen([])) == {
        "cache-1e6",
        "scale-3e6",
        "scale-1e7",
        "codes-mnist",
    }


def test_figures_for_people_and_machines(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(command.BENCHMARKS, "help", command.later("command.help", 2))
    path = tmp_path / "figures.json"
    assert command.main(["help", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cpu ")
    assert lines[-1].split()[:1] == ["help"]
    assert "<= 10" in lines[-1]
    found = json.loads(path.read_text())
    assert list(found) == ["machine", "help"]
    assert {"cpu", "instructions", "threads", "torch", "faiss-cpu"} <= found["machine"].keys()
    figure = found["help"]
    assert figure["ratio"] == pytest.approx(figure["ours_s"] / figure["reference_s"])
    assert figure["target"] == "<= 10"
    assert list(tmp_path.iterdir()) == [path]


def test_one_that_fails_does_not_take_the_others_along(tmp_path, capsys, monkeypatch):
    def broken():
        raise RuntimeError("out of order")

    monkeypatch.setitem(command.BENCHMARKS, "loader", broken)
    monkeypatch.setitem(command.BENCHMARKS, "step", lambda: measure.Figure(1, 2, "<= 1"))
    path = tmp_path / "figures.json"
    assert command.main(["loader", "step", "--json", str(path)]) == 1
    assert "failed: out of order" in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert found["loader"]["error"] == "RuntimeError: out of order"
    assert found["step"]["ratio"] == 0.5


def test_a_signal_ends_it_and_what_was_found_stays(tmp_path, capsys, monkeypatch):
    def killed():
        raise InterruptionError(None, 143)

    monkeypatch.setitem(command.BENCHMARKS, "loader", lambda: measure.Figure(1, 2, "<= 1"))
    monkeypatch.setitem(command.BENCHMARKS, "step", killed)
    path = tmp_path / "figures.json"
    assert command.main(["loader", "step", "decoder", "--json", str(path)]) == 143
    assert capsys.readouterr().err == "\nbenchmarks: interrupted.\n"
    assert list(json.loads(path.read_text())) == ["machine", "loader"]


def test_it_runs_as_a_module():
    root = Path(command.__file__).parents[1]
    words = [python(), "-m", "benchmarks", "nothing"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("benchmarks: 'nothing' is none of")


# ---------------------------------------------------------------- the table of codes


def ended(work, row, seed, linear, precision="32-true"):
    """A run that has ended, as `acn fit` leaves it."""
    folder = work / row.name / f"seed-{seed}"
    folder.mkdir(parents=True)
    few = {"mean": linear - 0.1, "spread": 0.02}
    uses = {use: few if use.startswith("labels") else linear for use in codes.USES}
    results = {
        "representations": {"codes": uses},
        "nats_per_image": dict.fromkeys(codes.COSTS, 80.0),
        "training": {"seconds": 1800.0, "epochs": 4, "steps": 9},
        "code_size": 16,
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "config.yaml").write_text(f"trainer: {{precision: {precision}}}\n")


def test_a_line_of_the_table_is_of_the_seeds_that_have_ended(tmp_path):
    row = codes.Row("mnist", "acn", (0, 1, 2))
    assert codes.line(row, tmp_path, codes.Epochs()) is None
    ended(tmp_path, row, 0, 0.95)
    one = codes.line(row, tmp_path, codes.Epochs())
    assert one["seeds"] == [0]
    assert one["linear"] == {"mean": 0.95, "spread": 0.0}
    assert one["labels_100"] == {"mean": pytest.approx(0.85), "spread": 0.02}  # of the draws
    assert one["precision"] == "32-true"
    ended(tmp_path, row, 2, 0.97, "bf16-mixed")
    two = codes.line(row, tmp_path, codes.Epochs())
    assert two["seeds"] == [0, 2]
    assert two["precision"] == "32-true and bf16-mixed"
    assert two["linear"] == {"mean": pytest.approx(0.96), "spread": pytest.approx(0.02)}
    assert two["labels_100"]["spread"] == pytest.approx(0.02)  # of the seeds
    assert (two["minutes"], two["epochs"], two["set"]["mean"]) == (30, 4, 80)


def test_lines_replace_those_of_the_same_run_and_leave_the_others(tmp_path):
    rows = [codes.Row("mnist", "acn"), codes.Row("mnist", "acn", augment=False)]
    for row in rows:
        ended(tmp_path, row, 0, 0.9)
    path = tmp_path / "table.json"
    codes.write([codes.line(row, tmp_path, codes.Epochs()) for row in rows], path)
    again = codes.line(rows[1], tmp_path, codes.Epochs()) | {"minutes": 7.0}
    codes.write([again], path)
    table = json.loads(path.read_text())
    assert [one["minutes"] for one in table] == [30, 7]
    text = "\n".join(codes.markdown(table))
    assert len({row.count("|") for row in codes.markdown(table) if "|" in row}) == 1
    assert "| ACN | 90.0 |" in text
    assert "| ACN, no augmentation | 90.0 |" in text


def test_every_row_of_the_table_is_a_command():
    names = [row.name for row in codes.ROWS]
    assert len(names) == len(set(names)) == 17
    for row in codes.ROWS:
        experiment, *words = row.words(codes.Epochs(3, 5).of(row))
        config = compose(experiment, words)
        assert config["trainer"]["max_epochs"] == (5 if row.large else 3)
        assert (config["model"]["decoder"]["channels"] > 16) == row.large
        augmented = config["data"]["augment"] != "none"
        assert augmented == (row.augment and row.model != "pixelcnn")


def test_pixels_and_components_need_no_model(idx_folder):
    found = codes.without_a_model("mnist", idx_folder, "data.validation=0.5")
    assert [one["model"] for one in found] == ["pca", "pixels"]
    assert [one["code_size"] for one in found] == [16, 30]
    assert all(0 <= one["knn"]["mean"] <= 1 for one in found)
    assert all(one["labels_1000"] is None and one["set"] is None for one in found)


def test_photos_are_the_data_sets_images(idx_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_benchmark, "IMAGES", 50)
    folder_benchmark.write_photos(tmp_path / "photos", idx_folder)
    files = sorted((tmp_path / "photos").rglob("*.png"), key=lambda path: path.name)
    images = read_idx(idx_folder).train.images
    assert [path.parent.name for path in files[:4]] == ["T-shirt or top", *CLOTHES[1:4]]
    assert len(files) == 50
    assert np.array_equal(np.asarray(Image.open(files[7])), images[7, 0].numpy())


def test_a_newcomers_way_runs_and_becomes_rows_of_the_table(idx_folder, tmp_path, monkeypatch, acn):
    """All of it but the clone and the set-up, with smaller networks."""
    monkeypatch.setattr(folder_benchmark, "IMAGES", 60)
    monkeypatch.setattr(codes, "TABLE", tmp_path / "table.json")
    quick = [*QUICK, "evaluation.linear=all", "trainer.max_epochs=1", "data.image_size=8"]

    def run(words, check, cwd):
        if words[0] == "git":
            Path(words[-1]).mkdir()
        elif words[:2] != ("make", "setup"):
            is_train = words[0] == "make"
            asked = ["fit", *words[2].removeprefix("ARGS=").split(), *quick]
            monkeypatch.chdir(cwd)
            status, _, err = acn(*(asked if is_train else words[1:]))
            assert not status, err

    monkeypatch.setattr(folder_benchmark, "subprocess", SimpleNamespace(run=run))
    folder_benchmark.main(str(tmp_path / "way"), str(idx_folder))
    found = json.loads((tmp_path / "way/folder.json").read_text())
    assert list(found["seconds"]) == ["clone", "set-up", "train and test", "explore", "all"]
    assert (tmp_path / "way/clone/codes.html").is_file()
    table = json.loads((tmp_path / "table.json").read_text())
    assert [one["model"] for one in table] == ["acn", "pca", "pixels"]
    measured = found["on 10,000 test images"]
    for one, features in zip(table, ("codes", "pca", "pixels"), strict=True):
        assert (one["data"], one["budget"]) == ("folder", "folder")
        assert one["linear"]["mean"] == measured[features]["linear"]
    assert table[0]["ordered"]["mean"] == found["nats_per_image"]["ordered"]
    assert table[1]["ordered"] is None
    assert [one["precision"] for one in table[1:]] == [None, None]
    assert table[0]["precision"] in ("32-true", "bf16-mixed")  # auto takes the faster


@pytest.mark.parametrize(("full", "said"), [(True, "is not empty"), (False, "there is no folder")])
def test_a_newcomers_way_ends_in_one_line_where_it_cannot_begin(full, said, tmp_path):
    where = tmp_path / "way"
    if full:
        where.mkdir()
        (where / "mine").touch()
    root = Path(folder_benchmark.__file__).parents[1]
    words = [python(), "-m", "benchmarks.folder", str(where), str(tmp_path / "nothing")]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert where.exists() == full


def test_images_on_disk_are_those_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "STEPS", 2)
    found = cache.on_disk(200, str(tmp_path))
    small = cache.in_memory(found, 100)
    assert torch.equal(found.fixed_set.images[:100], small.fixed_set.images)
    figures = cache.measure(200, str(tmp_path))
    assert figures["size_gb"] == 200 * 64 * 64 / 1e9
    assert 0 < figures["waiting"] < 100
    assert 0 < figures["anonymous_gb"] <= 64


# ---------------------------------------------------------------- what follows training

TINY = ("model.encoder.channels=8", "model.decoder.channels=8", "model.code_size=8",
        "evaluation.linear=codes", "pictures.samples=0", "pictures.points=0")  # fmt: skip


def test_the_earlier_parts_of_a_test_give_the_same_figures(tmp_path):
    data, module, _ = using.folder_experiment(tmp_path, 300, TINY)
    codes, z = torch.randn(200, 8), torch.randn(2, 5, 8)
    marginal = module.prior.marginal(codes, nearest=50)
    torch.testing.assert_close(
        references.marginal_log_prob(marginal, z), marginal.log_prob(z), rtol=1e-5, atol=1e-4
    )
    sides = [
        classifiers.Labelled(part.images.flatten(1).numpy(), part.labels.numpy())
        for part in (data.fixed_set, data.test_set)
    ]
    ours, theirs = (
        way(*sides, 3) for way in (classifiers.principal_components, references.sklearn_components)
    )
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.abs(own.features), np.abs(other.features), rtol=1e-2, atol=10)
    found = references.sklearn_accuracies(*ours, 10)
    assert found["labels_1000"] is None
    assert found["linear"] == pytest.approx(
        classifiers.linear_accuracies(*ours, 10)["linear"], abs=0.1
    )


def test_a_test_is_timed_both_ways():
    figure = using.evaluating(120, TINY)
    assert figure.ours_s > 0
    assert figure.reference_s > 0
    assert figure.extra["apart"] <= 1 / 12


def test_results_that_differ_give_no_figure():
    one = {"images": 500, "nats_per_image": {"ordered": 100.0}, "accuracy": {"linear": 0.9}}
    assert using.difference(one, one) == 0
    with pytest.raises(RuntimeError, match=r"up to 5.0% apart"):
        using.difference(one, one | {"accuracy": {"linear": 0.85}})
    with pytest.raises(RuntimeError, match="the costs are"):
        using.difference(one, one | {"nats_per_image": {"ordered": 100.1}})


def test_an_export_is_timed_with_all_that_it_writes(monkeypatch):
    written = []
    for name in ("write_parquet", "write_npz", "save_index"):
        monkeypatch.setattr(using, name, lambda *_, name=name: written.append(name))
    figure = using.exporting(120, TINY)
    assert written == ["write_parquet", "write_npz", "save_index"]
    assert figure.note == "108 images"
