"""The benchmark of seconds until codes are good: its clock, the public ACNs it compares with, and
its files."""

import io
import itertools
import json
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.distributions import Normal, kl_divergence

from acn_lightning.config.compose import compose
from benchmarks import reimplementations, time_to_codes, time_to_codes_figure
from benchmarks.reimplementations import ConvACN, DenseACN
from tests.conftest import QUICK, write_idx


@pytest.fixture
def mnist(tmp_path):
    """MNIST's files with digits of 8 x 8 enlarged to 28 x 28: 300 to train on, 60 to test."""
    digits = load_digits()
    images = np.pad(digits.images.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
    images = (images * 255 / 16).astype(np.uint8)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for prefix, rows in [("train", slice(300)), ("t10k", slice(300, 360))]:
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images[rows], False)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", digits.target[rows], False)
    return folder


# ------------------------------------------------------------ the clock


@dataclass
class Clock:
    """Seconds that pass only when asked for."""

    now: float = 0.0
    reports: list = field(default_factory=list)

    def watch(self, monkeypatch, limit=100, every=10, measuring=0.0, codes=((0.5, 0.5),)):
        """A stopwatch on this clock, whose measurements take `measuring` seconds."""
        found = itertools.cycle(codes)

        def accuracies(*_):
            self.now += measuring
            return next(found)

        monkeypatch.setattr(time_to_codes, "accuracies", accuracies)
        watch = time_to_codes.Stopwatch(
            None, lambda: self.now, limit, every, lambda points: self.reports.append(len(points))
        )
        watch.start()
        return watch

    def train(self, watch, steps, seconds=1.0):
        """Whether training was over after each step."""
        over = []
        for _ in range(steps):
            self.now += seconds
            over.append(watch.step(64, None))
        return over


def test_the_clock_stands_still_while_codes_are_measured(monkeypatch):
    clock = Clock()
    watch = clock.watch(monkeypatch, measuring=7)
    assert not any(clock.train(watch, 35))
    assert [point["seconds"] for point in watch.points] == [10, 20, 30]
    assert [point["images"] for point in watch.points] == [640, 1280, 1920]
    assert clock.reports == [1, 2, 3]
    assert clock.now == 35 + 3 * 7


def test_a_long_measurement_delays_the_next(monkeypatch):
    clock = Clock()
    watch = clock.watch(monkeypatch, measuring=25)
    clock.train(watch, 61)
    assert [point["seconds"] for point in watch.points] == [10, 35, 60]


def test_training_ends_when_both_accuracies_are_reached(monkeypatch):
    clock = Clock()
    found = [(0.97, 0.94), (0.94, 0.97), (0.95, 0.96)]
    watch = clock.watch(monkeypatch, codes=found)
    assert clock.train(watch, 30) == [False] * 29 + [True]
    assert time_to_codes.result(watch.points, "cpu", 100)["reached_s"] == 30


def test_training_ends_with_a_measurement_when_the_time_is_up(monkeypatch):
    clock = Clock()
    watch = clock.watch(monkeypatch, limit=25)
    assert clock.train(watch, 25) == [False] * 24 + [True]
    assert [point["seconds"] for point in watch.points] == [10, 20, 25]
    assert time_to_codes.result(watch.points, "cpu", 25)["reached_s"] is None


# ------------------------------------------------------------ the public ACNs


def test_neighbours_are_among_the_nearest_stored_codes():
    torch.manual_seed(0)
    model = DenseACN(50, width=8)
    code = torch.randn(40, 20)
    distances = torch.cdist(code, model.codes)
    found = torch.cat([torch.cdist(model.near(code), model.codes).argmin(1) for _ in range(30)])
    ranks = distances.argsort(1).argsort(1).repeat(30, 1).gather(1, found[:, None])
    assert sorted(set(ranks.flatten().tolist())) == [0, 1, 2, 3, 4]


def test_the_dense_one_has_the_loss_that_it_publishes(monkeypatch):
    torch.manual_seed(0)
    model, image = DenseACN(30, width=16), torch.rand(12, 1, 28, 28)
    index, given = torch.arange(12), torch.randn(12, 20)
    monkeypatch.setattr(model, "near", lambda code: given)
    torch.manual_seed(1)
    loss = model.loss(index, image)
    mean, log_s = model.encoder(image.flatten(1)).chunk(2, 1)
    prior_mean, prior_log_s = model.prior(given).chunk(2, 1)
    torch.manual_seed(1)
    pixels = torch.sigmoid(model.decoder(mean + log_s.exp() * torch.randn(12, 20)))
    rate = kl_divergence(Normal(mean, log_s.exp()), Normal(prior_mean, prior_log_s.exp()))
    grey = image.flatten(1)
    cost = -(grey * pixels.log() + (1 - grey) * (1 - pixels).log())
    torch.testing.assert_close(loss, rate.sum() + cost.sum())


