"""Collections of images, their codes, neighbours and places."""

import io
import json
import os
import re
import shutil
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from acn_lightning import ACN
from acn_lightning.commands._card import card
from acn_lightning.commands._inputs import collect, read_queries
from acn_lightning.data.binarise import binarise_alike
from acn_lightning.data.subsets import stratified
from acn_lightning.inference.embedding import embed
from acn_lightning.inference.projection import project
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK, names_of


@pytest.fixture
def photos(trained):
    return trained / "photos"


def naive_nearest(codes, k):
    """(rows, distances) of the K nearest others of each code."""
    far = torch.cdist(codes.double(), codes.double())
    far.fill_diagonal_(torch.inf)
    found = far.topk(k, largest=False)
    return found.indices, found.values.float()


# ---------------------------------------------------------------- export


def test_export_has_the_codes_of_the_training_images_and_their_nearest(acn, checkpoint, photos):
    status, out, err = acn("export", checkpoint, f"data.root={photos}", "k=3", "out=mine",
                           "projection=pca")  # fmt: skip
    assert status == 0, err
    assert out.split() == [
        f"mine/{name}"
        for name in ("about.json", "codes.npz", "codes.parquet", "config.yaml", "index.faiss")
    ]
    table = pyarrow.parquet.read_table("mine/codes.parquet").to_pylist()
    assert [row["id"] for row in table] == list(range(len(table)))
    codes = torch.tensor([row["code"] for row in table])
    loaded = ACN.load(checkpoint)
    files = [Path(row["file"]) for row in table]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    np.testing.assert_allclose(codes, loaded.encode(pixels), rtol=1e-4, atol=1e-5)
    rows, distances = naive_nearest(codes, 3)
    assert [row["neighbors"]["ids"] for row in table] == rows.tolist()
    found = [row["neighbors"]["distances"] for row in table]
    np.testing.assert_allclose(found, distances, rtol=1e-4)
    assert [row["label"] for row in table] == [file.parent.name for file in files]
    for row, image in zip(table, pixels, strict=True):
        picture = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert np.array_equal(np.asarray(picture), image)
        assert row["image"]["path"] == row["file"]
    arrays = np.load("mine/codes.npz")
    assert np.array_equal(arrays["codes"], codes)
    assert np.array_equal(arrays["neighbours"], rows)
    assert arrays["classes"].tolist() == ["digit 0", "digit 1", "digit 2"]
    assert [[row["x"], row["y"]] for row in table] == arrays["places"].tolist()
    index = faiss.read_index("mine/index.faiss")
    assert (index.search(arrays["codes"], 1)[1][:, 0] == np.arange(len(table))).all()
    page = (Path(__file__).parents[1] / "docs/model.md").read_text("utf-8")
    told = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?`) \|", page, re.M)))
    assert table[0].keys() <= set(told)
    about = json.loads(Path("mine/about.json").read_text())
    assert about["images"] == len(table) == loaded.bank.codes.shape[0]
    assert about["recall"] == 1.0


def test_export_of_a_folder_of_other_images_and_of_an_experiment(acn, checkpoint, photos):
    Path("other").mkdir()
    for number, file in enumerate(sorted(photos.rglob("*.png"))[:9]):
        Image.open(file).convert("RGB").resize((30, 20)).save(f"other/{number}.jpg")
    status, _, err = acn("export", checkpoint, "other", "out=one", "thumbnails=0")
    assert status == 0, err
    assert err == (
        "other: 9 images, 30 x 20 pixels. Converted: 9 resized to 12 x 12; 9 from colour to grey "
        "(data.channels).\n"
    )
    table = pyarrow.parquet.read_table("one/codes.parquet").to_pylist()
    assert [row["file"] for row in table] == [f"other/{number}.jpg" for number in range(9)]
    assert {row["label"] for row in table} == {None}
    assert all(row["image"] is None for row in table)
    with pytest.warns(UserWarning, match="Images of 1 x 8 x 8"):
        status, _, err = acn(
            "export", checkpoint, "digits", "data.subset=100", "part=test", "out=two",
            "projection=pca",
        )  # fmt: skip
    assert status == 0, err
    table = pyarrow.parquet.read_table("two/codes.parquet").to_pylist()
    assert len(table) == 359
    assert table[0]["image"]["path"] == "0.png"
    assert table[0]["file"] is None


def test_what_cannot_be_read_is_named_and_stops_or_is_left_out(acn, checkpoint, photos, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for number, file in enumerate(sorted(photos.rglob("*.png"))[:6]):
        (folder / f"{number}.png").write_bytes(file.read_bytes())
    (folder / "3.png").write_bytes(b"no image")
    status, _, err = acn("export", checkpoint, folder, "k=2", "out=mine")
    assert status == 2
    assert f"{folder / '3.png'} cannot be read as an image" in err
    assert err.rstrip().endswith("To leave such files out: unreadable=skip.")
    assert not Path("mine").exists()
    assert not list(Path().glob(".*partial"))
    words = [folder, "k=2", "out=mine", "unreadable=skip"]
    status, _, err = acn("export", checkpoint, *words)
    assert status == 0, err
    assert re.search(r"some: 5 images, .* Left out: 1 that cannot be read: .*3\.png \(", err)
    names = [row["file"] for row in pyarrow.parquet.read_table("mine/codes.parquet").to_pylist()]
    assert [Path(name).stem for name in names] == ["0", "1", "2", "4", "5"]


def test_images_are_prepared_as_the_training_images_were(checkpoint, tmp_path):
    acn = ACN.load(checkpoint)
    data = acn.config["data"] | {"background": "black", "max_pixels": 400}
    acn.config, acn.known = acn.config | {"data": data}, {"bits": 12}
    Image.new("LA", (12, 12), (0, 0)).save("clear.png")
    Image.fromarray(np.full((12, 12), 1023, np.uint16)).save("deep.png")
    paths = ["clear.png", "deep.png"]
    images, files, line = read_queries(acn, paths, "stop")
    assert images.amax((1, 2, 3)).tolist() == [0, 1023 * 255 // 4095]
    assert files == ("clear.png", "deep.png")
    assert line == (
        "queries: 2 images, 12 x 12 pixels. Converted: 1 transparent, laid on black "
        "(data.background); 1 of 16 bits, of which 12 are used (data.bits)."
    )
    Image.new("L", (20, 21)).save("large.png")
    with pytest.raises(UsageError, match=r"large\.png has 20 x 21 pixels; the limit is 400"):
        read_queries(acn, ["large.png"], "stop")


def test_parts_of_a_folder_and_names_that_are_not_utf_8(acn, checkpoint, photos):
    for number, file in enumerate(sorted(photos.rglob("*.png"))[:20]):
        split, name = ("Training", "Testing")[number % 2], f"{number}\udcff.png"
        folder = Path("mine", split, "caf\udce9")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)
    os.mkfifo("mine/Testing/caf\udce9/pipe.png")
    words = ["k=2", "projection=pca", "unreadable=skip"]
    status, _, err = acn("export", checkpoint, "mine", "part=test", "out=one", *words)
    assert status == 0, err
    assert "10 images in 1 class" in err
    assert "pipe.png: it is not a regular file" in err
    table = pyarrow.parquet.read_table("one/codes.parquet").to_pylist()
    assert {row["label"] for row in table} == {"caf\\udce9"}
    assert table[0]["file"] == "mine/Testing/caf\\udce9/11\\udcff.png"
    status, _, err = acn("neighbours", checkpoint, "mine", f"data.root={photos}", "out=two",
                         "unreadable=skip")  # fmt: skip
    assert status == 0, err
    assert "mine: 20 images" in err
    assert err.count("mine: ") == 1
    assert "caf\\udce9" in Path("two/neighbours.csv").read_text("utf-8")
    status, _, err = acn("explore", checkpoint, "mine", "out=e.html", *words)
    assert status == 0, err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["export"], "say which checkpoint: acn export CHECKPOINT [IMAGES] [key=value ...]."),
        (["export", "CHECKPOINT", "nowhere"], "nowhere is neither a folder nor an experiment."),
        (["export", "CHECKPOINT", "pyproject.toml"], "is a file: give a folder of images"),
        (["export", "CHECKPOINT", "k=0", "HERE"], "k: 0 is not from 1 to 134, the other images."),
        (
            ["export", "CHECKPOINT", "k=135", "HERE"],
            "135 is not from 1 to 134, the other images.",
        ),
        (["export", "CHECKPOINT", "out=there", "HERE"], "out: there already exists."),
        (["export", "CHECKPOINT", "part=all", "HERE"], "part: 'all' is not one of train, test."),
        (["export", "CHECKPOINT", "projection=umap"], "'umap' is not one of tsne, pca."),
        (["export", "CHECKPOINT", "thumbnails=-1"], "thumbnails: -1 is not from 0 to 4096."),
        (
            ["export", "CHECKPOINT", "kk=3", "HERE"],
            "kk: acn export has no such option. Did you mean 'k'?",
        ),
        (["explore", "CHECKPOINT", "points=1"], "points: 1 is not from 2 to 100000."),
        (["explore", "CHECKPOINT", "thumbnails=4"], "thumbnails: 4 is not from 8 to 256."),
        (["explore", "CHECKPOINT", "out=mine.txt"], "out: mine.txt is not an .html file."),
        (
            ["explore", "CHECKPOINT", "out=there/a.html", "HERE"],
            "there/a.html already exists.",
        ),
        (["explore", "gone.ckpt"], "There is no checkpoint gone.ckpt."),
        (
            ["neighbours", "CHECKPOINT"],
            "say which image: acn neighbours CHECKPOINT IMAGE ... [key=value ...].",
        ),
        (["neighbours", "CHECKPOINT", "gone.png", "HERE"], "there is no image gone.png."),
        (["neighbours", "CHECKPOINT", "pyproject.toml", "HERE"], "cannot be read as an image"),
        (["neighbours", "CHECKPOINT", "one.png", "k=200", "HERE"], "k: 200 is not from 1 to 121"),
        (
            ["neighbours", "CHECKPOINT", "one.png", "out=there", "HERE"],
            "out: there already exists.",
        ),
        (["neighbours", "CHECKPOINT", "one.png", "data.root=there"], "has no images"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(acn, checkpoint, photos, words, line):
    Path("there").mkdir()
    Path("there/a.html").touch()
    Path("pyproject.toml").write_text("no image")
    Image.new("L", (12, 12)).save("one.png")
    before = sorted(Path().rglob("*"))
    named = {"CHECKPOINT": checkpoint, "HERE": f"data.root={photos}"}
    status, out, err = acn(*(named.get(word, word) for word in words))
    assert status == 2
    assert not out
    assert line in err
    assert err.startswith("acn: ")
    assert len(err.strip().splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


def test_a_model_without_codes_and_another_kind_of_model_say_so(acn):
    words = ["fit", "digits+pixelcnn", *QUICK, "data.subset=100", "trainer.max_epochs=1"]
    words += ["model.decoder.layers=2", "evaluation.linear=none", "pictures.every_n_epochs=0"]
    words = [word for word in words if not word.startswith(("model.encoder", "model.prior"))]
    status, _, err = acn(*words, "run=bare", "pictures.samples=0", "pictures.points=0")
    assert status == 0, err
    for command, images in (("explore", []), ("compress", ["digits"]), ("onnx", [])):
        status, _, err = acn(command, "runs/digits+pixelcnn/bare/checkpoints/best.ckpt", *images)
        assert status == 2
        assert "this model has no codes (model.encoder.kind=none)." in err
    bare = ACN.load("runs/digits+pixelcnn/bare")
    text = card(bare, "", [], None)
    assert "It has no codes" in text
    assert not re.search(r"encode|neighbours|\{\w+\}", text)
    assert bare.sample(2).shape == (2, 8, 8)
    for ask in (bare.encode, bare.neighbours, bare.reconstruct):
        with pytest.raises(UsageError, match=r"best.ckpt: this model has no codes"):
            ask(torch.zeros(1, 8, 8))
    torch.save({"state_dict": {}}, "other.ckpt")
    status, _, err = acn("export", "other.ckpt")
    assert status == 2
    wrong = "is a checkpoint, but not one that acn fit wrote: it has no hyper_parameters."
    assert err == f"acn: other.ckpt {wrong}\n"


@pytest.mark.parametrize("command", ["explore", "export", "neighbours"])
def test_other_images_under_the_same_labels_are_not_taken_for_those_trained_on(
    acn, checkpoint, photos, command
):
    shutil.copytree(photos, "other")
    for file in Path("other").rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    images = [photos / "digit 0/00.png", "encode=false"] if command == "neighbours" else []
    status, _, err = acn(command, checkpoint, *images, "data.root=other")
    assert status == 2
    assert err.startswith("acn: data.root: the checkpoint was trained on other data: 135 images, ")
    assert [path.name for path in Path().iterdir()] == ["other"]


# ---------------------------------------------------------------- neighbours


def test_neighbours_of_files_as_a_picture_and_a_table(acn, checkpoint, photos):
    loaded = ACN.load(checkpoint)
    files = sorted(photos.rglob("*.png"))[3:140:40]
    status, out, err = acn("neighbours", checkpoint, *files, f"data.root={photos}", "k=4",
                           "out=found")  # fmt: skip
    assert status == 0, err
    assert out.split() == ["found/neighbours.csv", "found/neighbours.png"]
    lines = [line.split(",") for line in Path("found/neighbours.csv").read_text().splitlines()]
    assert lines[0] == ["image", "rank", "row", "file", "label", "distance"]
    assert len(lines) == 1 + 4 * len(files)
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    codes = torch.from_numpy(loaded.encode(pixels))
    rows = loaded.bank.rows
    # The stored ones anew, as the command does.
    stored = {line[3] for line in lines[1:]}
    assert stored <= {str(file) for file in photos.rglob("*.png")}
    for i, file in enumerate(files):
        own = [line for line in lines[1:] if line[0] == str(file)]
        assert [int(line[1]) for line in own] == [1, 2, 3, 4]
        near = np.stack([np.asarray(Image.open(line[3])) for line in own])
        far = torch.linalg.vector_norm(torch.from_numpy(loaded.encode(near)) - codes[i], dim=1)
        np.testing.assert_allclose([float(line[5]) for line in own], far, rtol=1e-3, atol=1e-5)
        assert all(int(line[2]) in rows for line in own)
        assert all(Path(line[3]).parent.name == line[4] for line in own)
        assert far.tolist() == sorted(far.tolist())
    picture = Image.open("found/neighbours.png")
    assert picture.height > picture.width / 2


def test_stored_codes_serve_where_encoding_anew_is_not_asked_for(acn, checkpoint, photos):
    file = min(photos.rglob("*.png"))
    status, _, err = acn("neighbours", checkpoint, file, f"data.root={photos}", "k=2", "out=found",
                         "encode=false")  # fmt: skip
    assert status == 0, err
    found = ACN.load(checkpoint).neighbours(np.asarray(Image.open(file))[None], k=2)
    rows = [line.split(",")[2] for line in Path("found/neighbours.csv").read_text().splitlines()]
    assert rows[1:] == [str(row) for row in found.rows[0]]


# ---------------------------------------------------------------- parts


def test_a_collection_is_seen_as_the_training_images_were(checkpoint, photos):
    acn = ACN.load(checkpoint, [f"data.root={photos}"])
    own = collect(acn, None)
    assert own.rows.tolist() == list(range(135))
    assert torch.equal(own.images, own.seen)
    acn.config = acn.config | {"data": acn.config["data"] | {"binarisation": "static"}}
    folder = collect(acn, str(photos))
    assert len(folder.images) == 150
    assert torch.equal(folder.seen, binarise_alike(folder.images, "static", acn.config["seed"]))
    some = folder.at(torch.tensor([149, 0]))
    assert some.files == (folder.files[149], folder.files[0])
    assert some.rows.tolist() == [149, 0]
    assert names_of(some) == ["digit 2", "digit 0"]


def test_a_sample_has_of_each_class_its_share():
    labels = torch.tensor([0] * 500 + [1] * 300 + [2] * 199 + [-1])[torch.randperm(1000)]
    rows = stratified(labels, 100, seed=1)
    assert rows.tolist() == sorted(set(rows.tolist()))
    counts = torch.bincount(labels[rows] + 1, minlength=4)
    assert (counts - torch.tensor([0, 50, 30, 20])).abs().max() <= 1
    assert not torch.equal(rows, stratified(labels, 100, seed=2))
    assert torch.equal(stratified(labels, 1000), torch.arange(1000))


def test_a_map_keeps_groups_apart_and_places_the_rest_among_its_landmarks():
    centres = torch.randn(3, 8) * 10
    groups = torch.arange(90) % 3
    codes = centres[groups] + torch.randn(90, 8)
    for how, landmarks in [("tsne", 1000), ("tsne", 60), ("pca", 1000)]:
        places = project(codes, how, landmarks=landmarks)
        assert places.shape == (90, 2)
        near = naive_nearest(places, 3)[0]
        assert (groups[near] == groups[:, None]).float().mean() > 0.95
        assert torch.equal(places, project(codes, how, landmarks=landmarks))


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_a_map_of_few_or_equal_codes_is_drawn_all_the_same(size):
    for codes in (torch.randn(size, 3), torch.ones(size, 3), torch.randn(size, 1)):
        places = project(codes)
        assert places.shape == (size, 2)
        assert places.isfinite().all()


def test_duplicates_are_neighbours_of_each_other(checkpoint, photos):
    acn = ACN.load(checkpoint, [f"data.root={photos}"])
    twice = collect(acn, None).at(torch.tensor([5, 9, 5, 30]))
    coded = embed(acn.module, twice, 1, "pca")
    assert coded.neighbours[0].item() == 2
    assert coded.neighbours[2].item() == 0
    assert coded.distances[[0, 2]].max() == 0


def test_a_collection_needs_more_images_than_neighbours(checkpoint, photos):
    acn = ACN.load(checkpoint, [f"data.root={photos}"])
    few = collect(acn, None).at(torch.arange(3))
    with pytest.raises(UsageError, match="k: 3 is not from 1 to 2"):
        embed(acn.module, few, 3)
