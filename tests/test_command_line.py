"""The command line explains itself: help, options, comments, completion, and what was meant."""

import inspect
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from acn_lightning.commands import all_commands
from acn_lightning.commands._completion import candidates
from acn_lightning.commands._help import bare_options, positional
from acn_lightning.config import catalogue, live
from acn_lightning.config.compose import compose, experiments, flatten, layers
from acn_lightning.config.explain import about
from acn_lightning.config.keys import KINDS, PACKAGES
from acn_lightning.config.schema import is_current, trainer_options
from acn_lightning.data.augment import RECIPES
from acn_lightning.data.binarise import BINARISATIONS
from acn_lightning.utils.docstrings import choices, takes, value_text
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.registry import options

ROOT = Path(__file__).parents[1]

AS_LISTED = all(map(is_current, PACKAGES))
"""Whether Lightning and PyTorch are those whose arguments the catalogue has."""

# ---------------------------------------------------------------- the catalogue


def test_the_catalogue_is_fresh():
    why = "an option has changed: run make docs"
    assert live.sections() == catalogue.SECTIONS, why
    own, listed = live.kinds(), dict(catalogue.KINDS)
    if not AS_LISTED:
        own, listed = ({**one, "optimizer": {}} for one in (own, listed))
    assert own == listed, why
    if AS_LISTED:
        made = runpy.run_path(str(ROOT / "docs/make_reference.py"))["catalogue"]()
        assert made == Path(catalogue.__file__).read_text("utf-8"), why


def test_other_versions_of_lightning_and_torch_are_read_themselves(monkeypatch):
    monkeypatch.setattr(catalogue, "VERSIONS", dict.fromkeys(PACKAGES, "0.1"))
    monkeypatch.setattr(catalogue, "TRAINER", {})
    monkeypatch.setitem(catalogue.KINDS["optimizer"], "sgd", None)
    assert trainer_options() == live.trainer()
    config = compose("digits", ["trainer.min_epochs=1", "optimizer.kind=sgd",
                                "optimizer.momentum=0.9"])  # fmt: skip
    assert config["trainer"]["min_epochs"] == 1
    assert config["optimizer"]["momentum"] == 0.9


@pytest.mark.parametrize("change", ["default", "annotation", "missing", "surplus"])
@pytest.mark.parametrize("part", ["section", "kind"])
def test_an_option_that_changed_in_the_code_alone_is_named(acn, monkeypatch, change, part):
    own = catalogue.SECTIONS["budget"].options if part == "section" else None
    own = own or catalogue.KINDS["model.decoder"]["conv"].options
    key = next(iter(own))
    if change == "missing":
        monkeypatch.delitem(own, key)
    elif change == "surplus":
        key = "other"
        monkeypatch.setitem(own, key, next(iter(own.values())))
    else:
        monkeypatch.setitem(own, key, own[key]._replace(**{change: 7.5}))
    with pytest.raises(UsageError, match=f"the option {key} has changed in the code. Run python"):
        live.refuse_stale()


def test_the_words_in_descriptions_are_those_that_the_code_takes():
    data = catalogue.SECTIONS["data"].options
    assert set(choices(*data["binarisation"][::2])) == set(BINARISATIONS)
    assert set(choices(*data["augment"][::2])) == {*RECIPES, "none"}
    words = data["augment_transforms"].text
    assert all(name in words for known in RECIPES.values() for name in known)
    assert set(choices(*data["source"][::2])) == set(catalogue.KINDS["data"])
    assert set(choices(*KINDS["optimizer"][::2])) == set(catalogue.KINDS["optimizer"])
    for one in [*catalogue.SECTIONS.values(), *catalogue.KINDS["model.decoder"].values()]:
        for option in one.options.values():
            words = choices(option.annotation, option.text)
            assert not words or value_text(option.default) in [*words, "null"], option


# ---------------------------------------------------------------- nothing heavy

