"""The `.acn` file: header, names, index of blocks, payload, digest. See `docs/format.md`."""

import hashlib
import struct
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from acn_lightning.compression.codec import ORDERS
from acn_lightning.compression.model import ARITHMETICS
from acn_lightning.compression.orders import MAX_IMAGES
from acn_lightning.utils.errors import UsageError

MAGIC = b"\x89ACN\r\n\x1a\n"
"""Eight bytes that a transfer as text would change."""

VERSION = 2

FIXED = struct.Struct("<8sHBBQIHHHIIBHI32s8sI")
ENTRY = struct.Struct("<I8s")
DIGEST = 32

MOST = 8
"""Most images for each byte of a file. A file that claims more would take for ever."""

MAX_LANES = 1024
"""Most images in a step."""

MAX_NEAREST = 1 << 16
"""Most stored codes among which the unconditional prior's is chosen."""

MAX_NAME = 250
"""Most bytes of each part of a name, beside which a suffix still fits."""

UNPRINTABLE = ("Cc", "Cs", "Cn", "Zl", "Zp")
"""Categories of Unicode that no name may have."""

MAX_NAMES = 1 << 26
"""Most bytes of names, uncompressed."""


class Block(NamedTuple):
    """A block in the index.

    Attributes:
        content: its words, little-endian.
        check: from `checksum` of its images.
    """

    content: bytes
    check: bytes


class Container(NamedTuple):
    """What a file holds.

    Attributes:
        order: "keep", "free" or "tour".
        arithmetic: "exact" or "float".
        count: number of images.
        image_shape: (C, H, W).
        block: images in a block; the last one may hold fewer.
        nearest: stored codes among which the unconditional prior's is chosen.
        growth, lanes: of the `Schedule`.
        fingerprint: of the model, 32 bytes.
        probe: of the arithmetic, 8 bytes.
        names: a file name for each image, or none.
        blocks: the blocks.
    """

    order: str
    arithmetic: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    image_shape: tuple[int, ...]
    block: int
    nearest: int
    growth: int
    lanes: int
    fingerprint: bytes
    probe: bytes
    names: tuple[str, ...]
    blocks: tuple[Block, ...]

    @property
    def payload(self) -> int:
        """Bytes of the blocks."""
        return sum(len(block.content) for block in self.blocks)

    def sizes(self) -> list[int]:
        """Images in each block."""
        starts = range(0, self.count, self.block)
        return [min(self.block, self.count - start) for start in starts]


def to_bytes(found: Container) -> bytes:
    """The file.

    Raises:
        UsageError: a name cannot be stored.
    """
    names = zlib.compress("\n".join(found.names).encode(), 9) if found.names else b""
    index = b"".join(ENTRY.pack(len(one.content), one.check) for one in found.blocks)
    payload = b"".join(one.content for one in found.blocks)
    length = FIXED.size + len(names) + len(index) + len(payload) + DIGEST
    fixed = FIXED.pack(
        MAGIC, VERSION, ORDERS.index(found.order), ARITHMETICS.index(found.arithmetic), length,
        found.count, *found.image_shape, found.block, found.nearest, found.growth, found.lanes,
        len(found.blocks), found.fingerprint, found.probe, len(names),
    )  # fmt: skip
    content = fixed + names + index + payload
    return content + hashlib.sha256(content).digest()


