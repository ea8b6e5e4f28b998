"""The model card of a pack: what was trained, on what, how good it is, and how to use it."""

import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from acn_lightning.commands._report import COSTS, REPRESENTATIONS, USES, percent
from acn_lightning.config.imports import words_for
from acn_lightning.inference.trained_model import TrainedACN
from acn_lightning.utils.errors import foreign
from acn_lightning.utils.text import as_text, printable

PICTURES = {
    "reconstructions": "Test images, and below each what the decoder makes of its code.",
    "neighbours": "Test images, each followed by the training images with the nearest codes.",
    "samples": "Images drawn from the model.",
    "projection": "Codes of test images on a map (t-SNE), coloured by class.",
}
"""Pictures of a run that a card shows, and what they show."""

TAGS = ["associative-compression-network", "representation-learning", "image-retrieval", "vae"]

CARD = """\
# {title}

An Associative Compression Network ([Graves, Menick and van den Oord 2018](https://arxiv.org/abs/1804.02476)),
trained with acn_lightning. {what}

## Use

```python
import acn_lightning

acn = acn_lightning.load("FOLDER"{own})  # this one
{use}
```
{from}
`acn finetune FOLDER NAME` trains it on other images.

## Data

{data}

## Figures

{figures}

{pictures}## Licence

- Model: {license}
- Data that it was trained on: TO FILL IN. `bank.parquet` holds a code, a label and a file name for each training image.

## Files

| file | holds |
|---|---|
| `config.json` | the config of the model and of its training, the form of its images, its classes |
| `model.safetensors` | the weights |
| `bank.parquet` | the training images' codes, labels and file names, by row |
| `SHA256SUMS` | checksums of these three: `sha256sum --check SHA256SUMS` |
"""  # noqa: E501  # Markdown

OWN_CODE = """
The list names code of the model's author, which is not in this folder: its module has to be where Python finds it.
"""  # noqa: E501  # Markdown

WITH_CODES = (
    "codes of images",
    "It gives each image a code of {size} numbers, so that similar images have similar codes.",
    """\
codes = acn.encode("image.png")  # (1, {size}); also arrays, Pillow images and lists
found = acn.neighbours("image.png", k=5)  # the most similar training images: found.rows, found.files""",  # noqa: E501
)
WITHOUT_CODES = (
    "a decoder alone",
    "It has no codes: a baseline, whose decoder describes images without them.",
    "images = acn.sample(8)  # drawn from it",
)
"""Of models with codes and without: what they are, in the title and in a sentence, and how to use
them."""


def card(acn: TrainedACN, figures: str, pictures: Sequence[str], license: str | None) -> str:
    """The text of `README.md`.

    Args:
        acn: the model.
        figures: its tables, from `figures_of`.
        pictures: names of the files in `images/`.
        license: identifier of the model's licence; None leaves it to be filled in.
    """
    has_codes = acn.module.encoder.has_codes
    size = acn.bank.codes.shape[1]
    title, what, use = (
        text.format(size=size) for text in (WITH_CODES if has_codes else WITHOUT_CODES)
    )
    words = words_for({"model": acn.config["model"]})
    about = {
        "license": license or "unknown",
        "library_name": "acn-lightning",
        "pipeline_tag": (
            "image-feature-extraction" if has_codes else "unconditional-image-generation"
        ),
        "tags": TAGS,
    }
    known = {
        "title": f"{plain(acn.config['experiment'])}: {title}",
        "what": what,
        "use": use,
        "own": f", {words}" if words else "",
        "from": OWN_CODE if words else "",
        "data": table(["", ""], data_rows(acn)),
        "figures": figures or "None were measured with this checkpoint.",
        "pictures": "".join(
            f"![{what}](images/{name}.png)\n\n*{what}*\n\n"
            for name, what in PICTURES.items()
            if f"{name}.png" in pictures
        ),
        "license": license or "TO FILL IN, also as `license` at the top of this file.",
    }
    head = yaml.safe_dump(about, sort_keys=False)
    # Not str.format: a name in the text could hold braces.
    body = re.sub(rf"\{{({'|'.join(known)})\}}", lambda mark: known[mark[1]], CARD)
    return f"---\n{head}---\n\n{body}"


def data_rows(acn: TrainedACN) -> list[tuple[str, str]]:
    """What is known of the training images."""
    data, size = acn.config["data"], len(acn.bank.labels)
    channels, height, width = acn.image_shape
    shown = ", ".join(acn.classes[:20]) + (", ..." if len(acn.classes) > 20 else "")
    return [
        ("source", plain(data["source"])),
        ("training images", f"{size:,}, of which {size - len(acn.bank.rows):,} were held out"),
        ("form", f"{height} x {width} pixels, {'grey' if channels == 1 else 'RGB'}"),
        ("binarisation", plain(data["binarisation"])),
        ("classes", f"{len(acn.classes):,}: {plain(shown)}" if shown else "none"),
        ("fingerprint", plain(acn.known.get("fingerprint", "unknown"))),
    ]


def figures_of(run: Path | None, checkpoint: Path) -> str:
    """Tables of the test results of a run; empty unless they are this checkpoint's.

    Raises:
        UsageError: its `results.json` cannot be read.
    """
    path = run / "results.json" if run else checkpoint / "none"
    if not path.is_file() or path.stat().st_mtime < checkpoint.stat().st_mtime:
        return ""
    with foreign(f"{path} cannot be read; remove it to pack without figures", path):
        results = json.loads(path.read_text("utf-8"))
        if Path(str(results["checkpoint"])).name != checkpoint.name:
            return ""
        return figures(results)


def figures(results: dict[str, Any]) -> str:
    """Both tables of a run's results, in Markdown."""
    labels = COSTS | {"ordered": "ordered: with the tour", "unordered": "unordered: given nothing"}
    nats = [(label, f"{results['nats_per_image'][name]:.2f}") for name, label in labels.items()]
    parts = [
        f"Of {results['images']:,} test images, seed {results['seed']}.",
        table(["cost", "nats per image"], nats),
    ]
    found = {key: results["representations"].get(key) for key in REPRESENTATIONS}
    measured = [key for key, one in found.items() if one]
    if measured:
        rows = [(label, *(percent(found[key].get(use)) for key in measured))
                for use, label in USES.items()]  # fmt: skip
        heads = ["%", *(REPRESENTATIONS[key] for key in measured)]
        parts.append(table(heads, [row for row in rows if any(row[1:])]))
    return "\n\n".join(parts)


def pictures_of(run: Path | None) -> list[Path]:
    """A run's pictures that a card shows."""
    paths = [run / "images" / f"{name}.png" for name in PICTURES] if run else []
    return [path for path in paths if path.is_file()]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: object) -> str:
    """Text from outside on one line of Markdown, in which nothing of it is markup."""
    safe = html.escape(printable(as_text(str(text))))
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", safe)
