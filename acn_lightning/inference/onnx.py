"""Exports the encoder to ONNX, for programs without PyTorch."""

import io
import json
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acn_lightning.inference.trained_model import TrainedACN
from acn_lightning.module import ACN
from acn_lightning.networks.layers import eval_mode
from acn_lightning.utils.errors import UsageError, foreign
from acn_lightning.utils.optional import require_packages

TOLERANCE = 1e-4
"""Allowed difference of codes from PyTorch's: absolute, plus relative to the largest value."""


class Codes(nn.Module):
    """Maps images to codes: posterior means with the model's shape applied."""

    def __init__(self, module: ACN) -> None:
        super().__init__()
        self.encoder, self.shape = module.encoder, module.shape

    def forward(self, image: Tensor) -> Tensor:
        code: Tensor = self.shape(self.encoder(image).mean)
        return code


def require_onnx() -> list[Any]:
    """The modules onnx, onnxruntime and onnxscript.

    Raises:
        UsageError: one is not installed.
    """
    return require_packages("acn onnx", "onnx", "onnx", "onnxruntime", "onnxscript")


def write_onnx(acn: TrainedACN, path: Path) -> float:
    """Writes and checks an encoder from `image` (batch, C, H, W), float32 in [0, 1], to `code`
    (batch, D), for any batch size. The file's metadata say how images are prepared for it, as
    `docs/model.md` explains.

    Args:
        acn: a trained model on the CPU.
        path: path of the file.

    Returns:
        The largest difference between ONNX Runtime's and PyTorch's codes of random images.

    Raises:
        UsageError: the model has no codes, a package is not installed, the encoder cannot be
            exported, ONNX Runtime rejects it, or the codes differ.
    """
    acn.check_codes()
    codes = Codes(acn.module).cpu()
    codes.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # in place
    images = torch.rand(5, *acn.image_shape)
    expected = export(codes, images, path)
    write_metadata(path, metadata(acn))
    difference = float(np.abs(run(path, images) - expected).max())
    if not difference <= TOLERANCE * (1 + np.abs(expected).max()):  # also catches NaN
        raise UsageError(
            f"out: ONNX Runtime's codes differ from PyTorch's by {difference:.2g}: nothing written."
        )
    return difference


def metadata(acn: TrainedACN) -> dict[str, str]:
    """How images are prepared for a model's encoder. Values that are not text are JSON."""
    form = acn.form
    return {
        "experiment": acn.config["experiment"],
        "image_shape": json.dumps(acn.image_shape),
        "orientation": "upright, as EXIF says",
        "background": form.background,
        "bits": json.dumps(form.bits),
        "resize": "to cover, bicubic, then cropped evenly (Pillow's ImageOps.fit)",
        "binarisation": acn.config["data"]["binarisation"],
        "seed": json.dumps(acn.config["seed"]),
    }


def export(codes: Codes, images: Tensor, path: Path) -> np.ndarray:
    """Writes the file; returns PyTorch's codes of these images.

    Raises:
        UsageError: torch cannot export the encoder.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # onnxscript may print what it rewrites, amid the command's own output.
    with eval_mode(codes), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch's own libraries warn about each other
        try:
            torch.onnx.export(
                codes,
                (images[:2],),
                path,
                input_names=["image"],
                output_names=["code"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            first = str(error).strip().splitlines()[0]
            raise UsageError(f"model.encoder: torch cannot export it to ONNX: {first}") from error
        found: np.ndarray = codes(images).numpy()
        return found


def write_metadata(path: Path, known: dict[str, str]) -> None:
    """Adds metadata about the expected images to a file."""
    onnx, *_ = require_onnx()
    content = onnx.load(path)
    onnx.helper.set_model_props(content, known)
    onnx.save(content, path)


def run(path: Path, images: Tensor) -> np.ndarray:
    """ONNX Runtime's codes of images.

    Raises:
        UsageError: it rejects the file.
    """
    _, onnxruntime, _ = require_onnx()
    with foreign("model.encoder: ONNX Runtime rejects it", path):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found: np.ndarray = session.run(["code"], {"image": images.numpy()})[0]
    return found
