"""Changes an input in one place at a time, at random and reproducibly, for tests.

`FUZZ=20 pytest tests/test_fuzz.py tests/test_strangers.py` tries twenty times as many.
"""

import copy
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

TIMES = int(os.environ.get("FUZZ", "1"))

ODD = (None, True, -1, 2**31, 2**70, 0.5, float("nan"), "", "x", "${oc.env:HOME}", [], {}, [[1]],
       {"a": 1}, (), torch.tensor(float("nan")), torch.zeros(2, 3), torch.zeros(0))  # fmt: skip


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a checkpoint can be changed: the path of each of its values."""
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed_tensor(tensor: Tensor, draw: random.Random) -> Any:
    """The tensor with other values, another shape or another type."""
    kinds: list[Callable[[], Any]] = [
        lambda: tensor.double(), lambda: tensor.to(torch.int16), lambda: tensor[None],
        lambda: tensor[:-1] if tensor.ndim and len(tensor) else tensor[None],
        lambda: torch.cat([tensor, tensor]) if tensor.ndim else tensor[None],
        lambda: tensor.to_sparse(), lambda: tensor.half(), lambda: tensor.bool(),
        lambda: tensor.reshape(-1)[:1].expand(2**40) if tensor.numel() else tensor,
        lambda: tensor.flip(0) if tensor.ndim else -tensor, lambda: tensor + 10**6,
        lambda: torch.full_like(tensor, -7 if tensor.dtype != torch.uint8 else 7),
        lambda: torch.zeros_like(tensor),
    ]  # fmt: skip
    if tensor.numel():
        kinds.append(lambda: with_one(tensor, draw))
    return draw.choice(kinds)()


def with_one(tensor: Tensor, draw: random.Random) -> Tensor:
    """The tensor with one other value."""
    spoilt = tensor.clone(memory_format=torch.contiguous_format)
    value = draw.choice([-1, 7, 120] + [float("nan"), 1e30] * tensor.is_floating_point())
    spoilt.view(-1)[draw.randrange(tensor.numel())] = (
        abs(value) if tensor.dtype == torch.uint8 else value
    )
    return spoilt


def mutated(content: dict[str, Any], draw: random.Random) -> tuple[dict[str, Any], str]:
    """(a changed copy of a checkpoint, what was changed)."""
    top = draw.choice(list(content))  # parts alike often, though some are small
    paths = [(top, *path) for path in places(content[top])] + [(top,)]
    path = draw.choice(paths)
    copied = copy.deepcopy(content)
    inner: Any = copied
    for key in path[:-1]:
        inner = inner[key]
    key = path[-1]
    how = draw.choice(("odd", "odd", "tensor", "tensor", "remove", "rename"))
    if how == "remove":
        del inner[key]
    elif how == "rename" and isinstance(inner, dict):
        inner[draw.choice(["x", 5, "__class__", "model.encoder"])] = inner.pop(key)
    elif how == "tensor" and isinstance(inner[key], Tensor):
        inner[key] = changed_tensor(inner[key], draw)
    else:
        inner[key] = draw.choice(ODD)
    return (
        copied,
        f"{how} {path} -> {str(inner.get(key) if isinstance(inner, dict) else inner)[:80]}",
    )


def changed_bytes(content: bytes, draw: random.Random) -> bytes:
    """The content with some bytes changed, cut out, doubled or put in."""
    spoilt = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        start = draw.randrange(len(spoilt) + 1)
        end = min(len(spoilt), start + draw.choice((1, 1, 4, 64)))
        piece = bytes(spoilt[start:end])
        ways = (draw.randbytes(len(piece)), b"", piece * 2, b"\0" * len(piece),
                b"\xff" * len(piece), draw.randbytes(4) + piece)  # fmt: skip
        spoilt[start:end] = draw.choice(ways)
    return bytes(spoilt) or b"\0"


def changed_text(content: str, draw: random.Random) -> str:
    """The text with some of its characters changed, or with odd ones put in."""
    odd = ("\0", "\t", "\x1b", "\ufeff", "\udc80", "é", ": ", "- ", "{", "]", "&a ", "*a", "!!x ",
           "%", "@", "#", "'", '"', "|\n", "\n\n", "${seed}", "${", "1e999", "9" * 5000, "~", "? ",
           "<<: ", "---\n", "0x", "2024-01-01", "null", "[" * 50)  # fmt: skip
    for _ in range(draw.choice((1, 2, 3))):
        start = draw.randrange(len(content) + 1)
        end = min(len(content), start + draw.choice((0, 0, 1, 5)))
        content = content[:start] + draw.choice(odd) + content[end:]
    return content
