"""`acn sample`."""

from pathlib import Path

SECTION = "sampling"


def sample(checkpoint: str, overrides: list[str]) -> Path:
    """Draw a grid of images from a checkpoint.

    Args:
        checkpoint: a checkpoint, a run's folder for its best one, or a pack.
        overrides: changes to the checkpoint's config; keys of `sampling` work without the section:
            kind=daydream.

    Returns:
        The picture's path.

    Raises:
        UsageError: as for `test`, or an option of `draw` is out of range.
    """
    from lightning import seed_everything

    from acn_lightning.checkpoint import find_model, read_checkpoint
    from acn_lightning.experiment.finetune import in_section
    from acn_lightning.experiment.folder import output_folder, writing
    from acn_lightning.experiment.restore import from_checkpoint
    from acn_lightning.experiment.trainer import device_of
    from acn_lightning.inference.pictures import grid
    from acn_lightning.inference.sampling import draw
    from acn_lightning.utils.files import replacing

    overrides = in_section("sampling", draw, overrides)
    found = find_model(checkpoint)
    config, data, module = from_checkpoint(read_checkpoint(found), overrides, bank=True)
    folder = output_folder("sample", found, config)
    device = device_of(config)
    module.to(device).eval()
    module.bank.to(device)
    seed_everything(config["seed"], verbose=False)
    images = draw(module, data, **config["sampling"])
    kind = config["sampling"]["kind"]
    picture = folder / f"{kind}.png"
    with writing(folder, config), replacing(picture) as beside:
        grid(images, apart=None if kind == "unconditional" else 1).save(beside, "PNG")
    return picture
