"""scikit-learn's digits."""

import numpy as np
import torch

from acn_lightning.data.sources.base import Source, Split, Splits, split_off_test


class DigitsSource(Source, kind="digits"):
    """scikit-learn's handwritten digits, which need no download."""

    def read(self) -> Splits:
        return read_digits()


def read_digits() -> Splits:
    """Reads scikit-learn's 1,797 handwritten digits of 8 x 8 pixels (UCI, Alpaydin and Kaynak). A
    fixed fifth becomes the test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 17 grey values
    part = Split(torch.from_numpy(grey)[:, None], torch.from_numpy(digits.target).long())
    return split_off_test(part, tuple(str(name) for name in digits.target_names), 0.2, "digits")
