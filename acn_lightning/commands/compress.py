"""`acn compress`."""

from typing import TYPE_CHECKING

from acn_lightning.utils.text import counted, shape_words

if TYPE_CHECKING:
    from torch import Tensor

    from acn_lightning.compression.container import Container
    from acn_lightning.compression.files import Options
    from acn_lightning.data.unchanged import Unchanged
    from acn_lightning.inference.trained_model import TrainedACN


def compress(
    checkpoint: str,
    images: list[str],
    overrides: list[str],
    *,
    out: str = "images.acn",
    order: str = "keep",
    block: int | None = None,
    part: str = "test",
    names: bool | None = None,
    arithmetic: str = "exact",
    compare: bool = True,
) -> str:
    """Compress images without loss into one file, which the same checkpoint decompresses.

    Args:
        checkpoint: a checkpoint, a run's folder for its best one, or a pack.
        images: image files or folders of them, an .npz file, or the name of an experiment.
        overrides: changes to the checkpoint's config; those that begin with `data.` apply to the
            named experiment instead.
        out: file to write to.
        order: "keep" the order; "free" stores a set, whose order then costs nothing; "tour" stores
            a set as in the paper, each image given one like it.
        block: images in a block, which can be read without the others; null is 256 if the order is
            kept, and all images otherwise.
        part: "test" or "train" images of the experiment.
        names: whether to store file names; null stores them if the order is kept.
        arithmetic: of the encoder, "exact" or "float". "float" is for encoders of your own; such
            files can be read only in an environment like the one that they were made in.
        compare: whether to compute the model's bound and what other compressors take.

    Returns:
        What the file takes, beside the bound and other compressors.

    Raises:
        UsageError: an input cannot be read, an image has another form than the model's, or the file
            `out` exists; nothing has been written then.
    """
    import time
    from itertools import pairwise

    from acn_lightning.commands._inputs import originals, trained_for
    from acn_lightning.compression.container import from_bytes, to_bytes
    from acn_lightning.compression.files import Options, compress_images, decompress_images
    from acn_lightning.utils.errors import UsageError
    from acn_lightning.utils.files import local_path, new_file
    from acn_lightning.utils.progress import progress_bar
    from acn_lightning.utils.text import printable

    path = local_path(out, "out")
    acn, theirs = trained_for(checkpoint, images[0], overrides)
    nearest = acn.config["evaluation"]["unconditional_codes"]
    options = Options(order, block, arithmetic, nearest)
    with new_file(path) as beside:
        found = originals(acn, images, theirs, part)
        if names and not found.names:
            raise UsageError("names: these images have none. Leave it out.")
        stored = found.names if (names if names is not None else order == "keep") else ()
        times = [time.perf_counter()]
        with progress_bar("compressing", "image", total=len(found.images)) as shown:
            container = compress_images(acn, found.images, options, stored, shown.update)
        beside.write_bytes(to_bytes(container))
        times.append(time.perf_counter())
        with progress_bar("checking", "image", total=len(found.images)) as shown:
            written = from_bytes(beside.read_bytes(), out)
            again = decompress_images(acn, written, out, None, shown.update)
        if not are_same(again, found.images, order):
            raise UsageError(f"{out}: the images did not come back, so nothing was written.")
        times.append(time.perf_counter())
    lines = report(acn, found, container, path.stat().st_size, options if compare else None)
    seconds = [f"{after - before:.1f} s" for before, after in pairwise(times)]
    lines.append(f"Compressed in {seconds[0]}; all images came back from it in {seconds[1]}.")
    return "\n".join([*lines, printable(path)])


def are_same(one: "Tensor", other: "Tensor", order: str) -> bool:
    """Whether images are the same; only as a set unless their order is kept."""
    import torch

    from acn_lightning.compression.codec import key_of

    if order == "keep":
        return torch.equal(one, other)
    return sorted(map(key_of, one)) == sorted(map(key_of, other))


def report(
    acn: "TrainedACN",
    found: "Unchanged",
    container: "Container",
    size: int,
    options: "Options | None",
) -> list[str]:
    """What a file takes, with `options` beside the bound and what other compressors take."""
    from acn_lightning.compression.bound import bound, nats_per_image
    from acn_lightning.compression.others import other_sizes
    from acn_lightning.evaluation.costs import bits_per_dim

    count, dims = len(found.images), found.images[0].numel()

    def row(name: str, nats: float, taken: int | None = None) -> str:
        bits = f"{nats:14.2f}{bits_per_dim(nats, dims):12.4f}"
        return f"  {name:<42}{taken:>12,}{bits}" if taken is not None else f"  {name:<54}{bits}"

    def of_size(name: str, taken: int) -> str:
        return row(name, nats_per_image(taken, count), taken)

    blocks = counted(len(container.blocks), "block")
    shape = shape_words(acn.image_shape)
    lines = [
        f"{counted(count, 'image')} of {shape}, order={container.order}, {blocks}",
        f"  {'':<42}{'bytes':>12}{'nats/image':>14}{'bits/dim':>12}",
        of_size("payload", container.payload),
        of_size("with header, names and index", size),
    ]
    if options:
        limit = bound(acn.module, found.images, options)
        excess = nats_per_image(container.payload, count) / limit - 1
        lines.append(row(f"the model's bound (payload {100 * excess:+.2f} %)", limit))
        lines += [
            of_size(f"{one.name}{' (estimated)' if one.estimated else ''}", one.size)
            for one in other_sizes(found.images, acn.module.decoder.likelihood.binary)
        ]
    if found.size:
        lines.append(of_size("the files themselves", found.size))
    lines.append("The checkpoint, which is needed to decompress, is not counted.")
    if container.order != "keep":
        lines.append("The images are stored as a set: their order is not kept.")
    if found.jpegs:
        lines.append(
            f"JPEG files among the images: {found.jpegs:,}. What was compressed is their decoded "
            "pixels: compare with the files themselves."
        )
    return lines
