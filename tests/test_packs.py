"""Packs: a model as a folder without pickles, which anyone may have changed."""

import hashlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
import yaml
from pyarrow import parquet
from safetensors.torch import load_file, save_file

import acn_lightning
from acn_lightning.checkpoint import read_checkpoint
from acn_lightning.checkpoint.packs import PARTS, SUMS
from acn_lightning.commands._card import plain
from acn_lightning.utils.errors import UsageError
from tests.conftest import BESIDE


@pytest.fixture(scope="module")
def packed(trained, tmp_path_factory):
    """A pack of the run's best checkpoint."""
    from acn_lightning.cli import main

    folder = tmp_path_factory.mktemp("packed") / "pack"
    assert main(["pack", str(trained / "runs/folder/mine"), f"out={folder}", "license=mit"]) == 0
    return folder


@pytest.fixture
def pack(packed):
    """A copy, to change."""
    shutil.copytree(packed, "pack")
    return Path("pack")


NAN = float("nan")


def sealed(pack):
    """Makes the checksums fit again, as a stranger would."""
    lines = [f"{hashlib.sha256((pack / one).read_bytes()).hexdigest()}  {one}\n" for one in PARTS]
    (pack / SUMS).write_text("".join(lines))


def test_a_pack_is_the_checkpoint(checkpoint, packed):
    one, other = acn_lightning.load(checkpoint), acn_lightning.load(packed)
    images = np.random.default_rng(0).integers(0, 256, (9, 12, 12), dtype=np.uint8)
    assert np.array_equal(one.encode(images), other.encode(images))
    for name in ("codes", "labels", "rows", "written", "boundary"):
        kept, found = getattr(one.bank, name), getattr(other.bank, name)
        assert torch.equal(kept, found) if torch.is_tensor(kept) else kept == found, name
    weights = other.module.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in one.module.state_dict().items())
    assert (one.classes, one.files, one.known) == (other.classes, other.files, other.known)
    near = [model.neighbours(images, k=3) for model in (one, other)]
    assert np.array_equal(near[0].rows, near[1].rows)
    assert other.files[0] == "digit 0/00.png"


def test_a_pack_holds_no_pickle_and_nothing_of_this_machine(packed, trained):
    names = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
    pictures = {f"images/{name}.png" for name in ("neighbours", "reconstructions")}
    assert names == {"README.md", SUMS, *PARTS, *pictures}
    for path in packed.rglob("*.*"):
        assert str(trained).encode() not in (path.read_bytes() if path.is_file() else b""), path
    table = parquet.read_table(packed / "bank.parquet")
    assert table.column_names == ["file", "label", "trained", "written", "code"]
    card = (packed / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["license"], head["library_name"]) == ("mit", "acn-lightning")
    results = json.loads((trained / "runs/folder/mine/results.json").read_text())
    assert f"| reconstruction | {results['nats_per_image']['reconstruction']:.2f} |" in card
    assert all(f"(images/{Path(one).name})" in card for one in pictures)


def test_figures_are_of_the_checkpoint_that_is_packed(acn, trained):
    last = trained / "runs/folder/mine/checkpoints/last.ckpt"
    status, _, err = acn("pack", last, "out=last")
    assert status == 0, err
    card = Path("last/README.md").read_text()
    assert "None were measured" in card
    assert "license: unknown" in card
    assert not Path("last/images").exists()


def test_what_a_name_holds_is_no_markup():
    assert plain("<b>*x* | [y](z)\n`") == ("&lt;b&gt;\\*x\\* \\| \\[y\\]\\(z\\)\\\\n\\`")


def test_commands_take_a_pack(acn, packed, trained):
    root = f"data.root={trained / 'photos'}"
    image = trained / "photos/digit 0/00.png"
    for words in [
        ("test", packed, root, *BESIDE, "trainer.accelerator=cpu"),
        ("sample", packed, root),
        ("neighbours", packed, image, root),
        ("export", packed, trained / "photos", "k=3", "projection=pca"),
        ("pack", packed, "out=again"),
    ]:
        status, _, err = acn(*words)
        assert status == 0, err
    assert {path.name.partition("-")[0] for path in Path("runs/outputs").iterdir()} == {
        "test", "sample", "neighbours", "export",
    }  # fmt: skip
    for name in PARTS:
        assert (packed / name).read_bytes() == (Path("again") / name).read_bytes()


