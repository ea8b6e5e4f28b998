"""The encoder for programs without PyTorch."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acn_lightning.checkpoint import KEY
from acn_lightning.module import ACN
from acn_lightning.networks.component import evaluating
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.optional import require

TOLERANCE = 1e-4
"""Of a code by ONNX Runtime, beside the same by PyTorch: absolute, and relative to the longest."""


class Codes(nn.Module):
    """Images to codes: the posterior's means, in their shape."""

    def __init__(self, module: ACN) -> None:
        super().__init__()
        self.encoder, self.shape = module.encoder, module.shape

    def forward(self, image: Tensor) -> Tensor:
        code: Tensor = self.shape(self.encoder(image).mean)
        return code


def require_onnx() -> list[Any]:
    """onnx, onnxruntime and onnxscript.

    Raises:
        UsageError: one is not installed.
    """
    return require("acn onnx", "onnx", "onnx", "onnxruntime", "onnxscript")


def write_onnx(module: ACN, path: Path) -> float:
    """Writes an encoder, `image` (batch, C, H, W) float32 in [0, 1] to `code` (batch, D), with any
    number of images at once. The file's metadata say what the images have to be: `image_shape`, and
    `binarisation`, how they were made black and white, if they were.

    Args:
        module: trained, on the CPU.
        path: of the file.

    Returns:
        The largest difference between the codes of random images by ONNX Runtime and by PyTorch.

    Raises:
        UsageError: a package is not installed; the encoder cannot be exported; or the codes differ.
    """
    onnx, onnxruntime, _ = require_onnx()
    shape = tuple(module.hparams["image_shape"])
    codes: Any = Codes(module).cpu()
    codes.to(memory_format=torch.contiguous_format)  # in place, as it only moves weights about
    images = torch.rand(5, *shape)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with evaluating(codes), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what its own libraries think of each other
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
        expected = codes(images).numpy()
    content = onnx.load(path)
    config = module.hparams[KEY]
    known = {
        "image_shape": json.dumps(list(shape)),
        "binarisation": config["data"]["binarisation"],
        "experiment": config["experiment"],
    }
    onnx.helper.set_model_props(content, known)
    onnx.save(content, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["code"], {"image": images.numpy()})
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE * (1 + np.abs(expected).max()):  # NaN is none either
        raise UsageError(
            f"out: ONNX Runtime's codes differ from PyTorch's by {difference:.2g}: nothing written."
        )
    return difference
