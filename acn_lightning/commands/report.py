"""`acn report`."""

from pathlib import Path


def report(run: str, overrides: list[str], *, out: str | None = None) -> Path:
    """Write a page about a run: curves, tables, pictures, warnings, and the commands to go on.

    Args:
        run: its folder, or a checkpoint in it. It may still be training.
        overrides: none.
        out: .html file to write, which must be new; null for report.html in the run's folder, in
            place of an earlier report there.

    Returns:
        The file's path.

    Raises:
        UsageError: there is no such run, plotly is not installed, or the file exists and is no
            report. Nothing has been written then.
    """
    from acn_lightning.commands._words import html_file, refuse
    from acn_lightning.runs.finding import named_run
    from acn_lightning.runs.pages import is_report, plotly_script, report_page
    from acn_lightning.utils.errors import UsageError
    from acn_lightning.utils.files import new_file, replacing

    refuse("report", overrides)
    given = html_file(out) if out else None
    plotly, known = plotly_script("report"), named_run(run)
    path = given or known.folder / "report.html"
    page = report_page(known, plotly, path.parent)
    if given or not is_report(path):
        with new_file(path) as beside:
            beside.write_text(page, "utf-8")
        return path
    try:
        with replacing(path) as beside:
            beside.write_text(page, "utf-8")
    except PermissionError as error:
        raise UsageError(f"{path} cannot be written. Name another file by out=.") from error
    return path