def test_a_run_starts_from_a_pack(acn, packed, trained):
    words = [f"data.root={trained / 'photos'}", "data.image_size=12", "trainer.max_epochs=1",
             *BESIDE, "trainer.accelerator=cpu", "pictures.every_n_epochs=0"]  # fmt: skip
    status, out, err = acn("finetune", packed, "folder", *words, "run=new")
    assert status == 0, err
    assert f"weights of {packed}\n  encoder: 20 of 20 tensors loaded" in out
    results = json.loads(Path("runs/folder/new/results.json").read_text())
    assert results["parent"] == {"checkpoint": str(packed), "run": "folder-mine"}
    status, _, err = acn("fit", f"resume={packed}")
    assert (status, err.count("\n")) == (2, 1)
    assert "is a pack, which has no state of training to resume" in err


@pytest.mark.parametrize("name", [*PARTS, SUMS])
def test_a_part_that_is_missing_or_changed_is_named(acn, pack, name):
    whole = (pack / name).read_bytes()
    middle = len(whole) // 2
    (pack / name).write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    status, _, err = acn("onnx", pack, "out=x.onnx")
    assert (status, err.count("\n")) == (2, 1)
    assert "does not match its checksum" in err or name == SUMS
    (pack / name).unlink()
    status, _, err = acn("onnx", pack, "out=x.onnx")
    assert (status, err) == (2, f"acn: pack is not a whole pack: it has no {name}.\n")
    (pack / name).mkdir()
    assert "is no file" in acn("onnx", pack, "out=x.onnx")[2]
    assert not Path("x.onnx").exists()


def changed_json(**changes):
    def change(pack):
        about = json.loads((pack / "config.json").read_text())
        (pack / "config.json").write_text(json.dumps(about | changes))

    return change


def changed_weights(do):
    def change(pack):
        weights = load_file(pack / "model.safetensors")
        do(weights)
        save_file(weights, pack / "model.safetensors")

    return change


def changed_bank(do, **options):
    """Rewrites the table, plain unless options say otherwise."""

    def change(pack):
        path = pack / "bank.parquet"
        table = do(parquet.read_table(path))
        parquet.write_table(
            table, path, **{"compression": "NONE", "use_dictionary": False} | options
        )

    return change


def with_column(name, do):
    def change(table):
        place = table.column_names.index(name)
        column = pyarrow.array(do(table[name].to_pylist()), table.schema.field(name).type)
        return table.set_column(place, table.schema.field(name), column)

    return change


def without_checks(name, kind, do):
    """A column of another type."""

    def change(table):
        place = table.column_names.index(name)
        return table.set_column(place, name, pyarrow.array(do(table[name].to_pylist()), kind))

    return change


def text(content):
    return lambda pack: (pack / "config.json").write_text(content)


