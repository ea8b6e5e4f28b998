"""Files of `torch.save`, checked before torch reads them."""

import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from acn_lightning.utils.errors import MACHINE, UnreadableError, UsageError, lacks_memory

STORAGES = (
    "Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double",
    "ComplexFloat", "ComplexDouble",
)  # fmt: skip

GLOBALS = frozenset(
    [
        "collections OrderedDict", "collections Counter", "torch Size", "torch device",
        "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter", "torch.nn.parameter Parameter",
        *(f"torch {name}Storage" for name in STORAGES),
        *(f"torch.cuda {name}Storage" for name in STORAGES),
        *(f"torch {name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
    ]
)  # fmt: skip
"""All that a pickle may call. `weights_only=True` alone would also let it call `bytearray(10**9)`,
or a tensor's class with a size."""

PICKLES = 5
"""In a file of the format before torch 1.6, at its beginning; the tensors' values follow."""


def load_tensors(path: Path, what: str) -> Any:
    """What `torch.save` wrote, on the CPU, without running any code from the file.

    Args:
        path: the file; unless it is a zip archive, of the format before torch 1.6.
        what: it should be, such as "an acn checkpoint", for errors.

    Raises:
        UnpicklingError: it holds an object to be unpickled, or its pickle is damaged.
        UnreadableError: it is truncated, damaged or compressed.
        UsageError: it needs more memory than there is.
        OSError: it may not be read, or the machine fails.
    """
    with reading(path) as file:
        try:
            if file.read(2) == b"PK":
                check_archive(file, path, what)
            else:
                file.seek(0)
                for _ in range(PICKLES):
                    check_pickle(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except (UsageError, pickle.UnpicklingError):
            raise
        except Exception as error:  # on a bad file, the parser may raise anything
            if lacks_memory(error):
                raise UsageError(f"{path} needs more memory than there is.") from error
            raise UnreadableError(f"{path} is truncated, or is not {what}.") from error


def check_archive(file: io.BufferedReader, path: Path, what: str) -> None:
    """Verifies a zip file: the checksums of its parts, which torch does not check, that none is
    compressed, and what its pickles call, as a small file could otherwise fill the memory.

    Raises:
        UnpicklingError: a pickle calls something else than tensors.
        UnreadableError: a part is compressed or does not match its checksum, or the file is not
            what torch will read.
        Exception: of any kind, if the file is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        names = {one.filename.lower() for one in parts}  # torch ignores case
        if archive.start_dir != directory_of(file) or len(names) != len(parts):
            raise UnreadableError(f"{path} is truncated or damaged.")  # torch would read others
        for one in parts:
            if one.compress_type != zipfile.ZIP_STORED:
                raise UnreadableError(
                    f"{path} is not {what}: its part {one.filename} is compressed."
                )
        if damaged := archive.testzip():
            raise UnreadableError(
                f"{path} is damaged: its part {damaged} does not match its checksum."
            )
        for one in parts:
            if one.filename.lower().endswith(".pkl"):
                check_pickle(io.BytesIO(archive.read(one)))


def check_pickle(file: io.BufferedIOBase) -> None:
    """Checks, without unpickling, that the pickle at a file's position calls only `GLOBALS`.

    Raises:
        UnpicklingError: it calls something else.
        ValueError: it is damaged.
    """
    for code, called, _ in pickletools.genops(file):  # type: ignore[arg-type]  # any file will do
        if code.name == "GLOBAL" and called not in GLOBALS:  # torch takes no other such codes
            raise pickle.UnpicklingError(f"{called} is refused")


def directory_of(file: io.BufferedReader) -> int:
    """Where the last record of a zip file says that its directory begins, in bytes. torch believes
    it; Python's `zipfile` takes the directory that lies before the record."""
    file.seek(-min(98, file.seek(0, 2)), 2)
    tail = file.read()
    if tail[-42:-38] == b"PK\6\7":  # zip64, as torch writes it
        return int.from_bytes(tail[48:56], "little")
    return int.from_bytes(tail[-6:-2], "little")


@contextmanager
def reading(path: Path) -> Iterator[io.BufferedReader]:
    """A file to read. Whatever its reader makes of a failure of the machine, it is raised.

    Raises:
        OSError: the file may not be read, or the machine fails.
    """
    with Remembering(path) as raw, io.BufferedReader(raw) as file:
        try:
            yield file  # type: ignore[misc]  # 3.11 cannot subscript its type
        except Exception as error:
            if raw.failed and raw.failed.errno in MACHINE:
                raise OSError(raw.failed.errno, raw.failed.strerror, str(path)) from error
            raise


class Remembering(io.RawIOBase):
    """A file that keeps the system's last error: zipfile and torch take one for a damaged file."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb", buffering=0)
        self.failed: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        try:
            return self.file.readinto(buffer)
        except OSError as error:
            self.failed = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def close(self) -> None:
        self.file.close()
        super().close()
