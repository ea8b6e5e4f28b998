"""The one check of a checkpoint's content. A checkpoint may come from a stranger: what passes here
has the types, shapes and ranges that the rest of the package relies on."""

import re
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.names import parted

KEY = "acn_config"
"""Key of the config in a checkpoint's hyper-parameters."""

LARGEST, DEEPEST = 1_000_000, 32
"""Values that a checkpoint may hold beside its tensors, such as names of classes, and levels of
nesting; to visit them takes a second. Lists that contain one list many times could otherwise keep a
check busy for hours."""

SIDE = 4096
"""Largest side of an image, as for `data.image_size`."""

STEPS = 2**53
"""Above any count of steps or epochs."""


def check_structure(content: Any) -> None:
    """Checks everything that the package reads from a checkpoint.

    Args:
        content: what `torch.load` returned.

    Raises:
        UsageError: a part is missing, or has another type, shape or range.
    """
    need(isinstance(content, dict), "it is not a mapping")
    check_values({name: part for name, part in content.items() if name != "state_dict"})
    check_known(part_of(content, "hyper_parameters", dict))
    check_weights(part_of(content, "state_dict", dict))
    if "code_bank" in content:
        check_bank(part_of(content, "code_bank", dict), content["hyper_parameters"])
        if "average" in content:
            check_average(part_of(content, "average", dict), content["code_bank"])
    check_data(content.get("ImageData", {}), content.get("code_bank", {}).get("labels", ()))
    check_training(content)


def need(holds: bool, what: str) -> None:
    """Raises a UsageError that says `what` is wrong, unless `holds`."""
    if not holds:
        raise UsageError(what)


def part_of(content: Mapping[str, Any], name: str, kind: type) -> Any:
    """The part of that name.

    Raises:
        UsageError: it is missing, or not of that kind.
    """
    need(name in content, f"it has no {name}")
    part = content[name]
    need(isinstance(part, kind), f"its {name} is a {type(part).__name__}")
    return part


# ---------------------------------------------------------------- values


KINDS = (str, int, float, bool, type(None), torch.dtype, torch.device)
"""Of values beside tensors, exactly: subclasses are pickled as code to import."""


def check_values(content: Any) -> None:
    """Checks that all is made of mappings, sequences, tensors and plain values, under plain names.

    Raises:
        UsageError: it is not, the message naming the place; or it is too large or too deep.
    """
    left = LARGEST

    def visit(value: Any, trail: tuple[Any, ...]) -> None:
        nonlocal left
        left -= 1
        fits = left > 0 and len(trail) < DEEPEST
        need(fits, "it is nested too deeply, or holds too many values")
        if isinstance(value, dict):
            for key, inner in value.items():
                need(type(key) in (str, int, bool), f"it has a key {key!r:.60}")
                visit(inner, (*trail, key))
        elif isinstance(value, list | tuple):
            for inner in value:
                visit(inner, (*trail, "[]"))
        elif isinstance(value, Tensor):
            check_tensor(value)
        elif type(value) not in KINDS:
            place = ".".join(map(str, trail)).replace(".[]", "[]")
            raise UsageError(f"its {place:.200} holds a {type(value).__name__}")

    visit(content, ())


def plain_values(content: Any, depth: int = 0) -> Any:
    """The content with Python's numbers in place of NumPy's, Python's own kinds of mappings and
    sequences, and tensors on the CPU: as `torch.load` will return it. What is of no such kind, or
    too deep, is left for `check_values`."""
    if depth > DEEPEST:
        return content
    if isinstance(content, dict):
        pairs = content.items()
        return {plain_values(key): plain_values(one, depth + 1) for key, one in pairs}
    if isinstance(content, list | tuple):
        kind = list if isinstance(content, list) else tuple
        return kind(plain_values(one, depth + 1) for one in content)
    if isinstance(content, Tensor):
        return content.cpu()
    return content.item() if isinstance(content, np.generic) else content


TYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip


