"""What tests have processes do, which `tests.nursery` forks. It knows nothing of pytest, or the
processes would have to import it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.distributed.distributed_c10d import _set_pg_timeout

from acn_lightning.callbacks import (
    AverageWeights,
    CheckAgreement,
    DrawPictures,
    Finetune,
    MeasureTest,
    ProbeCodes,
    probe,
)
from acn_lightning.callbacks.typed import callbacks_of
from acn_lightning.cli import main
from acn_lightning.config.compose import compose
from acn_lightning.data import ImageData
from acn_lightning.experiment import quickest
from acn_lightning.experiment.build import build
from acn_lightning.module import ACN
from acn_lightning.networks.shapes import WhiteShape
from acn_lightning.retrieval.code_bank import CodeBank
from acn_lightning.retrieval.faiss_backend import import_faiss
from acn_lightning.retrieval.index import NeighbourIndex
from tests.nursery import ROOT, python


class Run:
    """`acn` in processes of its own, which know of each other what a launcher would tell them.

    Args:
        words: of the command line.
        folder: to work in.
        size: how many processes.
        before: called in each of them before it begins; of this module.
    """

    def __init__(
        self, *words: object, folder: Path, size: int = 1, before: Callable[[], None] | None = None
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        known = {"WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)}
        if size > 1:
            known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        module = ["tests.processes", before.__name__] if before else ["acn_lightning"]
        command = [python(), "-m", *module, *map(str, words)]
        self.heard: list[str] = []
        self.processes = [
            subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env=os.environ | known | ({"LOCAL_RANK": str(rank)} if size > 1 else {}),
            )
            for rank in range(size)
        ]  # fmt: skip
        self.listeners = [threading.Thread(target=self.hear, args=[one]) for one in self.processes]
        for listener in self.listeners:
            listener.start()

    def hear(self, process: subprocess.Popen[str]) -> None:
        """Keeps what a process says, until it has ended."""
        assert process.stdout is not None
        self.heard.extend(process.stdout)

    def poll(self) -> int | None:
        """The first process's status, if it has ended."""
        return self.processes[0].poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Sends all of them a signal."""
        for process in self.processes:
            process.send_signal(number)

    def ended(self, seconds: float = 120) -> tuple[int | None, str]:
        """Waits for all; the first one's status and what they said. Who takes longer is killed."""
        for process, listener in zip(self.processes, self.listeners, strict=True):
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            listener.join()  # what it was the parent of has ended too
        return self.poll(), self.said

    @property
    def said(self) -> str:
        """What they said until now."""
        return "".join(self.heard)


CALL = (
    "import json, sys; from tests import processes; "
    "print(json.dumps(getattr(processes, sys.argv[1])(*json.loads(sys.argv[2]))))"
)