LIGHT = """
import sys
from acn_lightning.cli import main
for words in (
    *([name, "-h"] for name in %r),
    ["--help"], ["show", "mnist+small"], ["show", "digits", "explain=true"], ["trian"],
    ["options"], ["options", "model.decoder"], ["options", "trainer"], ["options", "data.rot"],
    ["show", "digits", "data.rot=1"], ["explore", "x.ckpt", "point=3"], ["show", "folder+small"],
    ["completion", "bash"],
):
    try:
        status = main(words)
    except SystemExit as stop:
        status = stop.code
    heavy = {"torch", "lightning", "numpy", "torchmetrics", "wandb"} & set(sys.modules)
    assert not heavy, (words, heavy)
    print(words, status or 0, file=sys.stderr)
"""


@pytest.mark.skipif(not AS_LISTED, reason="other versions are read from the packages themselves")
def test_what_only_informs_imports_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT % list(all_commands())],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused = [line for line in done.stderr.splitlines() if line.startswith("acn: ")]
    assert len(refused) == 5, refused


# ---------------------------------------------------------------- help


def help_of(capsys, name, flag="--help"):
    from acn_lightning.cli import main

    with pytest.raises(SystemExit) as stop:
        main([name, flag])
    assert not stop.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(all_commands()))
def test_help_lists_a_commands_own_arguments_and_options(capsys, name):
    command = all_commands()[name]
    shown = help_of(capsys, name)
    assert shown == help_of(capsys, name, "-h")
    assert shown.startswith(f"usage: acn {name} ")
    lines = " ".join([*shown.split(), ""])
    for one in positional(command):
        assert f"\n  {one.name.upper()}\n      " in shown
    for key, option in bare_options(command).items():
        taken = takes(option.annotation, option.text)
        assert f" {key}={value_text(option.default)} ({taken}) {option.text} " in lines
        assert option.text, f"{name}: {key} is not described"


def test_help_shows_words_to_choose_and_how_to_find_keys(capsys):
    shown = help_of(capsys, "explore")
    assert "  part=train  (train, test)\n" in shown
    assert "  k=8  (int)\n      neighbours shown on a click.\n" in shown
    for name in ("fit", "finetune", "test", "sample"):
        shown = help_of(capsys, name)
        assert "acn options lists all keys" in shown
        assert "acn show NAME prints" in shown
    assert "kind=reconstructions  (reconstructions, daydream," in help_of(capsys, "sample")
    shown = help_of(capsys, "finetune")
    assert "unfreeze_epoch=null  (int or null)" in shown
    assert "checkpoint=" not in shown  # it is the first argument


# ---------------------------------------------------------------- options


def test_options_lists_sections(acn):
    status, out, _ = acn("options")
    assert status == 0
    config = compose("digits")
    sections = [name for name, value in config.items() if isinstance(value, dict)]
    for name in [*sections, *(f"model.{one}" for one in ("encoder", "prior", "likelihood"))]:
        assert f"\n  {name} " in out


def test_every_key_of_an_experiment_is_explained():
    for key in {key for name in experiments() for key, _ in flatten(compose(name))}:
        assert f"  {key}=" in about(key), key


def test_options_of_a_section_are_its_kinds_and_keys_with_defaults(acn):
    out = acn("options", "model.decoder")[1]
    for kind, one in catalogue.KINDS["model.decoder"].items():
        assert f"\nmodel.decoder.kind={kind}\n" in out
        for key, option in one.options.items():
            assert f"\n  model.decoder.{key}={value_text(option.default)}  (" in out
    assert acn("options", "model.decoder.kind")[1] == out
    assert "kind=conv\n" not in acn("options", "model.decoder.kind=pixelcnn")[1]
    one = acn("options", "model.decoder.kind=pixelcnn")[1]
    assert acn("options", "model.decoder", "kind=pixelcnn")[1] == one != out
    assert acn("options", "data", "source=npz") == acn("options", "data.source=npz")
    layers = acn("options", "model.decoder.layers", "kind=pixelcnn")
    assert layers == acn("options", "model.decoder.layers")
    assert acn("options", "seed=3") == acn("options", "seed")
    assert "conditioning=map  (map, vector, none)" in out
    assert "data.batch_size=64  (int)\n      examples" in acn("options", "data.batch_size")[1]
    assert "trainer.max_epochs=10  (int or null)" in acn("options", "trainer")[1]


