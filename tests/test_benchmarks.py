"""The references of the benchmarks do the same work as ours, and what is printed is so."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acn_lightning.config.compose import compose
from acn_lightning.data import Batch, ImageData
from acn_lightning.data.sources.idx import CLOTHES, read_idx
from acn_lightning.experiment.build import build
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.utils.errors import InterruptionError
from benchmarks import __main__ as command
from benchmarks import cache, codes, data, measure, references, sampling, scale, search, training
from benchmarks import folder as folder_benchmark
from tests.conftest import QUICK
from tests.nursery import python

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


def test_the_decoders_reference_has_its_cost(tmp_path):
    parts, module = acn_of_size(8, tmp_path)
    image, z = parts.fixed_set.images[:5] / 255, torch.randn(5, 4)
    eager = references.decoder_cost(references.contiguous(module.decoder), z, image)
    torch.testing.assert_close(eager, -module.decoder(z).log_prob(image).mean())


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


def ended(work, row, seed, linear):
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


def test_a_line_of_the_table_is_of_the_seeds_that_have_ended(tmp_path):
    row = codes.Row("mnist", "acn", (0, 1, 2))
    assert codes.line(row, tmp_path, 30) is None
    ended(tmp_path, row, 0, 0.95)
    one = codes.line(row, tmp_path, 30)
    assert one["seeds"] == [0]
    assert one["linear"] == {"mean": 0.95, "spread": 0.0}
    assert one["labels_100"] == {"mean": pytest.approx(0.85), "spread": 0.02}  # of the draws
    ended(tmp_path, row, 2, 0.97)
    two = codes.line(row, tmp_path, 30)
    assert two["seeds"] == [0, 2]
    assert two["linear"] == {"mean": pytest.approx(0.96), "spread": pytest.approx(0.02)}
    assert two["labels_100"]["spread"] == pytest.approx(0.02)  # of the seeds
    assert (two["minutes"], two["epochs"], two["set"]["mean"]) == (30, 4, 80)


def test_lines_replace_those_of_the_same_run_and_leave_the_others(tmp_path):
    rows = [codes.Row("mnist", "acn"), codes.Row("mnist", "acn", augment=False)]
    for row in rows:
        ended(tmp_path, row, 0, 0.9)
    path = tmp_path / "table.json"
    codes.write([codes.line(row, tmp_path, 30) for row in rows], path)
    again = codes.line(rows[1], tmp_path, 30) | {"minutes": 7.0}
    codes.write([again], path)
    table = json.loads(path.read_text())
    assert [one["minutes"] for one in table] == [30, 7]
    text = "\n".join(codes.markdown(table))
    assert len({row.count("|") for row in codes.markdown(table) if "|" in row}) == 1
    assert "| ACN | 90.0 |" in text
    assert "| ACN, no augmentation | 90.0 |" in text


def test_every_row_of_the_table_is_a_command(monkeypatch):
    names = [row.name for row in codes.ROWS]
    assert len(names) == len(set(names)) == 14
    for row in codes.ROWS:
        experiment, *words = row.words(30)
        config = compose(experiment, words)
        assert config["trainer"]["max_epochs"] is None
        assert config["budget"]["minutes"] == 30
        augmented = config["data"]["augment"] != "none"
        assert augmented == (row.augment and row.model != "pixelcnn")


def test_pixels_and_components_need_no_model(idx_folder):
    found = codes.without_a_model("mnist", idx_folder)
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


def test_images_on_disk_are_those_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "STEPS", 2)
    found = cache.on_disk(200, str(tmp_path))
    small = cache.in_memory(found, 100)
    assert torch.equal(found.fixed_set.images[:100], small.fixed_set.images)
    figures = cache.measure(200, str(tmp_path))
    assert figures["size_gb"] == 200 * 64 * 64 / 1e9
    assert 0 < figures["waiting"] < 100
    assert 0 < figures["anonymous_gb"] <= 64
