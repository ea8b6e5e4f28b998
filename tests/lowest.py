"""Prints the lowest versions that `pyproject.toml` allows, as constraints for pip: `make lowest`.

    python tests/lowest.py > constraints.txt

Needs nothing but Python: it runs before anything is installed.
"""

import re
import tomllib
from pathlib import Path

EXTRAS = ("cpu", "tour", "explore", "onnx", "tensorboard", "dev")
"""What the tests need."""


def lowest(pyproject: str) -> dict[str, str]:
    """The lowest version of each package that the package itself or an extra names.

    Raises:
        ValueError: one has no lowest version.
    """
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    found = {}
    for requirement in (
        *project["dependencies"],
        *(one for name in EXTRAS for one in extras[name]),
    ):
        name, _, version = requirement.partition(";")[0].partition(">=")
        if not re.fullmatch(r"[\d.]+", version.strip()) and not name.startswith("types-"):
            raise ValueError(f"{requirement}: it has no lowest version.")
        found[name.strip()] = version.strip()
    return found


if __name__ == "__main__":
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    for package, floor in lowest(text).items():
        if floor:
            print(f"{package}=={floor}")
