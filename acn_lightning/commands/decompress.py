"""`acn decompress`."""


def decompress(
    file: str,
    checkpoint: str,
    overrides: list[str],
    *,
    out: str = "images",
    images: str | None = None,
    names: bool = True,
) -> str:
    """Decompress images that `acn compress` compressed, with the same checkpoint.

    Args:
        file: path of the .acn file.
        checkpoint: a checkpoint, a run's folder for its best one, or a pack.
        overrides: changes to the checkpoint's config.
        out: folder to write PNG files to.
        images: numbers of the images to write, such as 3,17,40-60; null for all of them. Only their
            blocks are decoded.
        names: whether to use the stored file names, if there are any; else images are numbered.

    Returns:
        How many images were written, and where.

    Raises:
        UsageError: the file is damaged or was made with another checkpoint, a number is out of
            range, or the folder `out` exists; nothing has been written then.
    """
    from pathlib import Path

    from acn_lightning.commands._inputs import trained
    from acn_lightning.compression.container import as_png, from_bytes
    from acn_lightning.compression.files import decompress_images
    from acn_lightning.inference.pictures import write_png
    from acn_lightning.utils.errors import UsageError
    from acn_lightning.utils.files import local_path, new_folder
    from acn_lightning.utils.progress import progress_bar
    from acn_lightning.utils.text import counted, printable

    folder = local_path(out, "out")
    if not Path(file).is_file():
        raise UsageError(f"there is no file {file}.")
    container = from_bytes(Path(file).read_bytes(), file)
    every = range(container.count)
    numbers = every if images is None else parse_numbers(images, len(every))
    acn = trained(checkpoint, overrides, "model")
    stored, digits = container.names if names else (), len(str(len(every) - 1))
    with new_folder(folder) as beside:
        with progress_bar("decompressing", "image", total=len(numbers)) as shown:
            found = decompress_images(acn, container, file, numbers, shown.update)
        for number, image in zip(numbers, found, strict=True):
            name = stored[number] if stored else f"{number:0{digits}}"
            write_png(image, beside / as_png(name))
    return f"{counted(len(numbers), 'image')} in {printable(folder)}"


def parse_numbers(words: str, count: int) -> list[int]:
    """Numbers of images, from 0: `3,17,40-60`, both ends included.

    Raises:
        UsageError: these are no such numbers, or there is no such image.
    """
    from acn_lightning.utils.errors import UsageError

    numbers: dict[int, None] = {}
    for word in words.split(","):
        first, _, last = word.partition("-")
        ends = [first.strip(), (last if "-" in word else first).strip()]
        if not all(end.isascii() and end.isdigit() and len(end) < 10 for end in ends):
            raise UsageError(f"images: '{words}' is not like 3,17,40-60.")
        low, high = map(int, ends)
        if not low <= high < count:
            raise UsageError(
                f"images: '{word}' is not within 0-{count - 1}, the images of the file."
            )
        numbers |= dict.fromkeys(range(low, high + 1))
    return list(numbers)
