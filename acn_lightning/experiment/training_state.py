"""Checks what a resumed run takes over beside the weights, before it writes anything. Lightning and
torch take what they find."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn

from acn_lightning.callbacks.average import tensors_of
from acn_lightning.module import ACN
from acn_lightning.utils.errors import UsageError


def check_processes(checkpoint: Mapping[str, Any], processes: int) -> None:
    """Checks that a checkpoint saved mid-epoch resumes with the same world size.

    Raises:
        UsageError: the world size differs.
    """
    then = len(checkpoint.get("epoch_costs", [])) or processes
    if then != processes:
        raise UsageError(
            f"trainer.devices: the checkpoint was saved mid-epoch by {then} processes, each with "
            f"its own share of the images; this run has {processes}. Use {then}, or a checkpoint "
            "from the end of an epoch, such as the last-1.ckpt beside it."
        )


def epochs_of(checkpoint: Mapping[str, Any]) -> int:
    """The number of the epoch to resume with, which is how many are complete.

    Raises:
        UsageError: the checkpoint does not say.
    """
    found: Any = checkpoint
    for name in ("loops", "fit_loop", "epoch_progress", "current", "processed"):
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, int):
        raise UsageError("The checkpoint does not say how many epochs are complete.")
    return found


def check_progress(checkpoint: Mapping[str, Any], trainer: Trainer, module: ACN) -> None:
    """Checks the state of the Trainer's loops, of callbacks, of the optimiser and of the random
    numbers.

    Raises:
        UsageError: a part is of another form.
    """
    epochs_of(checkpoint)
    states = checkpoint.get("callbacks", {})
    for name in ("fit_loop", "validate_loop", "test_loop", "predict_loop"):
        check_alike(checkpoint["loops"].get(name, {}), getattr(trainer, name).state_dict(), name)
    optimizers = checkpoint.get("optimizer_states", [])
    if len(optimizers) != 1:
        raise UsageError(f"The checkpoint has the state of {len(optimizers)} optimisers, not of 1.")
    check_optimizer(optimizers[0], module)
    check_average(checkpoint.get("average", {}), module)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not of_others(callback):  # the state of those may change its form as they train
            kept = states.get(callback.state_key, {})
            check_numbers(kept, callback.state_dict(), f"callbacks.{type(callback).__name__}")
    state = torch.get_rng_state()
    for one in checkpoint.get("random", []):
        try:
            torch.Generator().set_state(one[: len(state)])
        except RuntimeError as error:
            raise UsageError("The checkpoint's state of random numbers is damaged.") from error


def check_alike(kept: Any, own: Mapping[str, Any], name: str) -> None:
    """Checks that counts and flags of a loop's state are of the kind that the loop has now.

    Raises:
        UsageError: one is not.
    """
    for key, value in own.items():
        found = kept.get(key, value) if isinstance(kept, dict) else None
        if isinstance(value, dict):
            if "state_dict" not in key:
                check_alike(found, value, f"{name}.{key}")
        elif type(found) is not type(value) or (isinstance(found, int) and not 0 <= found < 2**53):
            raise UsageError(f"The checkpoint's loops.{name}.{key} is {found!r:.60}.")


def of_others(thing: Any) -> bool:
    """Whether an object's class is the user's, whose numbers may be negative or infinite."""
    return type(thing).__module__.partition(".")[0] not in ("acn_lightning", "lightning", "torch")


def check_numbers(kept: Any, own: Any, name: str) -> None:
    """Checks that numbers in a callback's state are counts or times: finite and not negative.

    Args:
        kept: the state in the checkpoint.
        own: the callback's state now.
        name: of the callback.

    Raises:
        UsageError: one is not.
    """
    if isinstance(own, dict) and isinstance(kept, dict):
        for key in own.keys() & kept.keys():
            check_numbers(kept[key], own[key], f"{name}.{key}")
    elif isinstance(own, dict) or (
        kind(own) is float and (kind(kept) is not float or not bounded(kept))
    ):
        raise UsageError(f"The checkpoint's {name} is {kept!r:.60}.")


def check_optimizer(state: Any, module: ACN) -> None:
    """Checks that an optimiser's state is one for a module's parameters, and finite.

    Raises:
        UsageError: it is not.
    """
    groups, values = state_of_groups(state), state.get("state")
    shapes = [one.shape for one in module.parameters()]
    numbers = [one for group in groups for one in group["params"]]
    if sorted(map(str, numbers)) != sorted(map(str, range(len(shapes)))):
        raise UsageError("The checkpoint's optimiser is one of other parameters.")
    optimizer = module.optimizer.make(module.parameters())
    fresh = optimizer.param_groups[0]
    look = kind if of_others(optimizer) else plain  # some keep counts and estimates there
    for group in groups:
        # A schedule sets the rate; fused or not is a matter of speed.
        for name in (fresh.keys() & group.keys()) - {"params", "lr", "fused"}:
            if look(group[name]) != look(fresh[name]):
                raise UsageError(f"The checkpoint's optimiser has a {name} of {group[name]!r:.60}.")
    if not isinstance(values, dict) or not all(isinstance(one, dict) for one in values.values()):
        raise UsageError("The checkpoint's optimiser has no state.")
    example = example_state(module)
    for number, one in values.items():
        # Several groups put the parameters into another order.
        known = shapes if len(groups) > 1 or number not in numbers else [shapes[number]]
        for name, value in example.items() if one else ():
            if not is_like(one.get(name), value, known, counts=not of_others(optimizer)):
                raise UsageError(f"The checkpoint's optimiser has a wrong {name}.")


def check_average(average: Mapping[str, Any], module: ACN) -> None:
    """Checks that a run's other weights are those of a module.

    Raises:
        UsageError: they are not.
    """
    if average:
        found = {name: (one.shape, one.dtype) for name, one in average["weights"].items()}
        own = tensors_of(module)
        if found != {name: (one.shape, one.dtype) for name, one in own.items()}:
            raise UsageError("The checkpoint's average is one of other weights.")


EXAMPLE = (3, 5)
"""Shape of a parameter that an optimiser is tried on."""


def example_state(module: ACN) -> Mapping[str, Any]:
    """What a module's optimiser keeps for a parameter: found by a step with one of its own; nothing
    if it takes other steps than `step()`."""
    parameter = nn.Parameter(torch.zeros(EXAMPLE))
    parameter.grad = torch.zeros(EXAMPLE)
    optimizer = module.optimizer.make([parameter])
    try:
        optimizer.step()
    except Exception:  # an optimiser of any package
        return {}
    return optimizer.state[parameter]


def is_like(found: Any, example: Any, shapes: Sequence[torch.Size], counts: bool) -> bool:
    """Whether a value in an optimiser's state is of the kind of an example: a number, as a tensor
    or not, or a tensor of one of these shapes. With `counts` its numbers are counts or
    times."""
    if not isinstance(example, Tensor):
        return kind(found) == kind(example) and (not counts or bounded(found))
    if not isinstance(found, Tensor) or found.dtype != example.dtype or not found.isfinite().all():
        return False
    if example.shape == EXAMPLE:
        return found.shape in shapes
    return example.ndim > 0 or (found.ndim == 0 and (not counts or bounded(found.item())))


MOST = 2.0**53
"""Above any count and any time in seconds."""


def bounded(value: Any) -> bool:
    """Whether a value, if it is a number, could be a count or a time."""
    return not isinstance(value, int | float) or 0 <= value < MOST


def state_of_groups(state: Any) -> list[dict[str, Any]]:
    """The groups of parameters in an optimiser's state.

    Raises:
        UsageError: it has none.
    """
    groups = state.get("param_groups") if isinstance(state, dict) else None
    if not isinstance(groups, list) or not all(
        isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups
    ):
        raise UsageError("The checkpoint's optimiser has no groups of parameters.")
    return groups


def kind(value: Any) -> Any:
    """What a value is, as far as an optimiser minds: switches may be off or left open."""
    if isinstance(value, tuple | list):
        return [kind(one) for one in value]
    if value is None or isinstance(value, bool):
        return bool
    return float if isinstance(value, int | float) else type(value)


def plain(value: Any) -> Any:
    """A value to compare: lists and tuples are alike."""
    return list(value) if isinstance(value, tuple) else value
