"""The optimiser, and the schedule of its learning rate over a run."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from acn_lightning.utils.errors import UsageError, check_choice, check_range, one_line
from acn_lightning.utils.registry import Option, Registered, foreign_options, import_object, is_path

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}

FUSED = tuple(OPTIMIZERS.values())
"""Those with a fused kernel for the CPU."""


class OptimizerFactory:
    """Makes a PyTorch optimiser once its parameters exist.

    Args:
        kind: "adam", "adamw" or "sgd"; or package.module:Name of a `torch.optim.Optimizer`.
        learning_rate: initial learning rate.
        options: arguments of the optimiser itself, such as weight_decay.

    Raises:
        UsageError: there is no such optimiser, or it rejects an option.
    """

    def __init__(self, *, kind: str = "adam", learning_rate: float = 1e-3, **options: Any) -> None:
        if not 0 < learning_rate < 1e30:  # a step must fit in a float32
            raise UsageError(
                f"optimizer.learning_rate: {learning_rate} is not above 0 and below 1e30."
            )
        self.cls, self.learning_rate, self.options = find_optimizer(kind), learning_rate, options
        try:
            weight = nn.Parameter(torch.zeros(2, 2, 1, 1))
            weight.grad = torch.zeros_like(weight)
            self.make([weight]).step()  # some need a closure, or other gradients
        except Exception as error:  # whatever a class of others raises
            raise UsageError(f"optimizer: {kind} refuses its options: {one_line(error)}") from error

    def make(self, parameters: Iterable[nn.Parameter], *, fused: bool = False) -> Optimizer:
        """Makes the optimiser of these parameters.

        Args:
            parameters: to optimise.
            fused: whether to use PyTorch's fused kernel, if the optimiser has one for the CPU, the
                parameters are there and no option says otherwise. It steps in one pass over memory.
        """
        parameters, options = list(parameters), dict(self.options)
        free = options.keys().isdisjoint(("fused", "foreach", "capturable", "differentiable"))
        if fused and free and self.cls in FUSED and all(one.is_cpu for one in parameters):
            options["fused"] = True
        made = self.cls(parameters, lr=self.learning_rate, **options)  # type: ignore[call-arg]
        made.register_load_state_dict_post_hook(lay_out_state)
        return made


def lay_out_state(optimizer: Optimizer) -> None:
    """Gives an optimiser's state the memory format of its parameters. A checkpoint's state keeps
    the format that they had then; a fused kernel walks through both in the order of memory, and so
    would give each weight the moments of another."""
    for parameter, state in optimizer.state.items():
        for name, one in state.items():
            if isinstance(one, Tensor) and one.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=one.dtype).copy_(one)


def find_optimizer(kind: str) -> type[Optimizer]:
    """The optimiser class of that kind, or the one at `package.module:Name`.

    Raises:
        UsageError: there is none.
    """
    if not is_path(kind):
        check_choice("optimizer.kind", kind, OPTIMIZERS)
        return OPTIMIZERS[kind]
    found = import_object(kind, "optimizer.kind")
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise UsageError(f"optimizer.kind: {kind} is not a torch.optim.Optimizer.")
    return found


def optimizer_options(kind: str) -> dict[str, Option]:
    """Options besides `learning_rate` that a config's `optimizer` section may set for that kind."""
    own = foreign_options(find_optimizer(kind)).items()
    return {name: option for name, option in own if name not in ("params", "lr")}


class Schedule(Registered, key="schedule.kind"):
    """The learning rate at a step, as a fraction of `optimizer.learning_rate`.

    Args:
        warmup_steps: number of steps over which the rate grows linearly from 0.

    Attributes:
        needs_end: whether the schedule depends on the number of steps in the run.

    Raises:
        UsageError: `warmup_steps` is out of range.
    """

    needs_end = False

    def __init__(self, *, warmup_steps: int = 0) -> None:
        check_range("schedule.warmup_steps", warmup_steps, 0, 10**9)
        self.warmup_steps = warmup_steps

    def __call__(self, step: int, steps: float) -> float:
        """The fraction at a step.

        Args:
            step: number of the step, from 0.
            steps: number of steps in the run; infinite if it has no end.
        """
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        return self.decay((step - self.warmup_steps) / max(1, steps - self.warmup_steps))

    def decay(self, progress: float) -> float:
        """The fraction after the warm-up.

        Args:
            progress: 0 at the end of the warm-up, 1 at the end of the run.
        """
        raise NotImplementedError


class ConstantSchedule(Schedule, kind="constant"):
    """The same rate for all steps."""

    def decay(self, progress: float) -> float:
        return 1.0


class CosineSchedule(Schedule, kind="cosine"):
    """Decays to 0 at the end of the run, along half a cosine (Loshchilov and Hutter, arXiv
    1608.03983).

    Example:
        >>> cosine = CosineSchedule()
        >>> [round(cosine(step, steps=100.0), 3) for step in (0, 50, 100)]
        [1.0, 0.5, 0.0]
    """

    needs_end = True

    def decay(self, progress: float) -> float:
        return (1 + math.cos(math.pi * min(1, progress))) / 2