def check_tensor(tensor: Tensor, name: str = "a tensor") -> None:
    """Checks that a tensor is dense and holds each of its values in memory.

    Raises:
        UsageError: it is not.
    """
    dense = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_nested)
    need(dense and tensor.device.type == "cpu", f"{name} is not a dense tensor")
    need(tensor.dtype in TYPES, f"{name} is of type {tensor.dtype}")
    # An expanded tensor of a few bytes could claim terabytes.
    need(tensor.nbytes <= tensor.untyped_storage().nbytes(), f"{name} is larger than its data")


def check_finite(tensor: Tensor, name: str) -> None:
    """Checks that all values are finite numbers.

    Raises:
        UsageError: they are not.
    """
    need(
        not tensor.is_floating_point() or bool(tensor.isfinite().all()),
        f"{name} has values that are not finite",
    )


def array(part: Mapping[str, Any], name: str, kinds: tuple[torch.dtype, ...], axes: int) -> Tensor:
    """The tensor of that name.

    Raises:
        UsageError: it is missing, or has another type or number of axes.
    """
    tensor: Tensor = part_of(part, name, Tensor)
    fits = tensor.dtype in kinds and tensor.ndim == axes
    need(fits, f"its {name} is {tensor.dtype} {tuple(tensor.shape)}")
    check_finite(tensor, name)
    return tensor


def count(value: Any, what: str, least: int = 0, most: int = STEPS) -> int:
    """A whole number in a range.

    Raises:
        UsageError: it is not.
    """
    whole = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    need(whole, f"its {what} is {value!r:.60}")
    return int(value)


# ---------------------------------------------------------------- parts


def check_known(known: Mapping[str, Any]) -> None:
    """Checks the hyper-parameters: the config, the form of the images, the class names.

    Raises:
        UsageError: they are not what `acn fit` stores.
    """
    need(isinstance(known.get(KEY), dict), f"it has no config ({KEY})")
    shape: Any = known.get("image_shape")
    need(isinstance(shape, list | tuple) and len(shape) == 3, "it has no image shape")
    need(count(shape[0], "number of channels") in (1, 3), f"its images have {shape[0]} channels")
    for side in shape[1:]:
        count(side, "image size", 1, SIDE)
    classes = known.get("classes", [])
    texts = isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)
    need(texts, "its class names are no list of texts")
    need(isinstance(known.get("run"), str | None), "its run has no name that is a text")


def check_weights(weights: Mapping[str, Any]) -> None:
    """Checks that weights are finite tensors under names.

    Raises:
        UsageError: they are not.
    """
    for name, value in weights.items():
        need(isinstance(name, str), f"its state_dict has a key {name!r:.60}")
        need(isinstance(value, Tensor), f"{name} is a {type(value).__name__}, not a tensor")
        check_tensor(value, name)
        check_finite(value, name)


INTEGERS = (torch.int32, torch.int64)


