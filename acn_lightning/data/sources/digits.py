"""scikit-learn's digits."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from acn_lightning.data.sources.base import Source, Split, Splits, split_off_test
from acn_lightning.utils.errors import UsageError

FILE = Path("datasets", "data", "digits.csv.gz")
"""Of the package: a row has 64 grey values from 0 to 16, then the digit."""


class DigitsSource(Source, kind="digits"):
    """scikit-learn's handwritten digits, which need no download."""

    def read(self) -> Splits:
        return read_digits()


def read_digits() -> Splits:
    """Reads scikit-learn's 1,797 handwritten digits of 8 x 8 pixels (UCI, Alpaydin and Kaynak). A
    fixed fifth becomes the test split. What `sklearn.datasets.load_digits` gives, without the
    second that importing it takes.

    Raises:
        UsageError: the installed package has no such file.
    """
    found = find_spec("sklearn")
    path = Path((found and found.origin) or "sklearn/__init__.py").parent / FILE
    if not path.is_file():
        raise UsageError(f"data.source: scikit-learn has no digits in {path}. Install it again.")
    with gzip.open(path) as file:
        rows = np.loadtxt(file, delimiter=",")
    grey = np.round(rows[:, :64] * (255 / 16)).astype(np.uint8)  # 17 grey values
    digit = torch.from_numpy(rows[:, 64]).long()
    part = Split(torch.from_numpy(grey).view(-1, 1, 8, 8), digit)
    return split_off_test(part, tuple(map(str, range(10))), 0.2, "digits")
