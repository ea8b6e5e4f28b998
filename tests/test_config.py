"""Composition, types, interpolation; every wrong key in a line that helps."""

import inspect
import os
from pathlib import Path

import pytest
import yaml
from lightning import Trainer

from acn_lightning.callbacks import DrawPictures
from acn_lightning.config import explain
from acn_lightning.config.compose import (
    complete,
    compose,
    differences,
    experiments,
    flatten,
    own_options,
    to_yaml,
)
from acn_lightning.config.keys import ANYWHERE, USUAL, usual_key
from acn_lightning.config.schema import TRAINER_OURS, trainer_options
from acn_lightning.data import ImageData
from acn_lightning.networks.base import Component
from acn_lightning.networks.decoders import ConvDecoder
from acn_lightning.networks.encoders import ConvEncoder
from acn_lightning.networks.priors import MixturePrior, Prior
from acn_lightning.retrieval.index import NeighbourIndex
from acn_lightning.runs.reading import parse_config
from acn_lightning.utils.errors import UsageError


def test_the_experiments_are_found():
    assert {"digits", "mnist", "fashion_mnist"} <= set(experiments())


@pytest.mark.parametrize("name", sorted(experiments()))
def test_every_experiment_composes_and_is_stable_through_yaml(name, tmp_path):
    config = compose(name)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert compose(str(path)) == config
    assert config["experiment"] == name


@pytest.mark.parametrize(
    ("section", "constructor"),
    [
        ("data", ImageData),
        ("neighbours", NeighbourIndex),
        ("pictures", DrawPictures),
        ("model.encoder", ConvEncoder),
        ("model.decoder", ConvDecoder),
        ("model.prior", MixturePrior),
    ],
)
def test_keys_of_a_section_are_the_constructors_options(section, constructor):
    config = compose("digits")
    for part in section.split("."):
        config = config[part]
    options = {
        name
        for name, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert set(config) - {"kind"} == options


def test_every_trainer_argument_goes_by_its_own_name():
    arguments = set(inspect.signature(Trainer).parameters)
    assert set(trainer_options()) == arguments - set(TRAINER_OURS)
    overrides = ["trainer.limit_train_batches=40", "trainer.precision=bf16-mixed"]
    trainer = compose("mnist", [*overrides, "trainer.gradient_clip_val=0.5"])["trainer"]
    assert trainer["limit_train_batches"] == 40
    assert trainer["precision"] == "bf16-mixed"
    assert trainer["gradient_clip_val"] == 0.5


def test_overrides_win_and_interpolate():
    config = compose("mnist", ["seed=7", "data.root=DIR", "data.validation=0.2"])
    assert config["seed"] == 7
    assert config["data"]["root"] == "DIR"
    assert config["data"]["validation"] == 0.2
    assert compose("mnist")["data"]["validation"] == 2000


def test_another_kind_drops_the_options_of_the_first():
    config = compose("digits", ["model.prior.width=64"])
    other = complete(config, ["model.prior.kind=standard_normal"])
    assert other["model"]["prior"] == {"kind": "standard_normal"}
    same = complete(config, ["model.prior.kind=mixture"])
    assert same["model"]["prior"]["width"] == 64


def test_a_new_component_needs_no_more_than_its_class():
    class Shy(Prior, kind="shy"):
        def __init__(self, code_size: int, *, shyness: float = 0.5) -> None:
            super().__init__()

    try:
        config = compose("digits", ["model.prior.kind=shy", "model.prior.shyness=1"])
        assert config["model"]["prior"] == {"kind": "shy", "shyness": 1.0}
    finally:
        del Prior.kinds["shy"]
    assert "shy" not in Component.__dict__.get("kinds", {})


def test_interpolations_resolve(monkeypatch):
    monkeypatch.setenv("DIGITS", "/somewhere")
    config = compose("mnist", ["data.root=${oc.env:DIGITS}", "data.batch_size=${model.code_size}"])
    assert config["data"]["root"] == "/somewhere"
    assert config["data"]["batch_size"] == 16


def test_a_saved_config_leaves_wandbs_mode_to_the_environment(monkeypatch, tmp_path):
    from acn_lightning.experiment.loggers import make_loggers

    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "saved.yaml").write_text(to_yaml(compose("digits", ["logger=wandb"])))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (_, logger) = make_loggers(compose(str(tmp_path / "saved.yaml")), tmp_path)
    assert logger._wandb_init["mode"] == "disabled"