def test_the_dense_one_searches_the_codes_of_the_epoch_before():
    model, image = DenseACN(30, width=16), torch.rand(30, 1, 28, 28)
    noise = model.codes.clone()
    model.loss(torch.arange(30), image)
    assert torch.equal(model.codes, noise)
    model.end_epoch()
    torch.testing.assert_close(model.codes, model.code(image).detach())


def test_the_convolutional_one_has_the_loss_that_it_publishes(monkeypatch):
    torch.manual_seed(0)
    model, image = ConvACN(30, width=8), torch.randint(0, 256, (6, 1, 28, 28)) / 255
    index, given = torch.arange(6), torch.randn(6, 98)
    monkeypatch.setattr(model, "near", lambda code: given)
    model.eval()  # so that running statistics stay
    torch.manual_seed(1)
    loss = model.loss(index, image)
    mean = model.encoder(2 * image - 1).flatten(1)
    prior = model.prior(given).base_dist
    rate = kl_divergence(Normal(mean, torch.ones_like(mean)), prior)
    torch.manual_seed(1)
    parameters = model.decoder((mean + torch.randn(6, 98)).view(6, 2, 7, 7))
    assert parameters.shape == (6, 30, 28, 28)
    distortion = -model.likelihood(parameters).log_prob(image)
    torch.testing.assert_close(loss, rate.sum() + distortion.sum())
    torch.testing.assert_close(model.codes[index], mean.detach())


def test_the_first_activation_of_a_residual_block_is_on_the_shortcut_too():
    block = reimplementations.Residual(4)
    torch.nn.init.zeros_(block.layers[-1].weight)  # only the shortcut is left
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(block(x), x.clamp(min=0))


def test_sizes_are_those_that_are_published():
    sizes = {kind: sum(p.numel() for p in kind(2).parameters()) for kind in (ConvACN, DenseACN)}
    dense = (
        2 * (784 * 512)
        + 512
        + 784
        + 512 * 40
        + 40
        + 20 * 512
        + 512
        + 20 * 512
        + 512
        + 512 * 40
        + 40
    )
    assert sizes[DenseACN] == dense
    residual = 256 * 256 * 9 + 256 * 256 + 2 * 256 + 4 * 256
    encoder = 128 + 128 + 256 + 128 * 128 + 128 + 128 * 256 * 16 + 256 + 512 + 256 * 256 * 16 + 256
    encoder += 2 * residual + 256 * 16 + 16 + 16 * 2 + 2
    decoder = 2 * 16 + 16 + 16 * 256 + 256 + 2 * residual + 256 * 256 * 16 + 256 + 512
    decoder += 256 * 30 * 16 + 30
    prior = 98 * 512 + 512 + 7 * (512 * 512 + 512) + 2 * (512 * 98 + 98)
    assert sizes[ConvACN] == encoder + decoder + prior


# ------------------------------------------------------------ the command


def small(monkeypatch):
    """Makes all models small, and the experiment with them."""
    small_one = {"conv": lambda images: ConvACN(images, width=8), "dense": DenseACN}
    monkeypatch.setattr(time_to_codes, "OTHERS", small_one)
    quick = [*QUICK, "model.decoder.layers=1", "trainer.max_epochs=1", "trainer.precision=32-true"]
    words_of = time_to_codes.words_of
    monkeypatch.setattr(time_to_codes, "words_of", lambda root: [*words_of(root), *quick])


def test_models_are_trained_and_measured(mnist, tmp_path, monkeypatch, capsys):
    small(monkeypatch)
    out, names = tmp_path / "out.json", ["acn", "conv", "dense"]
    threads = torch.get_num_threads()
    words = [str(mnist), str(out), "--minutes", "0.005", "--every", "0.2", "--only", *names]
    assert time_to_codes.main(words) == 0
    assert torch.get_num_threads() == threads
    found = json.loads(out.read_text())
    assert list(found) == list(names)
    for one in found.values():
        points = one["points"]
        assert points[0]["images"] > 0
        assert all(0 <= point[key] <= 1 for point in points for key in ("knn", "linear"))
        assert [point["seconds"] for point in points] == sorted(
            point["seconds"] for point in points
        )
    assert found["dense"]["points"][-1]["knn"] > 0.3
    out_text, err = capsys.readouterr()
    assert out_text == ""
    assert "dense" in err


def test_the_pixelvae_has_the_same_networks():
    acn, pixelvae = (
        compose(f"mnist+small{layer}", time_to_codes.words_of("mnist"))
        for layer in time_to_codes.LAYERS.values()
    )
    assert pixelvae["model"]["prior"]["kind"] == "standard_normal" != acn["model"]["prior"]["kind"]
    for part in ("encoder", "decoder", "likelihood", "code_size"):
        assert acn["model"][part] == pixelvae["model"][part]
    assert acn["data"] == pixelvae["data"]