def test_options_of_a_class_of_ones_own(acn, monkeypatch):
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(
        "from acn_lightning.networks.priors import Prior\n"
        "class Wide(Prior):\n"
        "    '''Wide.\n\n    Args:\n        spread: how wide.\n    '''\n"
        "    def __init__(self, code_size: int, *, spread: float = 2.5) -> None: ...\n"
    )
    status, out, _ = acn("options", "model.prior.kind=mine:Wide")
    assert status == 0
    assert "model.prior.spread=2.5  (float)\n      how wide." in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.decodr"], "Did you mean 'model.decoder'?"),
        (["epochs"], "Did you mean 'trainer.max_epochs'?"),
        (["batch_size"], "Did you mean 'data.batch_size'?"),
        (["data.btch_size"], "Did you mean 'data.batch_size'?"),
        (["zzzz"], "acn options lists all sections."),
        (["data", "more"], "'more' is not of the form key=value."),
        (["model.decoder.kind=pixlcnn"], "Did you mean 'pixelcnn'?"),
        (
            ["model.decoder.kind=nothing:Here"],
            "model.decoder.kind: nothing:Here cannot be imported",
        ),
        (["model.decoder.kind=${x}"], "model.decoder.kind: Interpolation key 'x' not found"),
        (["model.decoder", "kind=${x"], "model.decoder.kind"),
        (["model.decoder", "kind="], "model.decoder.kind"),
        (
            ["model.decoder", "kind=pixelcnn", "nonsense=1"],
            "'nonsense=1': with model.decoder, acn options takes only model.decoder.kind=KIND.",
        ),
        (["model.decoder.layers", "kind=conv"], "It is of another kind: acn options model."),
        (["data", "model.prior.kind=mixture"], "acn options takes only data.source=KIND."),
        (["trainer", "kind=x"], "'kind=x': with trainer, acn options takes no other words."),
        (["modl.decoder", "kind=pixelcnn"], "Did you mean 'model.decoder'?"),
        (["a\n\x1b[2J"], "a\\n\\x1b[2J: there is no such section or key."),
    ],
)
def test_wrong_words_for_options(acn, words, message):
    status, out, err = acn("options", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


# ---------------------------------------------------------------- comments


@pytest.mark.parametrize("name", ["digits", "folder", "mnist+small+vae"])
def test_a_config_explained_is_the_same_config(acn, name):
    words = ["data.root=caf\udce9 #1", "seed=7"] if name != "digits" else ["wandb.tags=[a b, '#c']"]
    status, out, _ = acn("show", name, "explain=true", *words)
    assert status == 0
    assert yaml.safe_load(out) == yaml.safe_load(acn("show", name, *words)[1])
    assert max(map(len, out.splitlines())) <= 100
    lines = out.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if ":" in line and not line.lstrip().startswith(("#", "-")):
            assert before.lstrip().startswith("#"), line


def test_callbacks_of_ones_own_have_no_comments_and_stay(acn):
    words = ["callbacks.stop.kind=lightning.pytorch.callbacks:EarlyStopping",
             "callbacks.stop.monitor=val/total"]  # fmt: skip
    out = acn("show", "digits", "explain=true", *words)[1]
    assert yaml.safe_load(out)["callbacks"] == compose("digits", words)["callbacks"]


# ---------------------------------------------------------------- what was meant


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "trian: there is no such command. Commands are "),
        (["trian"], "Did you mean 'fit'?"),
        (["exlpore"], "Did you mean 'explore'?"),
        (["evaluate"], "Did you mean 'test'?"),
        (["xyzzy"], "show, test.\n"),
        ([""], "acn: '': there is no such command."),
        (["explore", "x.ckpt", "point=100"], "acn explore has no such option. Did you mean 'poin"),
        (["sample", "x.ckpt", "colums=3"], "acn sample has no such option. Did you mean 'columns'"),
        (["finetune", "x.ckpt", "digits", "freze=[]"], "Did you mean 'freeze'?"),
        (["show", "explian=true"], "acn show has no such option. Did you mean 'explain'?"),
        (["explore", "x.ckpt", "seed=1"], "x.ckpt"),
        (["explore", "x.ckpt", "zzzz=1"], "x.ckpt"),
        (["explore", "x.ckpt", "--k", "8"], "'--k': write k=VALUE, without dashes."),
        (["explore", "x.ckpt", "--n=8"], "'--n=8': write n=8, without dashes."),
        (["fit", "digits", "-e", "3"], "'-e': write e=VALUE, without dashes."),
        (["fit", "mnist", "--devices", "2"], "'--devices': write trainer.devices=VALUE, without"),
        (["fit", "mnist", "--batch-size=8"], "'--batch-size=8': write data.batch_size=8, without"),
        (["fit", "mnist", "--epochs=3"], "'--epochs=3': write trainer.max_epochs=3, without"),
        (["fit", "mnist", "--seed=3"], "'--seed=3': write seed=3, without dashes."),
        (["images"], "acn: say which experiment, such as digits: acn images NAME"),
        (["completion", "bsh"], "Did you mean 'bash'?"),
        (["completion", "bash", "seed=1"], "acn completion has no options."),
    ],
)
def test_what_was_meant(acn, words, message):
    status, out, err = acn(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize("name", all_commands())
def test_an_empty_word_is_refused(acn, name):
    status, out, err = acn(name, "", "")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f": this word is empty. See acn {name} --help." in err


def test_no_command_is_one_line(acn, capsys):
    with pytest.raises(SystemExit) as stop:
        acn()
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "acn: the following arguments are required: COMMAND. See acn --help.\n"
    )


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize("layer", sorted(layers()))
@pytest.mark.parametrize("name", sorted(experiments()))
def test_a_layer_fits_an_experiment_or_says_for_which_it_is(acn, name, layer):
    meant = yaml.safe_load(layers()[layer].read_text()).get("for", list(experiments()))
    assert set(meant) <= set(experiments())
    assert acn("show", f"{name}+{layer}")[0] == (0 if name in meant else 2)


