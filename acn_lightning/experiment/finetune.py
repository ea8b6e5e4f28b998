"""Training that starts from the weights of a checkpoint."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from acn_lightning import callbacks as cb
from acn_lightning.checkpoint import find_model, read_checkpoint
from acn_lightning.config.compose import Plain, compose
from acn_lightning.data import ImageData
from acn_lightning.data.pixels import AUTO
from acn_lightning.experiment import folder
from acn_lightning.experiment.carried import carried_config
from acn_lightning.experiment.resume import Resumed
from acn_lightning.module import ACN
from acn_lightning.networks.weights import describe_report, load_matching
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.names import joined, parted
from acn_lightning.utils.registry import options
from acn_lightning.utils.text import counted

NETWORKS = ("code_size", "encoder", "shape", "prior", "decoder")
"""Keys of `model` that come from the checkpoint. The likelihood depends on the new data."""


def finetune_config(path: str, experiment: str, overrides: list[str]) -> Plain:
    """The experiment's config with the checkpoint's networks, and overrides applied last.

    Raises:
        UsageError: the checkpoint cannot be read, or the config is invalid or names another
            checkpoint to resume from.
    """
    overrides = in_section("finetune", cb.Finetune, overrides)
    given = [word for word in overrides if word.startswith("finetune.checkpoint=")]
    if given:
        raise UsageError(f"{given[0]}: give the checkpoint as the first argument.")
    found = find_model(path)
    content = read_checkpoint(found)
    kept = carried_config(content, overrides, "model")
    networks = {name: kept["model"][name] for name in NETWORKS}
    begin = {"checkpoint": str(found.resolve())}
    config = compose(experiment, overrides, {"model": networks, "finetune": begin})
    if config["resume"] not in (None, folder.AUTO):
        raise UsageError(
            f"resume={config['resume']}: acn finetune starts from its first argument. To go on "
            "with a run: acn fit resume=..., or resume=auto."
        )
    if config["data"].get("image_size") == AUTO:  # networks work best with the size they know
        config["data"]["image_size"] = list(content["hyper_parameters"]["image_shape"][1:])
    return config


def in_section(section: str, constructor: Callable[..., Any], overrides: list[str]) -> list[str]:
    """Overrides with the section added to the constructor's options, which may leave it out."""
    ours = tuple(f"{name}=" for name in options(constructor))
    return [f"{section}.{word}" if word.startswith(ours) else word for word in overrides]


def load_pretrained(module: ACN, data: ImageData, source: str, resumed: Resumed | None) -> Plain:
    """Loads weights from a checkpoint and prints what was taken. A run that resumes already has
    its weights, so nothing is loaded.

    Returns:
        The checkpoint, and the run that it comes from; None if the checkpoint does not record it.

    Raises:
        UsageError: the checkpoint cannot be read, or none of its weights fits.
    """
    if resumed:
        parent = resumed.content["hyper_parameters"].get("parent")
        module.hparams["parent"] = parent  # for the checkpoints that this attempt writes
        return {"checkpoint": source, "run": parent}
    checkpoint = read_checkpoint(source)
    taken = load_matching(module, checkpoint["state_dict"])
    parameters = {name for name, _ in module.named_parameters()}
    weights = [name for name in taken.names if name in parameters]  # statistics alone do not count
    if not weights:
        raise UsageError(f"{source}: none of its weights fits these networks.")
    module.pretrained += weights
    parent = checkpoint["hyper_parameters"].get("run")
    module.hparams["parent"] = parent
    told = [f"weights of {source}", *describe_report(taken), *known_test_images(data, checkpoint)]
    rank_zero_only(print)("\n".join(told), flush=True)
    return {"checkpoint": source, "run": parent}


def known_test_images(data: ImageData, checkpoint: Plain) -> list[str]:
    """A line for test images whose files have names of images that the weights were trained on.
    Which tenth of a folder is held out depends on how many images there are."""
    assert data.content is not None
    tested = parted(joined(data.content.test.names, data.reader.root))
    trained = set(parted(checkpoint.get("ImageData", {}).get("names")))
    if not (known := sum(name in trained for name in tested)):
        return []
    return [
        f"  {known:,} of {counted(len(tested), 'test image')} have names of images that these "
        "weights were trained on. If they are the same images, test figures will be too good: put "
        "images that are new to the weights into folders train/ and test/."
    ]
