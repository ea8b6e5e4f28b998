"""What is installed, and what the README promises."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.lowest import EXTRAS, lowest

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_each_file_once_and_works_away_from_the_checkout(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("acn_lightning", "callbacks", "conf"):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet",
         "--wheel-dir", tmp_path],
        cwd=source, check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        archive.extractall(tmp_path / "site")
    expected = {
        str(path.relative_to(ROOT))
        for pattern in (
            "*.py",
            "*/*.py",
            "*/*/*.py",
            "conf/*.yaml",
            "conf/layers/*.yaml",
            "conf/sweeps/*",
            "inference/*.html",
            "runs/*.html",
            "runs/*.js",
            "py.typed",
        )
        for path in (ROOT / "acn_lightning").glob(pattern)
    }
    assert sorted(names) == sorted(expected)
    code = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import importlib.util, acn_lightning.config.compose as config\n"
        "file = importlib.util.find_spec('acn_lightning.callbacks').origin\n"
        "assert 'site' in file, file\n"
        "assert 'digits' in config.experiments()\n"
        "assert 'pixelvae' in config.layers()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_experiments_and_links_of_the_readme_are_there():
    from acn_lightning.config.compose import experiments

    readme, running = (ROOT / "README.md").read_text(), (ROOT / "docs/running.md").read_text()
    assert len(readme.splitlines()) <= 150
    for target in re.findall(r"\]\((?!http)([^)]+)\)", readme):
        assert (ROOT / target.partition("#")[0]).exists(), target
    for name in experiments():
        assert f"`{name}`" in running


def test_public_names_are_there():
    import acn_lightning

    for name in acn_lightning.__all__:
        assert getattr(acn_lightning, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = acn_lightning.nothing


def test_each_dependency_has_a_lowest_version_and_the_pins_are_no_lower():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *(one for extra in EXTRAS for one in extras[extra])]
    floors = lowest(text)
    assert floors.keys() == {Requirement(one).name for one in listed}
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    pins = {canonicalize_name(name): Version(version) for name, version in pairs}
    for name, floor in floors.items():
        if name.startswith("types-"):
            assert not floor
        else:
            assert pins[canonicalize_name(name)] >= Version(floor), name
    with pytest.raises(ValueError, match=r"tqdm: it has no lowest version\."):
        lowest(re.sub(r'"tqdm>=[\d.]+"', '"tqdm"', text))
