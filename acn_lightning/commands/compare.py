"""`acn compare`."""

from pathlib import Path


def compare(
    run: list[str], overrides: list[str], *, json: bool = False, out: str | None = None
) -> str | Path:
    """Compare runs: what differs in their configs, beside costs, accuracies and times.

    Args:
        run: folders of two runs or more, or checkpoints in them.
        overrides: none.
        json: whether to print JSON, for programs; also --json.
        out: an .html file to write, with curves and pictures too; null to print a table.

    Returns:
        The table, or the file's path.

    Raises:
        UsageError: there is no such run, one is named twice, or there is only one; plotly is not
            installed, the file `out` exists, or JSON is asked for too. Nothing has been written
            then.
    """
    from acn_lightning.commands._words import html_file, refuse
    from acn_lightning.runs.comparison import as_json, table
    from acn_lightning.runs.finding import named_runs
    from acn_lightning.utils.errors import UsageError
    from acn_lightning.utils.files import new_file

    refuse("compare", overrides)
    if json and out is not None:
        raise UsageError("json: with out, a page is written and nothing is printed. Leave one out.")
    if out is None:
        runs = named_runs(run)
        return as_json(runs) if json else table(runs)
    from acn_lightning.runs.pages import comparison_page, plotly_script

    path, plotly = html_file(out), plotly_script("compare")
    runs = named_runs(run)
    with new_file(path) as beside:
        beside.write_text(comparison_page(runs, plotly), "utf-8")
    return path
