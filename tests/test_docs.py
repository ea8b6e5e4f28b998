"""The pages in docs/: their code runs, what is generated is fresh, and no link is dead."""

import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from acn_lightning.config.compose import compose, flatten
from tests.conftest import QUICK

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page):
    """Python of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S)


def test_parts_of_ones_own_train_by_their_path(acn, monkeypatch):
    page = (DOCS / "extending.md").read_text("utf-8")
    code = blocks("extending.md")
    for one in code:
        body = one.partition("class ")[2]
        assert len(body.splitlines()) <= 20
    Path("mine.py").write_text("\n".join(code))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    lines = re.findall(r"^acn fit digits (.*)$", page, re.M)
    assert len(lines) == 10
    for line in lines:  # each alone composes, and its option counts
        config = dict(flatten(compose("digits", line.split())))
        assert all(str(config[word.partition("=")[0]]) for word in line.split()), line
    words = [word for line in lines for word in line.split() if "RMSprop" not in line]
    kinds = {word.rpartition(".")[0] for word in words if ".kind=" in word}
    quick = [word for word in QUICK if not any(word.startswith(f"{kind}.") for kind in kinds)]
    status, out, err = acn("fit", "digits", *quick, *words, "evaluation.linear=none",
                           "data.subset=200", "trainer.max_epochs=1")  # fmt: skip
    assert status == 0, err
    assert re.search(r"^rate -?\d+\.\d{3}$", out, re.M)
    mine = importlib.import_module("mine")
    mine.train()
    assert [name for name, _ in mine.NearPrior(4).named_parameters()] == ["log_width"]
    likelihood = mine.BetaLikelihood(1)
    images = likelihood(torch.randn(3, 2, 4, 4))
    assert images.log_prob(images.sample()).shape == (3,)


def test_the_reference_of_the_configuration_is_fresh():
    made = runpy.run_path(str(DOCS / "make_reference.py"))["reference"]()
    assert made == (DOCS / "configuration.md").read_text("utf-8"), "run make docs"


def test_the_pages_of_the_notebooks_are_fresh():
    module = runpy.run_path(str(DOCS / "make_notebook.py"))
    for notebook in DOCS.glob("*.ipynb"):
        for path, content in module["pages"](notebook).items():
            held = content.encode() if isinstance(content, str) else content
            assert path.read_bytes() == held, f"{path.name}: run make docs"


def test_every_key_is_in_the_reference():
    text = (DOCS / "configuration.md").read_text("utf-8")
    for experiment in ("digits", "mnist", "folder"):
        for key, _ in flatten(compose(experiment)):
            section, _, name = key.rpartition(".")
            known = f"`{name}`" in text or f"`{key}`" in text
            assert section.startswith("trainer") or known, key


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_and_pictures_lead_somewhere(page):
    text = (DOCS / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        file, _, anchor = target.partition("#")
        path = (DOCS / file).resolve() if file else DOCS / page
        assert path.exists(), f"{page}: {target}"
        if anchor and path.suffix == ".md":
            heads = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M)
            slugs = {
                re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads
            }
            assert anchor in slugs, f"{page}: {target}"


@pytest.mark.parametrize(
    "path", [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda path: path.name
)
def test_rows_of_tables_have_the_columns_of_their_head(path):
    """A row with more is cut off, as by a pipe in its text."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, *rows = (re.sub(r"\\\|", "", row).count("|") for row in table.splitlines())
        assert set(rows) == {head}, table


def test_every_page_is_on_the_site():
    site = (DOCS.parent / "mkdocs.yml").read_text("utf-8")
    assert {path.name for path in DOCS.glob("*.md")} == set(re.findall(r"[\w-]+\.md", site))