def test_a_folder_without_mnist_is_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        time_to_codes, "words_of", lambda root: [f"data.root={root}", "data.download=false"]
    )
    words = [str(tmp_path / "none"), str(tmp_path / "out.json"), "--only", "dense"]
    assert time_to_codes.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_results_of_other_names_stay_in_the_file(tmp_path):
    path = tmp_path / "out.json"
    time_to_codes.write("acn", {"reached_s": 1}, path)
    time_to_codes.write("dense", {"reached_s": 2}, path)
    time_to_codes.write("acn", {"reached_s": 3}, path)
    assert json.loads(path.read_text()) == {"acn": {"reached_s": 3}, "dense": {"reached_s": 2}}


CHILD = """
import sys, time
from pathlib import Path
log = Path(sys.argv[1])
for turn in range(int(sys.argv[3])):
    print("noise")
    print("--by-turns", flush=True)
    sys.stdin.readline()
    log.open("a").write(f"{sys.argv[2]} starts\\n")
    time.sleep(0.02)
    log.open("a").write(f"{sys.argv[2]} ends\\n")
sys.exit(int(sys.argv[4]))
"""


def children(tmp_path, monkeypatch):
    """Replaces the command by one that notes its turns in a file."""
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.setattr(time_to_codes, "COMMAND", [sys.executable, str(tmp_path / "child.py")])
    return str(tmp_path / "log")


def test_processes_work_by_turns(tmp_path, monkeypatch):
    log = children(tmp_path, monkeypatch)
    time_to_codes.by_turns([[log, "a", "2", "0"], [log, "b", "3", "0"]])
    turns = ["a", "b", "a", "b", "b"]
    lines = [f"{name} {word}" for name in turns for word in ("starts", "ends")]
    assert (tmp_path / "log").read_text().splitlines() == lines


def test_the_end_of_a_turn_is_told_while_a_run_prints_elsewhere(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with redirect_stdout(sys.stderr):
        time_to_codes.wait_for_turn()
    assert capfd.readouterr().out.strip() == time_to_codes.TURN
    with pytest.raises(SystemExit, match="has ended"):  # nobody gives turns any more
        time_to_codes.wait_for_turn()


def test_a_process_that_fails_ends_the_others(tmp_path, monkeypatch):
    log = children(tmp_path, monkeypatch)
    with pytest.raises(RuntimeError, match="ended with status 3"):
        time_to_codes.by_turns([[log, "a", "1", "3"], [log, "b", "100", "0"]])
    assert (tmp_path / "log").read_text().splitlines() == ["a starts", "a ends"]


def trained(seconds, *points):
    """A result as in OUT.json; points are (seconds, KNN, linear)."""
    named = [dict(zip(("seconds", "knn", "linear"), one, strict=True)) for one in points]
    return {"reached_s": seconds, "points": named}


def row(monkeypatch, results):
    """The row's figure if the processes leave these results."""

    def by_turns(jobs):
        for _, path, _, name, *_ in jobs:
            time_to_codes.write(name, results[name], time_to_codes.Path(path))

    monkeypatch.setattr(time_to_codes, "by_turns", by_turns)
    return time_to_codes.codes(minutes=30)


OTHERS = {
    "pixelvae": trained(400.0, (200, 0.94, 0.9), (400, 0.96, 0.951)),
    "conv": trained(None, (1800.0, 0.8, 0.7)),
    "dense": trained(700.0, (700, 0.96, 0.95)),
}


def test_the_row_compares_with_the_fastest_of_the_others(monkeypatch):
    figure = row(monkeypatch, {"acn": trained(300.0, (300, 0.95, 0.96)), **OTHERS})
    assert (figure.ours_s, figure.reference_s, figure.met) == (300, 400, True)
    assert figure.note == "pixelvae 400 s, conv 70.0% after 1800 s, dense 700 s"


def test_the_row_is_missed_if_codes_never_get_good(monkeypatch):
    never = {name: trained(None, (1800.0, 0.9, 0.94)) for name in time_to_codes.NAMES}
    figure = row(monkeypatch, never)
    assert (figure.ratio, figure.met) == (1, False)


# ------------------------------------------------------------ the figure


def test_a_figure_of_several_files(tmp_path):
    for name in ("dense", "acn"):
        time_to_codes.write(name, OTHERS["pixelvae"], tmp_path / f"{name}.json")
    files = [str(tmp_path / f"{name}.json") for name in ("dense", "acn")]
    assert list(time_to_codes_figure.read(files)) == ["acn", "dense"]
    time_to_codes_figure.main(str(tmp_path / "figure.png"), *files)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_every_model_has_a_label():
    assert tuple(time_to_codes_figure.LABELS) == time_to_codes.NAMES
    assert reimplementations.K == 5
