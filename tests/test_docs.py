"""The pages in docs/: their code runs, what is generated is fresh, and no link is dead."""

import re
import runpy
import warnings
from pathlib import Path

import pytest

from acn_lightning.networks.decoders import Decoder
from acn_lightning.networks.encoders import Encoder
from acn_lightning.networks.priors import Prior

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page):
    """Python of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S)


def test_networks_and_data_of_ones_own_train(monkeypatch):
    for family in (Encoder, Decoder, Prior):  # other tests list what kinds there are
        monkeypatch.setattr(family, "kinds", dict(family.kinds))
    code = blocks("extending.md")
    assert len(code) == 5
    assert max(len(one.splitlines()) for one in code) < 35
    names: dict[str, object] = {"__name__": "extending"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in code:
            exec(compile(one, "extending.md", "exec"), names)
            acn, data = names["acn"], names["data"]
            image = data.test_set.images[:3] / 255
            rate, distortion, mean = acn.costs(image, acn.bank.codes[:3])
            assert rate.shape == distortion.shape == (3,)
            assert rate.isfinite().all()
            assert distortion.isfinite().all()
            assert mean.shape == (3, acn.bank.codes.shape[1])
    assert names["trainer"].global_step > 5
    assert (acn.bank.written[acn.bank.rows] >= 0).all()


def test_the_reference_of_the_configuration_is_fresh():
    made = runpy.run_path(str(DOCS / "make_reference.py"))["reference"]()
    assert made == (DOCS / "configuration.md").read_text("utf-8"), "run make docs"


def test_every_key_is_in_the_reference():
    from acn_lightning.config.compose import compose, flatten

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


def test_every_page_is_on_the_site():
    site = (DOCS.parent / "mkdocs.yml").read_text("utf-8")
    assert {path.name for path in DOCS.glob("*.md")} == set(re.findall(r"[\w-]+\.md", site))
