"""What the README and the pages of docs/ tell a reader to type works.

Each page is gone through in a folder like that of a reader: images in `photos/`, and runs under the
names that the pages use. There, in order,

- Python runs;
- `acn` commands run, with a model that trains in a moment. Of training commands only those with
  `run=` train; the config of the others is composed, which checks experiments, keys and values;
- `make`, `python -m` and files of this repository have to exist.

A block that needs more than this says so in a line before it, `<!-- needs: network -->`, and is
only composed. Blocks in `py` and `sh` show other projects' code.
"""

import importlib.util
import re
import shlex
import shutil
import sys
import webbrowser
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

import acn_lightning
from acn_lightning.cli import main
from acn_lightning.commands import all_commands
from acn_lightning.config.compose import compose, experiments
from acn_lightning.experiment.finetune import finetune_config
from acn_lightning.experiment.resume import fit_config
from tests.conftest import QUICK, write_idx

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{one.name}" for one in ROOT.glob("docs/*.md")),
]
NEEDS = {"network", "GPU", "cluster", "time"}
PROGRAMS = re.compile(
    r"\.|acn|embedding-atlas|eval|for|git|hf|kubectl|make|pip|python|sbatch|tensorboard|torchrun|wandb"
    r"|cluster/.*"
)
HERE = {"digits", "folder"}
"""Experiments that can train on what is here."""


ALIKE = {"explore", "export", "neighbours", "report", "sample", "test"}
"""Commands whose output no later line needs."""
DONE: set[tuple[str, ...]] = set()


class Block(NamedTuple):
    """A fenced block of a page; what it needs, if anything."""

    needs: str | None
    language: str
    text: str

    @property
    def lines(self):
        """The commands in it, without their comments, if it holds commands."""
        first = re.sub(r"^#.*\n|^\w+=\S+ ", "", self.text, flags=re.M).split()[:1]
        if self.language or not (first and PROGRAMS.fullmatch(first[0])):
            return []
        lines = re.sub(r"^for (\w+) in (.*); do (.*); done$", each, self.text, flags=re.M)
        lines = lines.replace("\\\n", " ").splitlines()
        split = [shlex.split(one, comments=True) for one in lines if "<TAB>" not in one]
        return [[*dropwhile(re.compile(r"[A-Z]+=").match, one)] for one in split if one]


def each(loop):
    """The commands of a loop of the shell."""
    name, values, command = loop.groups()
    return "\n".join(command.replace(f"${name}", value) for value in values.split())


def read(page):
    """The text of a page."""
    return (ROOT / page).read_text("utf-8")


def blocks(page):
    """Its fenced blocks."""
    found = re.findall(
        r"^(?:<!-- needs: ([^\n]*) -->\n+)?```(\w*)\n(.*?)^```$", read(page), re.M | re.S
    )
    assert len(found) * 2 == len(re.findall(r"^ *```", read(page), re.M)), f"{page}: fences"
    return [Block(*one) for one in found]


def words_of_text(page):
    """Whole commands in the running text."""
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.M | re.S)
    spans = [" ".join(span.split()) for span in re.findall(r"`(acn [a-z][^`]*)`", text)]
    return [shlex.split(span) for span in spans if "..." not in span and "[" not in span]


def placeholder(word):
    """Whether a word stands for something of the reader's, such as CHECKPOINT or run=NAME."""
    return bool(re.search(r"\b[A-Z]{3,}\b", word))


# ---------------------------------------------------------------- a reader's folder


@pytest.fixture(scope="module")
def desk(trained, tmp_path_factory):
    """The folder, to be copied."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(trained / "photos", folder / "photos")
    shutil.copytree(trained / "photos/digit 1", folder / "otherphotos")
    for number, name in enumerate(("one.jpg", "two.jpg")):
        Image.open(folder / f"photos/digit 2/{number:02}.png").save(folder / name)
    for name in (
        "folder/RUN",
        "folder/NAME",
        "folder/first",
        "folder/mine",
        "digits/a",
        "digits/b",
    ):
        shutil.copytree(trained / "runs/folder/mine", folder / "runs" / name)
    parts = [one.text for one in blocks("docs/extending.md") if one.language == "python"]
    (folder / "mine.py").write_text("\n".join(parts), "utf-8")
    generator = np.random.default_rng(0)
    for name in ("mnist", "fashion_mnist"):
        (folder / "data" / name).mkdir(parents=True)
        for prefix, size in (("train", 80), ("t10k", 20)):
            start = f"{folder}/data/{name}/{prefix}"
            images = generator.integers(0, 256, (size, 6, 5))
            write_idx(Path(f"{start}-images-idx3-ubyte.gz"), images)
            write_idx(Path(f"{start}-labels-idx1-ubyte.gz"), np.arange(size) % 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = [*QUICK, "data.validation=10", "run=RUN", "trainer.max_epochs=1"]
        assert main(["fit", "mnist+small", *words, "model.decoder.kind=conv"]) == 0
    for name in ("RUN", "runs/mnist+small/NAME", "runs/fashion_mnist+small/RUN"):
        shutil.copytree(folder / "runs/mnist+small/RUN", folder / name)
    return folder


@pytest.fixture
def reader(desk, tmp_path, monkeypatch):
    """Works in a copy of it."""
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))

    fit = acn_lightning.fit

    def quick_fit(*given, overrides=(), **sections):
        if "run" in sections:
            shutil.rmtree(f"runs/folder/{sections['run']}", ignore_errors=True)
        return fit(*given, overrides=[*overrides, *QUICK, "trainer.max_epochs=1"], **sections)

    monkeypatch.setattr(acn_lightning, "fit", quick_fit)
    return tmp_path


# ---------------------------------------------------------------- what is typed


def check(line, needs, acn):
    """Runs a command, or checks what it names."""
    program, *words = line
    if program == "acn":
        trains = words[0] in ("fit", "finetune", "lr")
        if trains and not runs_here(words, needs):
            composes(words)
        elif not needs:
            run(words, acn)
        else:
            assert words[0] in all_commands(), line
    elif not needs:
        named = {"make": made, "python": modules, ".": bool, "eval": bool}
        assert program in named, f"{shlex.join(line)}: say what it needs: {sorted(NEEDS)}"
        assert named[program](words), line


def runs_here(words, needs):
    """Whether a training command is one whose run later commands use."""
    named = any(word.startswith("run=") for word in words)
    return words[0] == "fit" and words[1] in HERE and named and not needs


def composes(words):
    """Composes the config of a training command."""
    command, *words = words
    names = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    for word in overrides:
        if names and word.startswith("resume=") and word != "resume=auto":
            assert Path(word.removeprefix("resume=")).is_file(), word
            overrides.remove(word)  # the run here is of other images
    if command == "finetune":
        finetune_config(*names, overrides)
    else:
        fit_config(names[0] if names else None, overrides)


def run(words, acn):
    """Runs a command of ours; `> FILE` keeps what it prints."""
    words, file = (words[:-2], words[-1]) if ">" in words else (words, None)
    words = [*takewhile("|".__ne__, words)]
    if words[0] == "fit":
        composes(words)
        kinds = {word.partition("kind=")[0] for word in words if "kind=" in word}
        quick = [word for word in QUICK if not any(word.startswith(kind) for kind in kinds)]
        shutil.rmtree(f"runs/{words[1]}/{run_of(words)}", ignore_errors=True)
        words = [*words, *quick, "trainer.max_epochs=1"]
    elif words[0] == "images":
        shutil.rmtree("photos")
    elif words[0] in ALIKE:  # the same of two pages runs once
        done = (*words[:1], *(word for word in words if "=" in word and "out=" not in word))
        if done in DONE:
            return
        DONE.add(done)
        words += ["projection=pca"] if words[0] in ("explore", "export") else []
    status, out, err = acn(*words)
    assert status == 0, f"acn {shlex.join(words)}: {err}"
    if file:
        Path(file).write_text(out, "utf-8")
    if words[0] == "images":  # a part of them is enough for what follows
        for folder in Path("photos").iterdir():
            for photo in sorted(folder.iterdir())[20:]:
                photo.unlink()


def run_of(words):
    """The name of the run."""
    return next(word.removeprefix("run=") for word in words if word.startswith("run="))


def made(words):
    """Whether `make` has these targets."""
    targets = re.findall(r"^([a-z]+):.*##", read("Makefile"), re.M)
    return all(word in targets for word in words if "=" not in word)


def modules(words):
    """Whether Python has a module of ours, or its file."""
    if words[0] == "-m":
        return importlib.util.find_spec(words[1]) is not None
    return words[0] == "-c" or (ROOT / words[0]).is_file()


# ---------------------------------------------------------------- the tests


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_tells_to_type_works(page, reader, acn):
    found = blocks(page)
    python = [one for one in found if one.language == "python"]
    modules = set(re.findall(r"=(\w+):[A-Z]", read(page))) - {"torch", "torchvision"}
    for name in modules:  # a page's own parts, imported by name; mine.py is on the desk
        sys.modules.pop(name, None)
        if name != "mine":
            Path(f"{name}.py").write_text("\n".join(one.text for one in python), "utf-8")
    digits = load_digits()
    names: dict[str, object] = {"images": digits.images[:90] / 16, "labels": digits.target[:90]}
    for one in found:
        assert not one.needs or set(one.needs.split(", ")) <= NEEDS, one.needs
        if one.language == "python":
            code = compile(one.text, page, "exec")
            if not (one.needs or modules):
                exec(code, names)
        elif one.language == "yaml":
            Path("my.yaml").write_text(one.text, "utf-8")
            if set(yaml.safe_load(one.text)) & {"data", "model", "trainer"}:
                compose("my.yaml")
        for line in one.lines:
            check(line, one.needs, acn)
    for line in words_of_text(page):
        assert line[1] in all_commands(), line
        known = len(line) > 2 and line[2].partition("+")[0] in experiments()
        if line[1] == "fit" and known and not any(map(placeholder, line)):
            composes(line[1:])


@pytest.mark.parametrize(
    "line",
    [
        "acn fit digits model.code_sise=8",
        "acn fit digits+smal",
        "acn fit digits model.decoder.kind=pixelcmn",
        "acn fit digits run=x data.batch_size=many",
        "acn fits digits",
        "acn explore runs/folder/RUN/checkpoints/best.ckpt points=many",
        "acn explore runs/folder/RUNS/checkpoints/best.ckpt",
        "acn finetune RUN/checkpoints/best.ckpt mnist+small frees=[encoder]",
        "make trian",
        "python -m benchmarks.nothing",
        "curl nowhere",
    ],
)
def test_a_wrong_line_would_be_noticed(line, reader, acn):
    DONE.clear()
    with pytest.raises((Exception, SystemExit)):
        check(shlex.split(line), None, acn)


REPOSITORY = [
    path
    for folder in (".", "acn_lightning", "benchmarks", "callbacks", "cluster", "conf", "docs")
    for pattern in (("*",) if folder == "." else ("**/*",))
    for path in (ROOT / folder).glob(pattern)
    if path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".ipynb", ".sh", ".sbatch", ".cff")
]


def test_nothing_is_promised_that_is_not_there():
    """No install line for a package index that does not have the package, no address to fill in."""
    wrong = re.compile(
        r"pip install [^`\n]*?(?<![\w./-])acn[-_]lightning(?!-\d)|acn-lightning\[|\bENTITY\b"
        r"|\bREPOSITORY\b|\byour[-_](org|name|user)|\bexample\.(com|org|net)|\bregistry\.example"
    )
    assert len(REPOSITORY) > 100
    for path in REPOSITORY:
        for line in path.read_text("utf-8").splitlines():
            assert not wrong.search(line), f"{path.relative_to(ROOT)}: {line}"