def check_bank(bank: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Checks the code bank (`CodeBank.state_dict`): labels (N,), rows (n,), codes (N, D), the
    boundary of each code (N,), and a table of neighbours (N, K) or None.

    Raises:
        UsageError: a part has another form, or points outside of the others.
    """
    labels, rows = (array(bank, name, (torch.int64,), 1) for name in ("labels", "rows"))
    codes = array(bank, "codes", (torch.float32,), 2)
    written = array(bank, "written", (torch.int32,), 1)
    boundary = count(part_of(bank, "boundary", int), "boundary", most=2**31 - 1)
    size = len(codes)
    need(codes.shape[1] > 0 and len(labels) == len(written) == size, "its bank's sizes differ")
    # Older checkpoints have no class names; their classes number at most the images.
    classes = len(known["classes"]) if "classes" in known else size
    need(within(labels, -1, classes), "its labels are not of its classes")
    need(within(written, -1, boundary + 1), "its codes were written in the future")
    ascending = len(rows) > 0 and bool((rows[1:] > rows[:-1]).all())
    need(ascending and within(rows, 0, size), "its rows are not rows of its images")
    table = bank.get("neighbours")
    need("neighbours" in bank, "its bank has no neighbours")
    if table is not None:
        check_table(array(bank, "neighbours", INTEGERS, 2), rows, size)
    check_pending(bank.get("pending", []), codes)


def within(values: Tensor, low: int, high: int) -> bool:
    """Whether low <= value < high for all values."""
    return not values.numel() or bool((values.min() >= low) & (values.max() < high))


def check_table(table: Tensor, rows: Tensor, size: int) -> None:
    """Checks that neighbours of a training row are other training rows.

    Raises:
        UsageError: they are not.
    """
    need(len(table) == size and table.shape[1] > 0, "its table of neighbours has another size")
    need(within(table, -1, size), "its neighbours are not rows of its images")
    trained = torch.zeros(size, dtype=torch.bool)
    trained[rows] = True
    own = table[rows].long()
    need(bool((own >= 0).all() and trained[own].all()), "its neighbours are not trained on")
    need(bool((own != rows[:, None]).all()), "an image is its own neighbour")


def check_pending(pending: Any, codes: Tensor) -> None:
    """Checks codes that were not yet shared: (rows, codes) of each rank.

    Raises:
        UsageError: they are of another form.
    """
    need(isinstance(pending, list), "its pending codes are no list")
    for pair in pending:
        need(isinstance(pair, list | tuple) and len(pair) == 2, "its pending codes are no pairs")
        named = dict(zip(("pending rows", "pending codes"), pair, strict=True))
        rows = array(named, "pending rows", (torch.int64,), 1)
        own = array(named, "pending codes", (torch.float32,), 2)
        fits = own.shape == (len(rows), codes.shape[1]) and within(rows, 0, len(codes))
        need(fits, "its pending codes do not fit its bank")


def check_average(average: Mapping[str, Any], bank: Mapping[str, Any]) -> None:
    """Checks the other weights and codes of a run that averages its weights.

    Raises:
        UsageError: a part has another form, or another size than in the bank.
    """
    check_weights(part_of(average, "weights", dict))
    part_of(average, "held", bool)
    codes = array(average, "codes", (torch.float32,), 2)
    written = array(average, "written", (torch.int32,), 1)
    need(codes.shape == bank["codes"].shape, "its average has codes of another size")
    need(written.shape == bank["written"].shape, "its average has another size than its bank")
    need(within(written, -1, bank["boundary"] + 1), "its codes were written in the future")


def check_data(state: Any, labels: Sized) -> None:
    """Checks the record of the training data.

    Raises:
        UsageError: it is of another form, or names another number of images than the bank's.
    """
    need(isinstance(state, dict), "its ImageData is no mapping")
    need(isinstance(state.get("fingerprint", ""), str), "its fingerprint is no text")
    if "bits" in state:
        count(state["bits"], "number of bits", 8, 16)
    names = state.get("names", "")
    need(isinstance(names, str), "its names of images are no text")
    named = len(parted(names))
    need(named in (0, len(labels)), f"it names {named:,} of its {len(labels):,} images")


def check_training(content: Mapping[str, Any]) -> None:
    """Checks what only a resumed run reads, as far as it does not depend on the Trainer.

    Raises:
        UsageError: it is of another form.
    """
    version = content.get("pytorch-lightning_version", "2.0")
    current = isinstance(version, str) and re.fullmatch(r"[2-9]\.\d{1,4}[\w.+-]{0,40}", version)
    need(bool(current), f"it is of Lightning {version!r:.60}")
    for name in ("epoch", "global_step"):
        count(content.get(name, 0), name)
    for name in ("callbacks", "loops"):
        need(isinstance(content.get(name, {}), dict), f"its {name} is no mapping")
    for name in ("optimizer_states", "lr_schedulers", "pretrained", "epoch_costs", "random"):
        need(isinstance(content.get(name, []), list), f"its {name} is no list")
    texts = all(isinstance(name, str) for name in content.get("pretrained", []))
    need(texts, "its pretrained is no list of names")
    for one in content.get("epoch_costs", []):
        array({"epoch_costs": one}, "epoch_costs", (torch.float32,), 1)
    for one in content.get("random", []):
        array({"random": one}, "random", (torch.uint8,), 1)
    for state in content.get("callbacks", {}).values():
        need(isinstance(state, dict), "the state of a callback is no mapping")