def test_what_is_no_experiment_is_told_the_command_for_it():
    Path("my photos").mkdir()
    for folder in ("runs/digits/mine", "moved"):
        Path(folder, "checkpoints").mkdir(parents=True)
        Path(folder, "config.yaml").write_text("experiment: digits")
    Path("best.ckpt").touch()
    for name, way_out in {
        "my photos": "For a folder of images: acn fit folder 'data.root=my photos'",
        "runs/digits/mine": "To go on with it: acn fit runs/digits/mine/config.yaml run=mine "
        "resume=auto",
        "moved": "To go on with it: acn fit resume=moved",
        "best.ckpt": "To resume it: acn fit resume=best.ckpt",
    }.items():
        for words in (name, f"{name}+small"):
            with pytest.raises(UsageError) as error:
                compose(words)
            assert str(error.value).startswith(f"{name}: this is a ")
            assert str(error.value).endswith(way_out)


def test_names_of_other_programs_stand_for_keys_that_there_are():
    names = [name for several in USUAL.values() for name in several]
    assert len(set(names)) == len(names)
    known = explain.keys()
    assert USUAL.keys() <= known.keys()
    there = {key.rpartition(".")[2] for key in known if key.rpartition(".")[0] in ANYWHERE}
    assert there.isdisjoint(names)
    assert usual_key("callbacks.mine.lr") is None


def test_differences_are_dotted():
    one, other = compose("digits"), compose("digits", ["model.prior.width=64", "seed=1"])
    assert differences(one, other) == {
        "model.prior.width": (512, 64),
        "seed": (0, 1),
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batchsize=3", r"data\.batchsize: there is no such key. Did you mean 'data\.batch_s"),
        ("batch_size=3", r"Did you mean 'data\.batch_size'"),
        ("trainer.epochs=3", r"there is no such key. Did you mean 'trainer\.max_epochs'\?"),
        ("epochs=3", r"Did you mean 'trainer\.max_epochs'"),
        ("optimizer.lr=3", r"Did you mean 'optimizer\.learning_rate'"),
        ("lr=3", r"Did you mean 'optimizer\.learning_rate'"),
        ("model.z_dim=3", r"Did you mean 'model\.code_size'"),
        ("wandbb=3", r"Did you mean 'wandb\.\w+'"),
        ("wandbb.name=3", "Did you mean 'wandb'"),
        ("trainer.devces=1", r"Did you mean 'trainer\.devices'"),
        ("model.prior.widht=3", r"Did you mean 'model\.prior\.width'"),
        ("zzzz=1", "acn show"),
        ("data.batch_size=abc", r"^data\.batch_size: 'abc' is not a whole number\.$"),
        ("data.batch_size=1e3", r"^data\.batch_size: 1e3 is not a whole number\. Write 1000\.$"),
        ("data.batch_size=true", r"^data\.batch_size: true is not a whole number\.$"),
        ("data.batch_size=null", r"^data\.batch_size: it needs a value\.$"),
        ("seed=", r"^seed: it needs a value\.$"),
        ("compile=", r"^compile: it needs a value\.$"),
        ("compile=maybe", r"^compile: 'maybe' is none of true, false, auto\.$"),
        ("pictures.noise=maybe", r"^pictures\.noise: 'maybe' is none of true, false\.$"),
        ("data.validation=x", r"^data\.validation: 'x' is not a number\.$"),
        (
            "finetune.freeze=encoder",
            r": 'encoder' is not a list\. Write finetune\.freeze=\[encoder",
        ),
        ("wandb.tags=a", r"^wandb\.tags: 'a' is not a list\. Write wandb\.tags=\[a\]\.$"),
        ("wandb.tags={a: b}", r"^wandb\.tags: .* is not a list\. Write wandb\.tags=\[VALUE\]\.$"),
        (
            "budget.channels=8",
            r"^budget\.channels: 8 is not a list\. Write budget\.channels=\[8\]\.$",
        ),
        ("budget.channels=[a]", r"^budget\.channels\[0\]: 'a' is not a whole number\.$"),
        ("data.augment_transforms=5", r": 5 is not a mapping\. Set its keys, data\.augment_tr"),
        (
            "data.augment_transforms=[5]",
            r": \[5\] is not a mapping\. Set its keys, data\.augment_tr",
        ),
        ("optimizer.weight_decay=x", r"^optimizer\.weight_decay: 'x' is not a number\.$"),
        ("trainer.max_epochs=2.5", r"trainer\.max_epochs: .*2\.5"),
        ("trainer.limit_train_batches=many", r"trainer\.limit_train_batches: .*many"),
        ("seed=x", "seed: .*'x'"),
        ("data=3", "data is a section"),
        ("model.prior.kind=mixtur", "not one of .*Did you mean 'mixture'"),
        ("trainer.logger=csv", "logger=csv, logger=wandb or logger=tensorboard"),
        ("--seed=1", "without dashes"),
        ("seed", "not of the form key=value"),
        ("=1", "not of the form key=value"),
        ("data.batch_size=[", r"^data\.batch_size: '\[' is not valid YAML"),
        ("data..batch_size=1", "is not the name of a key"),
        ("[=1", "is not the name of a key"),
        ("seed=${sed}", "sed"),
        ("seed=12:30", "seed: .*12:30"),
        ("run=???", r"run: \?\?\? stands for"),
        ("run=a\0b", r"run: .*x00"),
        ("run=\ud800", r"run: .*ud800"),
        ("run=${seed", "seed"),
        (f"seed={'1' * 5000}", r"^seed: '1{60}' is not valid YAML"),
        ("data.batch_size=&a [*a]", "more than 10,000 values"),
        (f"data.batch_size={'[' * 1000}", "not valid YAML"),
        ("wandb.tags=[", "wandb.tags: .*not valid YAML"),
        ("wandb={name: 007}", r"wandb\.name: .* the number 7.* quotes"),
        ("model.prior.kind=${x}", "x"),
        ("model.encoder.kind=${seed}", "seed"),
    ],
)
def test_wrong_overrides_take_one_line(override, message):
    with pytest.raises(UsageError, match=message) as error:
        compose("digits", [override])
    assert "\n" not in str(error.value)