def call(function: Callable[..., Any], *several: tuple[Any, ...]) -> list[Any]:
    """What a function of this module returns for each of several arguments, each in a process of
    its own, all at once."""
    started = [
        subprocess.Popen(
            [python(), "-c", CALL, function.__name__, json.dumps(arguments)], text=True,
            stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for arguments in several
    ]  # fmt: skip
    found = [process.communicate(timeout=120)[0] for process in started]
    assert not any(process.returncode for process in started), found
    return [json.loads(one.splitlines()[-1]) for one in found]


def lose_reader() -> None:
    """Has a process write to pipes that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(write, stream.fileno())


def fail_as_first() -> None:
    """Has rank 0 fail when it writes codes."""

    def write(*_: object) -> None:
        raise OSError("the disk is on fire")

    if rank_zero_only.rank == 0:
        CodeBank.write = write  # type: ignore[method-assign,assignment]


def measure_as_first() -> None:
    """Has rank 0 find that 16 bits and contiguous networks are the fastest, and any other rank fail
    if it measures; each says how it trains."""

    def timings(data: ImageData, module: ACN, ways: Sequence[quickest.Way]) -> quickest.Timings:
        assert rank_zero_only.rank == 0
        return quickest.Timings({way: 1.0 + (way != ways[-1]) for way in ways}, {})

    def on_train_start(_: CheckAgreement, trainer: Trainer, module: ACN) -> None:
        contiguous = all(weight.is_contiguous() for weight in module.parameters())
        print(f"rank {trainer.global_rank}: {trainer.precision}, contiguous {contiguous}")

    quickest.quickest_precision = lambda _: "bf16-mixed"
    quickest.timings = timings
    CheckAgreement.on_train_start = on_train_start  # type: ignore[method-assign,assignment]


def compare_weights() -> None:
    """Has a fine-tuning say at each epoch's end whether all processes hold the same weights and the
    same codes, whether the codes are what these weights say, and the sum of the weights."""

    def on_train_epoch_end(_: Finetune, trainer: Trainer, module: ACN) -> None:
        weights = torch.cat([one.detach().flatten() for one in module.encoder.parameters()])
        every = trainer.strategy.all_gather(weights)
        codes = trainer.strategy.all_gather(module.bank.codes)
        with torch.no_grad():
            now = module(trainer.datamodule.fixed_set.images / 255).mean  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            same = bool((every[0] == every[1]).all()), bool((codes[0] == codes[1]).all())
            fresh = torch.allclose(now, codes[0], atol=1e-4)
            print("epoch", trainer.current_epoch, *same, fresh, float(weights.sum()))

    Finetune.on_train_epoch_end = on_train_epoch_end  # type: ignore[method-assign,assignment]


def take_long_as_first() -> None:
    """Has rank 0 take five seconds to probe and to measure, where three are waited otherwise."""
    hooks = (ProbeCodes, "on_train_epoch_end"), (MeasureTest, "on_test_epoch_end")
    for callback, name in hooks:
        setattr(callback, name, with_timeout(getattr(callback, name)))
    probe.probe = slowed(probe.probe)
    MeasureTest._measure = slowed(MeasureTest._measure)  # type: ignore[method-assign]


def slowed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, five seconds later."""

    def slow(*arguments: Any) -> Any:
        time.sleep(5)
        return function(*arguments)

    return slow


def with_timeout(hook: Callable[..., None]) -> Callable[..., None]:
    """The hook, with collectives that wait for three seconds at most."""

    def within(*arguments: Any) -> None:
        torch.distributed.barrier()  # the ranks are together from here
        _set_pg_timeout(timedelta(seconds=3))
        hook(*arguments)
        _set_pg_timeout(timedelta(minutes=30))

    return within


def compare_statistics() -> None:
    """Has a run say at each epoch's end whether all processes hold the same running statistics: of
    the average, which the module then holds, and of the weights of the last step."""

    def on_train_epoch_end(_: DrawPictures, trainer: Trainer, module: ACN) -> None:
        (kept,) = (one.weights for one in callbacks_of(trainer) if isinstance(one, AverageWeights))
        buffers = dict(module.named_buffers())
        for tensors in (buffers, kept):
            mine = torch.cat([tensors[name] for name in buffers if "running" in name])
            one, other = trainer.strategy.all_gather(mine)
            if trainer.is_global_zero:
                print("statistics of the same images:", torch.equal(one, other))

    DrawPictures.on_train_epoch_end = on_train_epoch_end  # type: ignore[method-assign,assignment]


def shard(rank: int, options: list[Any], folder: str) -> None:
    """A rank of the simulation of sharded codes."""
    from benchmarks import shards

    shards.run(rank, shards.Options(*options), folder)


def synchronise(rank: int, size: int, folder: str) -> None:
    """One of several processes: writes its share, the last row of which all others write also."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size
    )
    bank = CodeBank(torch.arange(11) % 3, torch.arange(11), 2)
    mine = torch.arange(11)[rank::size]
    bank.write(mine, torch.stack([mine, torch.full_like(mine, rank)], 1).float())
    bank.write(torch.tensor([10]), torch.tensor([[10.0, rank]]))  # a sampler's padding
    index = NeighbourIndex(2, k=2)
    searched, write = [], index.write_neighbours

    def count(table: Tensor, rows: Tensor) -> None:
        searched.append(len(rows))
        write(table, rows)

    index.write_neighbours = count  # type: ignore[method-assign]
    found = bank.refresh(index)
    result = bank.state_dict(), found.refreshed, sum(searched), found.received
    torch.save(result, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def divide_lists(rank: int, size: int, folder: str) -> None:
    """One of several processes: builds an index, and saves it with the rows whose list this process
    found and the bytes that it received."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size
    )
    bank, index = bank_with_lists()
    found: list[int] = []
    chunks = index._chunks

    def note(rows: Tensor, doing: str) -> Iterator[Tensor]:
        found.extend(rows.tolist() if doing == "finding lists" else [])
        return chunks(rows, doing)

    index._chunks = note  # type: ignore[method-assign]
    bank.rebuild(index, divide=True)
    torch.save((import_faiss().serialize_index(index.index).tobytes(), found, index.received),
               f"{folder}/{rank}.pt")  # fmt: skip
    torch.distributed.destroy_process_group()


