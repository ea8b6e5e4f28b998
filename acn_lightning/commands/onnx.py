"""`acn onnx`."""


def onnx(checkpoint: str, overrides: list[str], *, out: str = "encoder.onnx") -> str:
    """Write the encoder to an ONNX file, and check it with ONNX Runtime.

    Args:
        checkpoint: a checkpoint, a run's folder for its best one, or a pack.
        overrides: changes to the checkpoint's config.
        out: file to write.

    Returns:
        A line that says how far the file's codes are from PyTorch's.

    Raises:
        UsageError: as for `write_onnx`; or the file exists. Nothing has been written then.
    """
    from acn_lightning.experiment.restore import load_model
    from acn_lightning.inference.onnx import require_onnx, write_onnx
    from acn_lightning.utils.files import local_path, new_file
    from acn_lightning.utils.text import printable

    require_onnx()
    path = local_path(out, "out")
    with new_file(path) as beside:
        difference = write_onnx(load_model(checkpoint, overrides), beside)
    return f"{printable(path)}: codes match PyTorch's within {difference:.1g}"