STRANGE = {
    "a list": text("[]"),
    "not JSON": text("{"),
    "deep JSON": text("[" * 100_000),
    "a number of 10,000 digits": text('{"pack_version": ' + "1" * 10_000 + "}"),
    "too much text": text(json.dumps({"pack_version": 1, "x": "y" * 2**23})),
    "another version": changed_json(pack_version=2),
    "no config": changed_json(acn_config=None),
    "a config that imports": changed_json(acn_config={"model": {"encoder": {"kind": "os:x"}}}),
    "no shape": changed_json(image_shape=None),
    "a huge shape": changed_json(image_shape=[3, 10**6, 10**6]),
    "classes are numbers": changed_json(classes=[1, 2, 3]),
    "fewer classes": changed_json(classes=["a"]),
    "a boundary in words": changed_json(bank_boundary="x"),
    "an earlier boundary": changed_json(bank_boundary=-1),
    "data are a list": changed_json(data=[]),
    "bits of another kind": changed_json(data={"bits": "8"}),
    "no weights": changed_weights(dict.clear),
    "NaN among the weights": changed_weights(lambda w: w["prior.output.bias"].fill_(NAN)),
    "weights of another shape": changed_weights(
        lambda w: w.update({"prior.output.bias": torch.zeros(1)})
    ),
    "weights are text": lambda pack: (pack / "model.safetensors").write_text("x" * 100),
    "a header of terabytes": lambda pack: (pack / "model.safetensors").write_bytes(b"\xff" * 64),
    "the bank is text": lambda pack: (pack / "bank.parquet").write_text("PAR1" * 100),
    "a packed bank": changed_bank(lambda table: table, compression="zstd"),
    "a bank with dictionaries": changed_bank(lambda table: table, use_dictionary=True),
    "a column less": changed_bank(lambda table: table.drop_columns(["label"])),
    "a column more": changed_bank(lambda t: t.append_column("x", [[1] * len(t)])),
    "no rows": changed_bank(lambda table: table.slice(0, 0)),
    "NaN among the codes": changed_bank(with_column("code", lambda c: [[NAN] * 4] * len(c))),
    "labels of no class": changed_bank(with_column("label", lambda column: [99] * len(column))),
    "codes of the future": changed_bank(with_column("written", lambda c: [99] * len(c))),
    "nothing trained on": changed_bank(with_column("trained", lambda c: [False] * len(c))),
    "names with a separator": changed_bank(with_column("file", lambda c: ["a\0b", *c[1:]])),
    "labels are text": changed_bank(
        without_checks("label", pyarrow.string(), lambda column: ["0"] * len(column))
    ),
    "labels are missing": changed_bank(
        without_checks("label", pyarrow.int64(), lambda column: [None, *column[1:]])
    ),
    "lists of any length": changed_bank(
        without_checks("code", pyarrow.list_(pyarrow.float32()), lambda column: column)
    ),
}  # fmt: skip


def test_a_bank_written_by_others_is_read(pack):
    """Lest the changes below are refused for what they have in common."""
    changed_bank(with_column("label", lambda column: column))(pack)
    changed_weights(lambda weights: None)(pack)
    changed_json(x=1)(pack)
    sealed(pack)
    assert len(acn_lightning.load(pack).bank.rows) == 121


@pytest.mark.parametrize("change", STRANGE.values(), ids=STRANGE.keys())
def test_a_strangers_pack_is_checked(pack, change):
    change(pack)
    sealed(pack)
    with pytest.raises(UsageError) as error:
        acn_lightning.load(pack)
    assert "\n" not in str(error.value)


def test_bytes_changed_anywhere_load_or_are_refused(pack):
    refused = 0
    for seed in range(40):
        draw = random.Random(seed)
        path = pack / draw.choice(PARTS)
        whole = path.read_bytes()
        place = draw.choice([draw.randrange(len(whole)), draw.randrange(min(2000, len(whole)))])
        place = len(whole) - 1 - place if draw.random() < 0.4 else place
        cut = draw.choice([b"", bytes([draw.randrange(256)]), b"\0" * 8])
        path.write_bytes(whole[:place] + cut + whole[place + 1 :])
        sealed(pack)
        try:
            read_checkpoint(pack)
        except UsageError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        path.write_bytes(whole)
    assert 0 < refused < 40


def test_wrong_commands_write_nothing(acn, trained, pack):
    before = sorted(pack.rglob("*"))
    for words, said in [
        ((trained / "runs/folder/mine", "out=pack"), "out: pack already exists."),
        ((trained / "runs/folder/mine", "out=x", "license=a b\nc"), "no identifier of a licence"),
        ((trained / "runs", "out=x"), "is neither a run's folder"),
        ((trained / "photos/digit 0/00.png", "out=x"), "is not an acn checkpoint"),
        (("none", "out=x"), "There is no checkpoint none."),
    ]:  # fmt: skip
        status, _, err = acn("pack", *words)
        assert (status, err.count("\n")) == (2, 1), words
        assert said in err
    assert sorted(pack.rglob("*")) == before
    assert list(Path().iterdir()) == [Path("pack")]


def test_results_that_cannot_be_read_are_named(acn, trained):
    shutil.copytree(trained / "runs/folder/mine", "mine")
    Path("mine/results.json").write_text('{"checkpoint": "best.ckpt"}')
    status, _, err = acn("pack", "mine", "out=x")
    assert (status, err.count("\n")) == (2, 1)
    assert "mine/results.json cannot be read; remove it to pack without figures" in err
    assert not Path("x").exists()