def test_one_wrong_override_is_named_alone():
    with pytest.raises(UsageError) as error:
        compose("digits", ["seed=3", "run=x", "data.batch_size=["])
    assert "seed" not in str(error.value)


# ---------------------------------------------------------------- text as typed

TEXTS = (
    "photos #2", "1_1", "007", "08", "12:30", "1:2.5", "1e3", "1.10", "0x10", ".5", "no", "True",
    "2024_01_05", "2024-01-05", "~", "Null", ".inf", "a: b", "[", "[a]", "{a: 1}", "@x", "%x", "`x",
    "- a", "&a b", "*a", "!!int 5", "!!python/name:os.system", "|", "> x", "=", "a=b", "<<", " x ",
    "a\\b", "x\ny", "x\ty", "\x1b[2J", "caf\udce9", "a\u00a0b", "\u202e", "\u2028", "it's", "'a",
    '"a"b"', "1" * 5000, "[" * 1000, "é", "\U0001f600",
)  # fmt: skip
"""Texts that YAML reads as something else, or not at all."""


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_text_is_taken_as_typed_and_kept_by_yaml(text, tmp_path):
    words = [f"{key}={text}" for key in ("run", "data.root", "trainer.max_time", "wandb.project")]
    if text == "{a: 1}":
        words.remove("trainer.max_time={a: 1}")  # which also takes a mapping
    config = compose("folder", words)
    flat = dict(flatten(config))
    assert {flat[word.partition("=")[0]] for word in words} == {text}
    saved = to_yaml(config)
    assert saved.replace("\n", "").isprintable()
    (tmp_path / "saved.yaml").write_text(saved, "utf-8")
    assert compose(str(tmp_path / "saved.yaml")) == config


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("run=null", None),
        ("run=", None),
        ("logger=null", "null"),
        ('run="007"', "007"),
        ("run='it''s'", "it's"),
        ("run=${seed}", "5"),
        ("run=run-${seed}", "run-5"),
        ("trainer.max_time=1:00:00:00", "1:00:00:00"),
        ("trainer.default_root_dir=1_1", "1_1"),
        ("trainer.accelerator=no", "no"),
        ("trainer.devices=2", 2),
        ("trainer.devices=[0,1]", [0, 1]),
        ("trainer.devices=1_1", "1_1"),
        ("trainer.devices=010", "010"),
        ("trainer.devices=12:30", "12:30"),
        ("trainer.devices=no", "no"),
        ("trainer.precision=16", 16),
        ("trainer.deterministic=no", False),
        ("trainer.deterministic=warn", "warn"),
        ("trainer.val_check_interval=00:12:00:00", "00:12:00:00"),
        ("trainer.val_check_interval=1e-1", 0.1),
        ("data.batch_size=1_0", 10),
        ("data.batch_size=010", 10),
        ("data.batch_size=008", 8),
        ("data.batch_size=0_10", 10),
        ("data.batch_size=0x10", 16),
        ("data.batch_size=+0b11", 3),
        ("data.image_size=[010, 008]", [10, 8]),
        ("optimizer.learning_rate=010", 10.0),
        ("optimizer.learning_rate=00.5", 0.5),
        ("wandb.tags=[1_1, no, 007]", ["1_1", "no", "007"]),
        ("data.root='a", "'a"),
        ("optimizer.eps=1e-9", 1e-9),
    ],
)
def test_values_are_read_by_the_type_of_their_key(word, value):
    found = dict(flatten(compose("folder", ["seed=5", word])))[word.partition("=")[0]]
    assert found == value
    assert type(found) is type(value)


