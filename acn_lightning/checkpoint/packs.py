"""Packs: a trained model as a folder without pickles, in the form that model hubs take. A pack may
come from a stranger; what is read becomes a checkpoint's content, and is checked like one."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from acn_lightning.checkpoint.structure import KEY
from acn_lightning.utils.errors import UsageError, foreign
from acn_lightning.utils.names import joined, parted
from acn_lightning.utils.optional import require_packages

CONFIG, WEIGHTS, BANK = PARTS = ("config.json", "model.safetensors", "bank.parquet")

SUMS = "SHA256SUMS"
"""Checksums of the parts, in the form that `sha256sum --check` reads."""

VERSION = 1

MOST_TEXT = 4 * 2**20
"""Largest `config.json`, in bytes."""

ROWS = 2**16
"""Rows of the bank that are written at a time."""


def is_pack(path: Path) -> bool:
    """Whether a folder is a pack, perhaps with parts missing."""
    return any((path / name).exists() for name in (*PARTS, SUMS))


# ---------------------------------------------------------------- writing


def write_pack(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes the parts of a pack and their checksums into an empty folder.

    Args:
        folder: where to.
        content: of a checkpoint, as `read_checkpoint` returns it, with no more of the config than
            is to be published.

    Raises:
        UsageError: pyarrow is not installed.
    """
    known, data = content["hyper_parameters"], dict(content.get("ImageData", {}))
    names = parted(joined(parted(data.pop("names", None))))  # relative, also of older checkpoints
    about = {
        "library_name": "acn-lightning",
        "pack_version": VERSION,
        "run": known.get("run"),
        "image_shape": list(known["image_shape"]),
        "classes": list(known["classes"]),
        "data": {key: value for key, value in data.items() if isinstance(value, str | int)},
        "bank_boundary": content["code_bank"]["boundary"],
        KEY: known[KEY],
    }
    text = json.dumps(about, indent=2, allow_nan=False) + "\n"
    (folder / CONFIG).write_text(text, "utf-8")
    weights = {name: one.contiguous().clone() for name, one in content["state_dict"].items()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors makes it private
    write_bank(folder / BANK, content["code_bank"], names)
    lines = [f"{checksum(folder / name)}  {name}\n" for name in PARTS]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def bank_schema(code_size: int) -> Any:
    """Types of the bank's columns. A row is an image of the training data."""
    (pyarrow,) = require_packages("a pack", "explore", "pyarrow")
    kinds = {
        "file": pyarrow.string(),
        "label": pyarrow.int64(),
        "trained": pyarrow.bool_(),
        "written": pyarrow.int32(),
    }
    fields = [pyarrow.field(name, kind, name == "file") for name, kind in kinds.items()]
    value = pyarrow.field("item", pyarrow.float32(), False)
    return pyarrow.schema([*fields, pyarrow.field("code", pyarrow.list_(value, code_size), False)])


def write_bank(path: Path, bank: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Writes the code bank as Parquet: plain and not compressed, so that a reader knows from the
    file's size what it will take."""
    pyarrow, parquet = require_packages("a pack", "explore", "pyarrow", "pyarrow.parquet")
    size, code_size = bank["codes"].shape
    trained = np.zeros(size, bool)
    trained[bank["rows"].numpy()] = True
    schema = bank_schema(code_size)
    options = {"compression": "NONE", "use_dictionary": False, "write_statistics": False}
    with parquet.ParquetWriter(path, schema, **options) as writer:
        for start in range(0, size, ROWS):
            some = slice(start, start + ROWS)
            codes = pyarrow.array(bank["codes"][some].numpy().reshape(-1))
            columns = [
                pyarrow.array(names[some] or [None] * len(trained[some]), pyarrow.string()),
                bank["labels"][some].numpy(),
                trained[some],
                bank["written"][some].numpy(),
                pyarrow.FixedSizeListArray.from_arrays(codes, type=schema.field("code").type),
            ]
            writer.write_table(pyarrow.table(columns, schema=schema))


# ---------------------------------------------------------------- reading


def read_pack(folder: Path) -> dict[str, Any]:
    """The content of a pack, in the form of a checkpoint's. It is not checked further than that.

    Raises:
        UsageError: a part is missing, changed, or not what `write_pack` writes; pyarrow is not
            installed.
    """
    check_sums(folder)
    about = read_config(folder / CONFIG)
    with foreign(f"{folder / WEIGHTS} cannot be read as weights", folder / WEIGHTS):
        weights = load_file(folder / WEIGHTS)
    codes, names = read_bank(folder / BANK)
    bank = {**codes, "boundary": about.get("bank_boundary"), "neighbours": None}
    data = about.get("data")
    known = {name: about.get(name) for name in (KEY, "image_shape", "run", "classes")}
    return {
        "state_dict": weights,
        "hyper_parameters": known,
        "code_bank": bank,
        "ImageData": data | names if isinstance(data, dict) else data,
    }


def check_sums(folder: Path) -> None:
    """Checks that all parts are there, and are as they were written.

    Raises:
        UsageError: they are not.
    """
    sums = folder / SUMS
    for name in (*PARTS, SUMS):
        path = folder / name
        if not path.exists():
            raise UsageError(f"{folder} is not a whole pack: it has no {name}.")
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UsageError(f"{path} is no file, so {folder} is no pack.")
    with sums.open("rb") as file:
        lines = file.read(4096).decode("ascii", "replace").splitlines()
    found = [re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line) for line in lines]
    kept = {one[2]: one[1] for one in found if one}
    if len(kept) != len(lines) or set(kept) != set(PARTS):
        raise UsageError(f"{sums} is damaged: it is not the list of {', '.join(PARTS)}.")
    for name in PARTS:
        if checksum(folder / name) != kept[name]:
            raise UsageError(
                f"{folder / name} is damaged, or was changed: it does not match its checksum in "
                f"{SUMS}."
            )


def checksum(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(path: Path) -> dict[str, Any]:
    """The content of `config.json`.

    Raises:
        UsageError: it is too large, no JSON, or of another version.
    """
    if path.stat().st_size > MOST_TEXT:
        raise UsageError(f"{path} is larger than {MOST_TEXT:,} bytes.")
    with foreign(f"{path} cannot be read as JSON", path):
        about = json.loads(path.read_text("utf-8"))
    version = about.get("pack_version") if isinstance(about, dict) else None
    if version != VERSION:
        raise UsageError(
            f"{path} is of no pack that this acn reads: its pack_version is {version!r:.40}, not "
            f"{VERSION}."
        )
    return about


def read_bank(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(the code bank, the names of its images if they are known).

    Raises:
        UsageError: it has other columns, or is compressed, as a small file could otherwise fill
            the memory.
    """
    _, parquet = require_packages("a pack", "explore", "pyarrow", "pyarrow.parquet")
    with foreign(f"{path} cannot be read as Parquet", path):
        with parquet.ParquetFile(path, memory_map=False) as file:
            check_bank_file(file, path)
            table = file.read(use_threads=False)
        columns = {name: table[name] for name in ("label", "trained", "written")}
        found = {name: one.to_numpy() for name, one in columns.items()}
        codes = table["code"].combine_chunks()
        size = codes.type.list_size
        if any(table[name].null_count for name in (*columns, "code")) or len(codes) != len(table):
            raise UsageError(f"{path} has rows without values.")
        values = codes.flatten().to_numpy(zero_copy_only=False).reshape(len(table), size)
        files = table["file"].to_pylist()
    bank = {
        "labels": torch.tensor(found["label"]),
        "rows": torch.tensor(found["trained"]).nonzero()[:, 0],
        "written": torch.tensor(found["written"]),
        "codes": torch.tensor(values),
    }
    whole = bool(files) and None not in files
    return bank, ({"names": joined(files)} if whole else {})


def check_bank_file(file: Any, path: Path) -> None:
    """Checks a Parquet file by its metadata, before its rows are read.

    Raises:
        UsageError: it has other columns, packs them, or promises more than it holds.
    """
    about, schema = file.metadata, file.schema_arrow
    kind = schema.field("code").type if "code" in schema.names else None
    size = getattr(kind, "list_size", 0)
    if not (1 <= size <= 65_536 and schema.equals(bank_schema(size))):
        raise UsageError(f"{path} has other columns than a pack's bank.")
    chunks = [
        about.row_group(group).column(column)
        for group in range(about.num_row_groups)
        for column in range(about.num_columns)
    ]
    packed = any(
        one.compression != "UNCOMPRESSED" or one.has_dictionary_page or
        any("DICTIONARY" in encoding or "DELTA" in encoding for encoding in one.encodings)
        for one in chunks
    )  # fmt: skip
    if packed:
        raise UsageError(f"{path} is compressed, which a pack's bank is not.")
    if about.num_rows * size * 4 > path.stat().st_size:
        raise UsageError(f"{path} is damaged: it promises more rows than it holds.")