@pytest.mark.parametrize("name", ["digits", "folder"])
def test_small_is_refused_before_anything_is_read(acn, name):
    status, _, err = acn("fit", f"{name}+small+vae", "data.root=nowhere", "data.rot=1")
    assert (status, err.count("\n")) == (2, 1)
    assert f"{name}+small: the layer small is for mnist, " in err
    assert f"and not for {name}. Leave it out." in err


def test_layers_and_experiments_of_ones_own(acn):
    Path("mine.yaml").write_text("data: {source: mnist}\nmodel: {decoder: {kind: pixelcnn}}\n")
    assert compose("mine.yaml+small")["model"]["decoder"]["layers"] == 4
    Path("layer.yaml").write_text("for: [folder]\nseed: 3\n")
    assert compose("folder+layer.yaml")["seed"] == 3
    assert "for" not in compose("mine.yaml+layer.yaml")
    with pytest.raises(UsageError, match="is for folder, and not for digits"):
        compose("digits+layer.yaml")
    for wrong in ("for: folder", "for: [1]", "for: {a: 1}"):
        Path("layer.yaml").write_text(f"{wrong}\nseed: 3\n")
        with pytest.raises(UsageError, match="list the experiments that it is for") as error:
            compose("folder+layer.yaml")
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="for: there is no such key"):
        compose("layer.yaml")