def test_numbers_with_zeros_in_front_are_the_same_in_files(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 010\ndata: {subset: 0099}")
    config = compose("mine.yaml")
    assert (config["seed"], config["data"]["subset"]) == (10, 99)
    assert parse_config(b"{a: 010, b: -010, c: 0x10, d: 008, e: 0}") == {
        "a": 10, "b": -10, "c": 16, "d": 8, "e": 0
    }  # fmt: skip


def test_sections_and_mappings_may_be_typed_whole():
    words = ["wandb={name: '007', group: x}", "wandb.group=1_1", "trainer.max_time={hours: 1}"]
    config = compose("digits", [*words, "data.augment_transforms={rotation: 30}"])
    assert config["wandb"]["name"] == "007"
    assert config["wandb"]["group"] == "1_1"
    assert config["trainer"]["max_time"] == {"hours": 1}
    assert config["data"]["augment_transforms"] == {"rotation": 30}


def test_the_last_word_wins():
    assert compose("digits", ["run=1_1", "run=1_2"])["run"] == "1_2"
    assert compose("digits", ["wandb.name=a", "wandb={name: b}"])["wandb"]["name"] == "b"


def test_a_commands_own_options_are_text_too():
    def command(*, out: str = "x", images: str | None = None, k: int = 8, names: bool = True):
        """Does nothing."""

    words = ["out=2024_01_05", "images=1_1", "k=3", "names=no", "seed=1", "out=photos #2"]
    assert own_options(command, words) == (
        {"out": "photos #2", "images": "1_1", "k": 3, "names": False},
        ["seed=1"],
    )
    for wrong in ("k=[", "out=a\0b", f"k={'1' * 5000}"):
        with pytest.raises(UsageError, match=f"^{wrong.partition('=')[0]}: ") as error:
            own_options(command, [wrong])
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: [1, 2", "not valid YAML"),
        ("- 1\n- 2", "not a mapping of keys"),
        ("data:\n  btch_size: 3", r"Did you mean 'data\.batch_size'"),
        ("data: 3", "data is a section"),
        ("model:\n  prior: mixture", r"model\.prior"),
        ("run: 007", "run: YAML reads this as the number 7, .* quotes"),
        ("run: 2024_01_05", "run: YAML reads this as the number 20240105"),
        ("run: no", "run: YAML reads this as false"),
        ("wandb: {tags: [a, 1_1]}", r"wandb\.tags: .* number 11"),
        ("trainer: {max_time: 3600}", r"trainer\.max_time: .* number 3600"),
        (f"seed: {'1' * 5000}", "not valid YAML"),
        ("seed: 1\nseed: 2", "the key seed twice"),
        ("a: &a [*a]", "more than 10,000 values"),
        (f"a: {'[' * 1000}", "not valid YAML"),
        (f"seed: [{'1, ' * 20_000}]", "more than 10,000 values"),
        (f"# {'x' * 2_000_000}", "larger than"),
        ("run: a\0b", "not valid YAML"),
        ('run: "a\\0b"', "run: .*x00"),
        ("null: 3", "there is no such key|not valid YAML"),
        ("? [a]\n: 3", "not valid YAML|no such key"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_wrong_files_take_one_line(tmp_path, content, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        compose(str(path))
    assert "\n" not in str(error.value)


BILLION = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_a_billion_values_in_a_short_file(tmp_path):
    (tmp_path / "wrong.yaml").write_text(BILLION)
    with pytest.raises(UsageError, match="more than 10,000 values"):
        compose("wrong.yaml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_may_have_a_byte_order_mark(encoding, tmp_path):
    (tmp_path / "mine.yaml").write_text("run: café", encoding)
    assert compose("mine.yaml")["run"] == "café"


def test_files_that_cannot_be_read_take_one_line(tmp_path):
    (tmp_path / "latin.yaml").write_text("run: café", "latin-1")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, message in [("latin", "not valid YAML"), ("folder", "a folder"), ("pipe", "a pipe")]:
        with pytest.raises(UsageError, match=message) as error:
            compose(f"{name}.yaml")
        assert str(error.value).startswith(f"{name}.yaml")
        assert "\n" not in str(error.value)


def test_unknown_experiment_lists_the_known():
    with pytest.raises(UsageError, match=r"digits, .*mnist.*Did you mean 'mnist'"):
        compose("mnits")
    with pytest.raises(UsageError, match="no such file"):
        compose("nowhere.yaml")


def test_files_in_conf_say_what_they_are():
    for path in experiments().values():
        assert path.read_text().startswith("# ")
        assert yaml.safe_load(path.read_text())


# ---------------------------------------------------------------- layers


def test_layers_go_on_top_in_order(tmp_path):
    plain = compose("mnist")["model"]
    vae = compose("mnist+small+vae", ["model.code_size=3"])
    assert vae["experiment"] == "mnist+small+vae"
    assert vae["model"]["prior"] == {"kind": "standard_normal"}
    assert vae["model"]["decoder"] == {"kind": "conv", "channels": 16}
    assert vae["model"]["code_size"] == 3
    assert vae["schedule"] == compose("mnist")["schedule"] == {"kind": "cosine", "warmup_steps": 0}
    assert compose("mnist+pixelvae")["model"]["decoder"] == plain["decoder"]
    (tmp_path / "mine.yaml").write_text("seed: 7\nmodel:\n  decoder: {kernel: 3}")
    mine = compose(f"mnist+{tmp_path}/mine.yaml")
    assert mine["seed"] == 7
    assert mine["model"]["decoder"] == plain["decoder"] | {"kernel": 3}
    assert mine["experiment"] == "mnist+mine"


def test_a_file_whose_name_has_a_plus(tmp_path):
    (tmp_path / "a+b.yaml").write_text("seed: 7")
    assert compose(f"{tmp_path}/a+b.yaml")["experiment"] == "a+b"


PARTS = tuple(f"model.{part}" for part in ("encoder", "shape", "prior", "decoder"))


def test_baselines_differ_in_what_they_are_about_alone():
    acn = dict(flatten(compose("mnist+small")))
    for layer, sections in [
        ("vae", ("model.rate_weight", "model.shape.scale", "model.prior", "model.decoder")),
        ("pixelvae", ("model.rate_weight", "model.shape.scale", "model.prior")),
        ("pixelcnn", ("data.augment", *PARTS)),
    ]:
        other = dict(flatten(compose(f"mnist+small+{layer}")))
        changed = {key for key in acn.keys() | other.keys() if acn.get(key) != other.get(key)}
        assert all(key.startswith((*sections, "experiment")) for key in changed), changed


def test_wrong_layers_take_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"unknown layer.*small.*Did you mean 'pixelvae'"):
        compose("mnist+pixelvea")
    (tmp_path / "wrong.yaml").write_text("model: 3")
    with pytest.raises(UsageError, match="model") as error:
        compose(f"mnist+{tmp_path}/wrong.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("trainer: [1]", "seed: 1", "trainer is a section: set its keys, trainer.KEY=VALUE."),
        ("data: 5", "data: {source: mnist}", "data is a section"),
        ("data: [5]", "data: {source: mnist}", "data is a section"),
        ("optimizer: adam", "optimizer: {kind: sgd}", "optimizer is a section"),
        ("model: [1]", "model: {decoder: {kind: conv}}", "model is a section"),
        ("callbacks: {a: {b: [1]}}", "callbacks: {a: {b: {c: 1}}}", "a list and a mapping"),
    ],
)
def test_layers_that_do_not_fit_together_take_one_line(first, second, message, tmp_path):
    (tmp_path / "one.yaml").write_text(first)
    (tmp_path / "two.yaml").write_text(second)
    for name in ("one.yaml+two.yaml", "mnist+one.yaml+two.yaml"):
        with pytest.raises(UsageError, match=message) as error:
            compose(name)
        assert "\n" not in str(error.value)


def test_wandb_takes_from_the_environment_what_no_key_sets(monkeypatch, tmp_path):
    from acn_lightning.experiment.loggers import make_loggers

    def made(*words):
        config = compose("digits", ["logger=wandb", "wandb.mode=disabled", *words])
        return make_loggers(config, tmp_path / "mine")[1]._wandb_init

    for name in ("PROJECT", "NAME", "TAGS"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    names = ("project", "name", "tags")
    assert [made()[name] for name in names] == ["acn_lightning", "mine", None]
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    monkeypatch.setenv("WANDB_NAME", "first")
    assert [made()[name] for name in names] == ["ours", "first", None]  # W&B reads its tags itself
    words = ("wandb.project=a", "wandb.name=b", "wandb.tags=[c]")
    assert [made(*words)[name] for name in names] == ["a", "b", ["c"]]
