"""`acn images`."""

import re
from collections.abc import Sequence


def images(name: str, overrides: list[str], *, part: str = "train", out: str = "images") -> str:
    """Write the images of an experiment to a folder of PNG files, a sub-folder for each class.

    Args:
        name: an experiment or a YAML file, plus any layers: digits.
        overrides: changes to its config.
        part: "train" for the training images, including those held out for validation; or "test".
        out: folder to write to. `acn fit folder data.root=FOLDER` trains on it.

    Returns:
        How many images were written, and where.

    Raises:
        UsageError: the images cannot be read, or the folder `out` exists; nothing has been written
            then.
    """
    from acn_lightning.config.compose import compose
    from acn_lightning.experiment.build import read_data
    from acn_lightning.inference.collection import of_data
    from acn_lightning.inference.pictures import write_png
    from acn_lightning.utils.errors import check_choice
    from acn_lightning.utils.files import local_path, new_folder
    from acn_lightning.utils.progress import progress_bar
    from acn_lightning.utils.text import counted, printable

    check_choice("part", part, ("train", "test"))
    folder, config = local_path(out, "out"), compose(name, overrides)
    with new_folder(folder) as beside:
        data = read_data(config)
        found = of_data(data, name, part, data.image_shape, data.binarisation, data.seed)
        labels = found.labels.tolist()
        without = labels.count(-1)
        some = without < len(labels)
        folders = folder_names([*found.classes, "no label"]) if some else ["."]
        digits = len(str(len(labels) - 1))
        with progress_bar("writing", "image", total=len(labels)) as shown:
            for row, (image, label) in enumerate(zip(found.images, labels, strict=True)):
                write_png(image, beside / folders[label] / f"{row:0{digits}}.png")
                shown.update()
    classes = len({label for label in labels if label >= 0})
    within = f", {counted(classes, 'class', 'classes')}" if classes else ""
    if some and without:
        within += f", {without:,} without a label in '{folders[-1]}'"
    return f"{counted(len(labels), 'image')}{within}: {printable(folder)}"


def folder_names(classes: Sequence[str]) -> list[str]:
    """Names of folders for classes, whatever these are called; numbered where two would be alike.

    Example:
        >>> folder_names(["cat", "../dog", ".hidden"])
        ['cat', '_dog', 'hidden']
        >>> folder_names(["a/b", "a:b"])
        ['0 a_b', '1 a_b']
    """
    names = [re.sub(r"[^\w .-]", "_", one).strip(". ") or "_" for one in classes]
    if len({one.casefold() for one in names}) == len(names):
        return names
    return [f"{number} {one}" for number, one in enumerate(names)]
