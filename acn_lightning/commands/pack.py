"""`acn pack`."""

from pathlib import Path


def pack(
    checkpoint: str,
    overrides: list[str],
    *,
    out: str = "pack",
    license: str | None = None,
    pictures: bool = True,
) -> list[Path]:
    """Write a trained model to a folder without pickles, with a model card, to publish or send.

    Args:
        checkpoint: a checkpoint, a run's folder for its best one, or a pack.
        overrides: changes to the checkpoint's config.
        out: folder to write to.
        license: licence of the model, by its identifier on model hubs, such as mit; null leaves it
            to be filled in.
        pictures: whether to copy the run's pictures, some of which show images of its data.

    Returns:
        The files written: `README.md`, `config.json`, `model.safetensors`, `bank.parquet`,
        `SHA256SUMS`, `images/*.png`.

    Raises:
        UsageError: the checkpoint cannot be read, pyarrow is not installed, or the folder `out`
            exists; nothing has been written then.
    """
    import re
    import shutil

    from acn_lightning.checkpoint import KEY, find_model, read_checkpoint, write_pack
    from acn_lightning.commands._card import card, figures_of, pictures_of
    from acn_lightning.experiment.carried import published
    from acn_lightning.experiment.folder import run_of
    from acn_lightning.experiment.restore import restore
    from acn_lightning.inference.trained_model import TrainedACN
    from acn_lightning.utils.errors import UsageError
    from acn_lightning.utils.files import local_path, new_folder
    from acn_lightning.utils.optional import require_packages

    require_packages("acn pack", "explore", "pyarrow")
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", license):
        raise UsageError(f"license: '{license}' is no identifier of a licence, such as mit.")
    folder, found = local_path(out, "out"), find_model(checkpoint)
    content, run = read_checkpoint(found), run_of(found)
    acn = TrainedACN(restore(content, overrides), content.get("ImageData"), found)
    known = content["hyper_parameters"] | {KEY: published(acn.config), "classes": acn.classes}
    whole = content | {"hyper_parameters": known, "code_bank": acn.bank.state_dict()}
    figures = figures_of(run, found)
    with new_folder(folder) as beside:
        write_pack(beside, whole)
        for picture in pictures_of(run) if figures and pictures else ():
            (beside / "images").mkdir(exist_ok=True)
            shutil.copyfile(picture, beside / "images" / picture.name)
        text = card(acn, figures, [one.name for one in beside.glob("images/*")], license)
        (beside / "README.md").write_text(text, "utf-8")
    return sorted(one for one in folder.rglob("*") if one.is_file())