def from_bytes(content: bytes, path: str) -> Container:
    """Reads a file. Everything that does not need the model is checked: the kind of file, its
    version, length and digest, then that its parts make sense.

    Raises:
        UsageError: the file is of another kind or version, truncated or damaged.
    """
    if content[: len(MAGIC)] != MAGIC:
        raise UsageError(f"{path} is not a file that acn compress wrote.")
    if len(content) < FIXED.size + DIGEST:
        raise UsageError(f"{path} is truncated: it has {len(content):,} bytes only.")
    (
        _, version, order, arithmetic, length, count, channels, height, width, block, nearest,
        growth, lanes, blocks, fingerprint, probe, names,
    ) = FIXED.unpack_from(content)  # fmt: skip
    if version != VERSION:
        raise UsageError(
            f"{path} has version {version} of the format; this acn reads version {VERSION}."
        )
    if len(content) != length:
        what = "truncated" if len(content) < length else "damaged"
        raise UsageError(f"{path} is {what}: it has {len(content):,} of {length:,} bytes.")
    if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
        raise UsageError(f"{path} is damaged: its content does not match its digest.")
    found = Container(
        name_of(order, ORDERS, path), name_of(arithmetic, ARITHMETICS, path), count,
        (channels, height, width), block, nearest, growth, lanes, fingerprint, probe,
        *parts_of(content, names, count, blocks, path),
    )  # fmt: skip
    if (
        not all((count, channels, height, width, block, nearest, growth, lanes))
        or block > MAX_IMAGES
        or len(found.blocks) != -(-count // block)
        or count > MOST * length
        or lanes > MAX_LANES
        or nearest > MAX_NEAREST
    ):
        raise invalid(path)
    return found


def parts_of(
    content: bytes, names: int, count: int, blocks: int, path: str
) -> tuple[tuple[str, ...], tuple[Block, ...]]:
    """The names and the blocks.

    Raises:
        UsageError: they are not where they should be.
    """
    start = FIXED.size + names
    end = start + blocks * ENTRY.size
    if end > len(content) - DIGEST:
        raise invalid(path)
    found = []
    for size, check in ENTRY.iter_unpack(content[start:end]):
        found.append(Block(content[end : end + size], check))
        end += size
        if size % 4:
            raise invalid(path)
    if end != len(content) - DIGEST:
        raise invalid(path)
    return read_names(content[FIXED.size : start], count, path), tuple(found)


def read_names(packed: bytes, count: int, path: str) -> tuple[str, ...]:
    """The names of the images, which stay within the folder that they are written to.

    Raises:
        UsageError: they are no list of such names.
    """
    if not packed:
        return ()
    try:
        text = zlib.decompressobj().decompress(packed, MAX_NAMES)
        if text.count(b"\n") + 1 != count:
            raise invalid(path)
        names = text.decode().split("\n")
        check_names(names)
    except (zlib.error, ValueError) as error:  # a UsageError is one
        raise invalid(path) from error
    return tuple(names)


def check_names(names: Sequence[str]) -> None:
    """Checks that names can be stored, and written elsewhere.

    Raises:
        UsageError: one cannot, or two would be written to the same file.
    """
    for name in names:
        if not is_safe(name):
            raise UsageError(
                f"{name!r}: this name cannot be stored, as other systems do not take its "
                "characters or its length. Rename it, or give names=false."
            )
    if len(set(map(as_png, names))) != len(names):
        raise UsageError("Two images would have the same name. Rename one, or give names=false.")


def is_safe(name: str) -> bool:
    """Whether a name stays within its folder on every system."""
    parts = PurePosixPath(name).parts
    odd = any(one in '\\:*?"<>|' or unicodedata.category(one) in UNPRINTABLE for one in name)
    long = any(len(part.encode("utf-8", "replace")) > MAX_NAME for part in parts)
    inside = "/".join(parts) == name and ".." not in parts and not name.startswith("/")
    return bool(name) and inside and not odd and not long


def as_png(name: str) -> str:
    """The PNG file that an image is written to. Another suffix stays before the new one."""
    return name if name.lower().endswith(".png") else f"{name}.png"


def name_of(number: int, names: tuple[str, ...], path: str) -> str:
    """The option with this number.

    Raises:
        UsageError: there is none.
    """
    if number >= len(names):
        raise invalid(path)
    return names[number]


def invalid(path: str) -> UsageError:
    """The error for a file with the right digest that acn did not write."""
    return UsageError(f"{path} is not valid: its parts do not fit together.")
