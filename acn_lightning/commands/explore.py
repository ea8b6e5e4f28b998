"""`acn explore`."""

from pathlib import Path


def explore(
    checkpoint: str,
    images: str | None,
    overrides: list[str],
    *,
    k: int = 8,
    points: int = 10_000,
    part: str = "train",
    projection: str = "tsne",
    thumbnails: int = 48,
    unreadable: str = "stop",
    out: str | None = None,
    open: bool = False,
) -> Path:
    """Write an HTML page to explore the codes of images.

    Args:
        checkpoint: a checkpoint, a run's folder for its best one, or a pack.
        images: an experiment or a folder of images; by default the data of the checkpoint.
        overrides: changes to the checkpoint's config; if an experiment is named, those that begin
            with `data.` apply to its config instead.
        k: neighbours shown on a click.
        points: maximum number of images shown. If there are more, a sample stratified by class is
            shown, and neighbours are the nearest within it.
        part: "train" or "test" images, where there are both.
        projection: "tsne" or "pca".
        thumbnails: longest side of an image in the file, in pixels.
        unreadable: "stop" at a file that cannot be read as an image, or "skip" it.
        out: file to write; null for `explorer.html` in a new folder under the run's `outputs`.
        open: whether to open the file in a browser.

    Returns:
        The file's path.

    Raises:
        UsageError: an input cannot be read, plotly is not installed, or the file `out` exists;
            nothing has been written then. Or there is no browser to open the file.
    """
    import webbrowser

    from acn_lightning.commands._inputs import collect, trained_for
    from acn_lightning.data.subsets import stratified
    from acn_lightning.experiment.folder import output_folder
    from acn_lightning.inference.embedding import embed
    from acn_lightning.inference.explorer import page, require_plotly
    from acn_lightning.inference.projection import check_projection
    from acn_lightning.utils.errors import UsageError
    from acn_lightning.utils.files import local_path, new_file

    require_plotly()
    check_projection(projection)
    if not 2 <= points <= 100_000:
        raise UsageError(f"points: {points} is not from 2 to 100000.")
    if not 8 <= thumbnails <= 256:
        raise UsageError(f"thumbnails: {thumbnails} is not from 8 to 256.")
    if out and Path(out).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"out: {out} is not an .html file.")
    acn, theirs = trained_for(checkpoint, images, overrides)
    folder = Path() if out else output_folder("explore", acn.source, acn.config)
    path = local_path(out, "out") if out else folder / "explorer.html"
    with new_file(path) as beside:
        whole = collect(acn, images, theirs, part, unreadable)
        some = whole.at(stratified(whole.labels, points, acn.config["seed"]))
        embedding = embed(acn.module, some, k, projection)
        title = f"{some.name}: {checkpoint}"
        beside.write_text(page(some, embedding, title, len(whole.images), thumbnails), "utf-8")
    if open and not webbrowser.open(path.resolve().as_uri()):
        raise UsageError(f"open: there is no browser here. Open {path} in a browser elsewhere.")
    return path
