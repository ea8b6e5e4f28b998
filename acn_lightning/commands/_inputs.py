"""Reads the model and the images that a command is given."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from acn_lightning.config.compose import compose, experiments, to_yaml
from acn_lightning.data import ImageData
from acn_lightning.data.files import read_files
from acn_lightning.data.listing import Part, list_folder, list_images
from acn_lightning.data.report import describe
from acn_lightning.data.unchanged import Unchanged, check_array, read_unchanged
from acn_lightning.experiment.build import read_data
from acn_lightning.experiment.folder import output_folder
from acn_lightning.experiment.restore import load_model
from acn_lightning.experiment.trainer import device_of
from acn_lightning.inference.collection import Collection, of_data, of_files
from acn_lightning.inference.embedding import encode
from acn_lightning.inference.trained_model import TrainedACN
from acn_lightning.utils.errors import UnreadableError, UsageError, check_choice, nearest
from acn_lightning.utils.files import local_path, new_folder
from acn_lightning.utils.text import as_text

# ---------------------------------------------------------------- the model


def trained(checkpoint: str, overrides: Sequence[str], purpose: str = "data") -> TrainedACN:
    """The model, on the device that its config asks for.

    Args:
        checkpoint: a checkpoint, a run's folder or a pack.
        overrides: of its config.
        purpose: "data" to read its images too, else "model".

    Raises:
        UsageError: as for `load_model`; or the model has no codes.
    """
    acn = load_model(checkpoint, overrides, purpose)
    acn.check_codes()
    return acn.to(device_of(acn.config))


def trained_for(
    checkpoint: str, images: str | None, overrides: Sequence[str]
) -> tuple[TrainedACN, list[str]]:
    """(the model, the overrides that apply to the named experiment)."""
    theirs = [word for word in overrides if images is not None and word.startswith("data.")]
    own = [word for word in overrides if word not in theirs]
    return trained(checkpoint, own, "data" if images is None else "model"), theirs


def reencode(acn: TrainedACN, data: ImageData) -> None:
    """Encodes the training images with the current weights; updates the bank and its index."""
    codes = encode(acn.module, data.fixed_set.images, show=True)
    acn.bank.codes = codes.to(acn.bank.codes.device)
    acn.bank.written.clamp_(min=0)
    acn.bank.rebuild(acn.index)


# ---------------------------------------------------------------- the images


def collect(
    acn: TrainedACN,
    where: str | None,
    overrides: Sequence[str] = (),
    part: str = "train",
    unreadable: str = "stop",
) -> Collection:
    """The images to encode.

    Args:
        acn: sets the shape of the images, (C, H, W).
        where: the name of an experiment, or a folder with image files; None for the data that the
            checkpoint was trained on.
        overrides: changes to that experiment's config.
        part: "train" for the training images, including those held out for validation; or "test".
        unreadable: what to do at a file in the folder that is not an image: "stop" or "skip".

    Raises:
        UsageError: the images cannot be read, or are not those that the checkpoint was trained on.
    """
    check_choice("part", part, ("train", "test"))
    check_choice("unreadable", unreadable, ("stop", "skip"))
    shape, config = acn.image_shape, acn.config
    if where is None:
        data = read_data(config)
        data.load_state_dict(acn.known)
        return of_data(data, config["experiment"], part, shape, data.binarisation, data.seed)
    how, seed = config["data"]["binarisation"], config["seed"]
    if Path(where).is_dir():
        if overrides:
            raise UsageError(
                f"{overrides[0]}: {where} is a folder of images, to which keys under data do not "
                "apply. Leave it out."
            )
        name = as_text(Path(where).resolve().name)
        listing = list_folder(Path(where))
        images, own, line = read_part(acn, listing.of(part), listing.left_out, name, unreadable)
        print(line, file=sys.stderr)
        return of_files(images, own, name, how, seed)
    if Path(where).exists() and Path(where).suffix not in (".yaml", ".yml"):
        raise UsageError(
            f"{where} is a file: give a folder of images, or use acn neighbours for one image."
        )
    if where.partition("+")[0] not in experiments() and not Path(where).is_file():
        raise UsageError(
            f"{where} is neither a folder nor an experiment. Experiments are "
            f"{', '.join(experiments())}."
        )
    other = compose(where, overrides)
    return of_data(read_data(other), other["experiment"], part, shape, how, seed)


def read_queries(
    acn: TrainedACN, paths: Sequence[str], unreadable: str
) -> tuple[Tensor, tuple[str, ...], str]:
    """Reads image files, and all files in folders of them, prepared as the training images were.

    Args:
        acn: sets the form of the images.
        paths: files and folders.
        unreadable: what to do at a file that is not an image: "stop" or "skip".

    Returns:
        The images (N, C, H, W), their files, and a line about what was converted and left out.

    Raises:
        UsageError: a file does not exist, or cannot be read as an image.
    """
    files: list[Path] = []
    left_out: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            listing = list_images(path)
            files += listing.train.files
            left_out += listing.left_out
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"there is no image {path}.")
    name = as_text(Path(paths[0]).resolve().name) if len(paths) == 1 else "queries"
    part = Part(files, [None] * len(files))
    images, own, line = read_part(acn, part, left_out, name, unreadable)
    return images, tuple(map(as_text, own.files)), line


def read_part(
    acn: TrainedACN,
    part: Part,
    left_out: Sequence[str],
    name: str,
    unreadable: str,
) -> tuple[Tensor, Part, str]:
    """(images, those of the files that can be read, a line about what was converted and left out).

    Raises:
        UsageError: a file cannot be read as an image; or with "skip", none can.
    """
    form = acn.form
    way_out = " To leave such files out: unreadable=skip." if unreadable == "stop" else ""
    try:
        read = read_files(part.files, form, unreadable)
    except UnreadableError as error:
        raise UsageError(f"{error}{way_out}") from error
    own = Part([part.files[row] for row in read.rows], [part.labels[row] for row in read.rows])
    return read.images, own, describe(name, read, form, part.labels, left_out)


def originals(
    acn: TrainedACN, words: Sequence[str], overrides: Sequence[str], part: str
) -> Unchanged:
    """The images to compress, unchanged.

    Args:
        acn: sets their form.
        words: the name of an experiment, or files, folders of them, or an .npz file.
        overrides: changes to that experiment's config.
        part: "train" or "test" images of it.

    Raises:
        UsageError: the images cannot be read, or have another form.
    """
    check_choice("part", part, ("train", "test"))
    binary = acn.module.decoder.likelihood.binary
    first = words[0]
    named = first.partition("+")[0] in experiments() or Path(first).suffix in (".yaml", ".yml")
    if len(words) > 1 or Path(first).is_dir() or not named:
        if overrides:
            raise UsageError(f"{overrides[0]}: only an experiment has keys under data.")
        if len(words) == 1 and not Path(first).exists():
            raise UsageError(
                f"there is no image, folder or experiment {first}.{nearest(first, experiments())}"
            )
        return read_unchanged(words, acn.image_shape, binary)
    data = read_data(compose(first, overrides))
    images = (data.test_set if part == "test" else data.fixed_set).images
    return Unchanged(check_array(images.numpy(), acn.image_shape, binary, first))


# ---------------------------------------------------------------- the output


@contextmanager
def out_folder(out: str | None, acn: TrainedACN, command: str) -> Iterator[tuple[Path, Path]]:
    """(the output folder, a temporary folder to write to). When everything is written, the
    temporary folder, which holds `config.yaml`, is renamed to the output folder.

    Args:
        out: path of the output folder; None for a new one, see `output_folder`.
        acn: the model.
        command: the command's name.

    Raises:
        UsageError: the output folder exists already, or cannot be created.
    """
    folder = local_path(out, "out") if out else output_folder(command, acn.source, acn.config)
    with new_folder(folder) as beside:
        (beside / "config.yaml").write_text(to_yaml(acn.config), "utf-8")
        yield folder, beside
