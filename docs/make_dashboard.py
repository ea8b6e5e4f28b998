"""Draws the figures of an offline W&B run in the layout of W&B's default workspace: one section per
prefix and one panel per figure, over the global step.

    python docs/make_dashboard.py RUN/wandb/offline-run-... OUT.html

docs/images/dashboard.png is a screenshot of the result.
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

SECTIONS = ("train", "val", "bank", "codes")
COLUMNS = 6


def read(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns (step, value) pairs by figure."""
    command = ["wandb", "leet", "inspect", "--json", str(run.resolve())]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = defaultdict(list)
    for record in map(json.loads, lines):
        item = record["history"]["item"] if record["type"] == "history" else {}
        for name, value in item.items():
            if isinstance(value, int | float) and name.partition("/")[0] in SECTIONS:
                found[name].append((item["trainer/global_step"], value))
    return found


def main() -> None:
    """Writes the page."""
    figures = read(Path(sys.argv[1]))
    names = [
        name
        for section in SECTIONS
        for name in sorted(figures)
        if name.startswith(f"{section}/") and "._" not in name and len(figures[name]) > 1
    ]
    rows = -(-len(names) // COLUMNS)
    page = make_subplots(rows, COLUMNS, subplot_titles=names, vertical_spacing=0.09)
    for place, name in enumerate(names):
        steps, values = zip(*figures[name], strict=True)
        line = go.Scatter(x=steps, y=values, mode="lines", line={"color": "#0a7", "width": 1.5})
        page.add_trace(line, place // COLUMNS + 1, place % COLUMNS + 1)
    page.update_layout(
        showlegend=False, width=1400, height=170 * rows, template="plotly_white", font_size=9,
        margin={"l": 40, "r": 10, "t": 30, "b": 20},
    )  # fmt: skip
    page.update_annotations(font_size=11)
    page.write_html(sys.argv[2], config={"displayModeBar": False})


if __name__ == "__main__":
    main()
