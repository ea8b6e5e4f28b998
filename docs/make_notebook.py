"""Writes a page for the site from each notebook in this folder, with the outputs that it holds.

    python docs/make_notebook.py

The site's builder does not read notebooks. A test holds the pages to the notebooks.
"""

import base64
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def pages(notebook: Path) -> dict[Path, str | bytes]:
    """The page of a notebook, and its pictures, by the files that they belong in."""
    files: dict[Path, str | bytes] = {}
    parts = [
        f"<!-- Made from {notebook.name} by make docs. -->",
        f"*This page is a [notebook]({notebook.name}), with its results.*",
    ]
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"]).rstrip()
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"<!-- needs: time -->\n```python\n{text}\n```")
        printed = ""
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{notebook.stem}-{len(files) + 1}.png"
                files[FOLDER / "images" / name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![What the cell above shows](images/{name})")
            else:
                printed += plain(output)
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    title = next(number for number, part in enumerate(parts) if part.startswith("# "))
    parts[1], parts[title] = parts[title], parts[1]
    return {notebook.with_suffix(".md"): "\n\n".join(parts) + "\n"} | files


def plain(output: dict[str, Any]) -> str:
    """An output as text."""
    return "".join(output.get("text") or output["data"]["text/plain"])


if __name__ == "__main__":
    for notebook in sorted(FOLDER.glob("*.ipynb")):
        for path, content in pages(notebook).items():
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            print(path)
