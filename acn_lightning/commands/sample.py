"""`acn sample`."""

from pathlib import Path

SECTION = "sampling"


def sample(checkpoint: str, overrides: list[str]) -> Path:
    """Draw a grid of images from a checkpoint.

    Args:
        checkpoint: path of the checkpoint.
        overrides: changes to the checkpoint's config; keys of `sampling` work without the section:
            kind=daydream.

    Returns:
        The picture's path.

    Raises:
        UsageError: as for `test`, or an option of `draw` is out of range.
    """
    from lightning import seed_everything

    from acn_lightning.checkpoint import read_checkpoint
    from acn_lightning.experiment.finetune import in_section
    from acn_lightning.experiment.folder import run_folder, writing
    from acn_lightning.experiment.restore import from_checkpoint
    from acn_lightning.experiment.trainer import device_of
    from acn_lightning.inference.figures import grid
    from acn_lightning.inference.sampling import draw
    from acn_lightning.utils.files import replacing

    overrides = in_section("sampling", draw, overrides)
    config, data, module = from_checkpoint(read_checkpoint(checkpoint), overrides, bank=True)
    folder = run_folder(config)
    device = device_of(config)
    module.to(device).eval()
    module.bank.to(device)
    seed_everything(config["seed"], verbose=False)
    images = draw(module, data, **config["sampling"])
    kind = config["sampling"]["kind"]
    picture = folder / "images" / f"{kind}.png"
    with writing(folder, config), replacing(picture) as beside:
        grid(images, apart=None if kind == "unconditional" else 1).save(beside, "PNG")
    return picture