# ---------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("command", "before", "prefix", "expected"),
    [
        ("fit", [], "mn", ["mnist"]),
        ("fit", [], "mnist+s", ["mnist+small"]),
        ("fit", [], "mnist+small+pixel", ["mnist+small+pixelcnn", "mnist+small+pixelvae"]),
        ("fit", ["mnist"], "data.bat", ["data.batch_size="]),
        ("fit", ["mnist"], "sch", ["schedule.kind=", "schedule.warmup_steps="]),
        ("fit", ["mnist"], "model.s", ["model.shape.kind=", "model.shape.radius=",
                                       "model.shape.scale=", "model.shape.decorrelation="]),
        ("fit", ["mnist"], "model.decoder.kind=p", ["model.decoder.kind=pixelcnn"]),
        ("fit", ["mnist"], "data.download=", ["data.download=true", "data.download=false"]),
        ("fit", ["mnist"], "data.unreadable=s", ["data.unreadable=stop", "data.unreadable=skip"]),
        ("fit", ["mnist"], "nothing=", []),
        ("explore", ["x"], "po", ["points="]),
        ("explore", ["x"], "part=t", ["part=train", "part=test"]),
        ("sample", ["x"], "kind=d", ["kind=daydream"]),
        ("sample", ["x"], "col", ["columns="]),
        ("finetune", ["x", "digits"], "check", ["checkpoints.keep=", "checkpoints.every_n_steps="]),
        ("finetune", ["x", "digits"], "finetune.", ["finetune.freeze=", "finetune.unfreeze_epoch=",
                                                    "finetune.rate="]),
        ("options", [], "mod", ["model", "model.encoder", "model.shape", "model.prior",
                                "model.decoder", "model.likelihood"]),
        ("options", [], "data.bat", ["data.batch_size"]),
        ("options", ["data"], "", []),
        ("completion", [], "z", ["zsh"]),
        ("show", ["digits"], "ex", ["explain=", "experiment="]),
    ],
)  # fmt: skip
def test_what_may_come_next(command, before, prefix, expected):
    assert candidates(all_commands()[command], before, prefix) == expected


def test_every_command_completes():
    for name, command in all_commands().items():
        own = candidates(command, ["x"] * len(positional(command)), "")
        assert {f"{key}=" for key in options(command)} <= set(own), name
        for place in range(len(positional(command))):
            candidates(command, ["x"] * place, "")


SHELL = """
acn() { "$PYTHON" -m acn_lightning "$@"; }
eval "$(acn completion bash)"
complete -p acn
ask() {
    COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
    _python_argcomplete acn
    echo "$1: ${COMPREPLY[*]}"
}
for line in "acn fi" "acn fit mnist+s" "acn fit mnist data.binarisation=st" \\
    "acn test runs/digits/one/checkpoints/" "acn fit folder data.root=pho"; do ask "$line"; done
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completes(tmp_path):
    pytest.importorskip("argcomplete")
    run = tmp_path / "runs/digits/one/checkpoints"
    for folder in (run, tmp_path / "photos"):
        folder.mkdir(parents=True)
    for name in ("best.ckpt", "other.txt"):
        (run / name).touch()
    done = subprocess.run(
        ["bash", "-c", SHELL],
        env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    first, *answers = done.stdout.split("\n")
    assert "_python_argcomplete acn" in first, done.stderr
    assert [answer.rstrip() for answer in answers if answer] == [
        "acn fi: finetune fit",
        "acn fit mnist+s: mnist+small",
        "acn fit mnist data.binarisation=st: static",
        "acn test runs/digits/one/checkpoints/: runs/digits/one/checkpoints/best.ckpt",
        "acn fit folder data.root=pho: photos/",
    ]


def test_completion_asks_for_its_package(acn, monkeypatch):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    status, _, err = acn("completion", "bash")
    assert status == 2
    assert "needs argcomplete" in err
    assert err.count("\n") == 1


def test_signatures_tell_what_a_command_takes():
    """What help and completion rely on."""
    for name, command in all_commands().items():
        parameters = inspect.signature(command).parameters
        assert "overrides" in parameters, name
        assert all(one.annotation in (str, str | None, list[str]) for one in positional(command))