def bank_with_lists() -> tuple[CodeBank, NeighbourIndex]:
    """A bank of 950 written codes, of which 900 are trained on, and an index that takes them
    five hundred at a time."""
    bank = CodeBank(torch.arange(950) % 3, torch.arange(50, 950), 2)
    bank.write(torch.arange(950), bank.codes.clone())
    index = NeighbourIndex(2, k=2, factory="IVF8,Flat", effort=2)
    index.memory = 2 * 128 * 500  # of as many codes of 2 numbers with three answers each
    return bank, index


def costs_of(
    combinations: list[tuple[bool, bool, int]], overrides: list[str]
) -> list[tuple[float, float, float]]:
    """Rate, distortion and the gradient's length, for each (channels_last, compile, bits).

    In a process that pytest did not start: torch cannot trace through the checks of shapes that it
    has around each function.
    """
    found = []
    for last, compiled, bits in combinations:
        data, module = build(compose("digits", [*overrides, f"channels_last={last}"]))
        images = data.test_set.images[:32] / 255
        if compiled:  # the tracing, without the minute in the C++ compiler
            module.compile(backend="aot_eager", options=None, fullgraph=True)
        torch.manual_seed(1)
        code = torch.randn(32, 4)
        with torch.autocast("cpu", torch.bfloat16, enabled=bits == 16):
            rate, distortion, _ = module.step_costs(images, code)
        (rate.mean() + distortion.mean()).backward()
        squares = [(p.grad.double() ** 2).sum() for p in module.parameters() if p.grad is not None]
        length = float(torch.stack(squares).sum()) ** 0.5
        found.append((float(rate.mean()), float(distortion.mean()), length))
    return found


def shape_step(rank: int, size: int, folder: str) -> None:
    """One of several processes: the gradient of a loss over its share of a batch, averaged over all
    of them as DDP does, and the running statistics."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size
    )
    batch = torch.randn(12, 5, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    result = shape_gradient(batch[rank::size])
    for gradient in result[:1]:
        torch.distributed.all_reduce(gradient)
        gradient /= size
    torch.save(result, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def shape_gradient(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(gradient of a linear layer before the shape, running mean, running variance) after a step
    whose loss looks at codes one by one and at the batch's correlations."""
    shape = WhiteShape(3, scale=1.5, decorrelation=2.0).double()
    weight = torch.linspace(-1, 1, 15, dtype=torch.double).view(5, 3).requires_grad_()
    code = shape.of_batch(inputs @ weight)
    target = torch.tensor([1.0, -2.0, 0.5], dtype=torch.double)
    ((code - target).pow(4).sum(1).mean() + shape.penalty(code)).backward()
    assert weight.grad is not None
    return weight.grad, shape.mean, shape.variance


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
