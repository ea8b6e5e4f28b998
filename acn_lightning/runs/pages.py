"""The pages about runs: HTML files that need neither a server nor a network."""

import base64
import gzip
import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from acn_lightning.runs import comparison, curves, pictures, sections
from acn_lightning.runs.figures import REPRESENTATIONS
from acn_lightning.runs.reading import STATES, Run
from acn_lightning.utils.files import is_plain
from acn_lightning.utils.optional import require_packages
from acn_lightning.utils.text import as_text

GENERATOR = "acn report"
"""What marks a report as one, which the next may replace."""

HERE = Path(__file__).parent


def fill(name: str, plotly: str, first: Any, rest: Any, **values: Any) -> str:
    """Fills in a page. Jinja escapes all values.

    Args:
        name: of the template.
        plotly: the library's text.
        first, rest: charts.
        values: of the template.
    """
    script = (HERE / "charts.js").read_text("utf-8")
    charts = [*first, *rest]
    for place, chart in enumerate(charts):
        chart["number"] = place
    templates = Environment(
        loader=PackageLoader("acn_lightning", "runs"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = templates.get_template(name).render(
        generator=f"acn {name.removesuffix('.html')}",
        hashes=Markup(" ".join(map(hashed, (script, plotly)))),
        script=Markup(script),
        plotly=base64.b64encode(gzip.compress(plotly.encode(), 6, mtime=0)).decode(),
        data=charts,
        first=first,
        rest=rest,
        made=f"{datetime.now():%d %B %Y, %H:%M}",
        **values,
    )
    return as_text(page)


def hashed(script: str) -> str:
    """What a Content-Security-Policy calls a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def plotly_script(command: str) -> str:
    """The library that draws the charts.

    Raises:
        UsageError: it is not installed.
    """
    text: str = require_packages(f"acn {command}", "explore", "plotly.offline")[0].get_plotlyjs()
    return text


# ---------------------------------------------------------------- several runs


def comparison_page(runs: Sequence[Run], plotly: str) -> str:
    """The page that compares runs."""
    names = list(map(as_text, comparison.titles(runs)))
    colours = [curves.colour(place) for place in range(len(runs))]
    first, rest = curves.compared(runs, names)
    for chart in (*first, *rest):
        chart["legend"] = False
    figures = comparison.figures(runs)
    told = [comparison.caution(runs)]
    told += [
        f"{name}: {file} cannot be read ({why})."
        for run, name in zip(runs, names, strict=True)
        for file, why in run.faults.items()
    ]
    return fill(
        "compare.html",
        plotly,
        first,
        rest,
        title=f"{len(runs)} runs compared",
        runs=list(zip(runs, names, colours, strict=True)),
        told=list(filter(None, told)),
        ranked=any(row.best for row in figures),
        config=comparison.differences(runs),
        figures=figures,
        pictures=pictures.rows(runs),
    )


# ---------------------------------------------------------------- one run


def is_report(path: Path) -> bool:
    """Whether a file is an earlier report, and no link to one."""
    if not is_plain(path):
        return False
    with path.open("rb") as file:
        return f'<meta name="generator" content="{GENERATOR}">'.encode() in file.read(500)


def report_page(run: Run, plotly: str, beside: Path) -> str:
    """The page about a run.

    Args:
        run: what is known of it.
        plotly: the library that draws the charts.
        beside: the folder that the page will lie in, for links.
    """
    first, rest = curves.charts(run)
    for chart in (*first, *rest):
        chart["legend"] = len(chart["lines"]) > 1
    return fill(
        "report.html",
        plotly,
        first,
        rest,
        title=f"{run.experiment} / {as_text(run.name)}",
        run=run,
        meaning=STATES[run.state],
        progress=sections.progress(run),
        tiles=sections.tiles(run),
        faults=run.faults,
        trained=sections.trained(run),
        config=yaml.safe_dump(run.config, sort_keys=False) if run.config else "",
        tested=sections.tested(run),
        costs=sections.costs(run),
        uses=sections.uses(run),
        columns=[REPRESENTATIONS[name] for name in sections.measured(run)],
        explorers=sections.explorers(run, beside),
        pictures=pictures.pictures(run),
        commands=sections.commands(run),
    )
