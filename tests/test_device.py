"""What a training step may not do on a GPU, seen without one.

A read of a value that is on the device (`.item()`, `.cpu()`, `nonzero`, a mask as an index, an `if`
on a tensor) makes the host wait until the device has done all that it was told. On the `meta`
device, whose tensors have no values, each of these raises an error, and so does a tensor that was
left on the host.
"""

from contextlib import nullcontext

import pytest
import torch
from lightning import Callback
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from acn_lightning.callbacks import RefreshNeighbours, SeedEpochs, StopOnNonFiniteLoss
from acn_lightning.config.compose import compose
from acn_lightning.data import Batch
from acn_lightning.evaluation.diagnostics import code_stats, neighbour_stats
from acn_lightning.evaluation.tours import greedy_tour
from acn_lightning.experiment.build import build
from acn_lightning.retrieval.index import NeighbourIndex
from tests.conftest import QUICK, bank_of
from tests.test_module import digits, trainer

PIXELCNN = ("model.decoder.kind=pixelcnn", "model.decoder.layers=2")
MODELS = {
    "acn": (),
    "pixelcnn": PIXELCNN,
    "sphere": ("model.shape.kind=sphere", "model.free_nats=1"),
    "free": ("model.shape.kind=free", "data.augment=none"),
    "logistic": (*PIXELCNN, "model.likelihood.kind=logistic_mixture"),
    "categorical": ("model.likelihood.kind=categorical",),
    "dynamic": ("data.binarisation=dynamic", "model.likelihood.kind=bernoulli"),
}


class WaitError(RuntimeError):
    """The host would wait for the device."""


class NoWaiting(TorchDispatchMode):
    """Raises `WaitError` at operations whose result the host reads, or has to know the size of."""

    OPERATIONS = frozenset(
        {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal",
         "is_nonzero", "bincount"}
    )  # fmt: skip

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        if mask or name in self.OPERATIONS:
            raise WaitError(name)
        return func(*args, **(kwargs or {}))


class WatchSteps(Callback):
    """Puts `NoWaiting` around each training step, its logging included."""

    def __init__(self):
        self.steps = 0

    def on_fit_start(self, trainer, pl_module):
        step = pl_module.training_step

        def watched(batch, batch_idx):
            self.steps += 1
            with NoWaiting():
                return step(batch, batch_idx)

        pl_module.training_step = watched


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.sum().item(),
        lambda t: t.sum().cpu(),
        lambda t: t.nonzero(),
        lambda t: t[t > 0],
        lambda t: bool(t.sum() > 0),
        lambda t: t.unique(),
        lambda t: t.tolist(),
        lambda t: t + torch.ones(3),
    ],
)
def test_the_meta_device_objects_to_each_kind_of_read(read):
    with pytest.raises((RuntimeError, NotImplementedError)):
        read(torch.ones(3, device="meta"))


@pytest.mark.parametrize("overrides", MODELS.values(), ids=MODELS)
def test_a_training_step_reads_nothing_from_its_device(overrides, monkeypatch):
    data, module = build(compose("digits", [*QUICK, *overrides]))
    for name in ("log", "log_dict"):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    # There is no autocast for this device; it would only choose other types of number.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    bank = module.bank
    bank.neighbours = torch.zeros(len(bank.codes), 5, dtype=torch.int32)
    module.to("meta")
    bank.to(torch.device("meta"))
    optimizer = torch.optim.Adam(module.parameters())
    finite = StopOnNonFiniteLoss()
    finite.first_bad = finite.first_bad.to("meta")
    stored = data.train_set.__getitems__(range(8))
    for _ in range(2):
        batch = Batch(*(part.to("meta") for part in stored[:3]))
        batch = data.on_after_batch_transfer(batch, 0)
        loss = module.training_step(batch, 0)
        assert loss.device.type == "meta"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        finite._note(loss, trainer())


def test_a_training_step_within_a_run_reads_nothing_its_logging_included():
    data, module = digits(*PIXELCNN)
    watch = WatchSteps()
    run = trainer(SeedEpochs(0), RefreshNeighbours(), watch, max_epochs=1)
    run.fit(module, datamodule=data)
    assert watch.steps == 21
    assert run.callback_metrics["train/total"] > 0


@pytest.mark.parametrize("slip", ["item", "mask"])
def test_a_slip_would_be_seen(slip, monkeypatch):
    data, module = digits()
    draw = module.bank.draw

    def slipped(index):
        codes = draw(index)
        return codes * codes.sum().item() if slip == "item" else codes[(codes > -9e9).all(1)]

    monkeypatch.setattr(module.bank, "draw", slipped)
    with pytest.raises(WaitError):
        trainer(RefreshNeighbours(), WatchSteps(), max_epochs=1).fit(module, datamodule=data)


class OnApple(TorchFunctionMode):
    """Refuses numbers of 64 bits, which Apple's GPUs do not have, to all but copies on the host."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.double and not getattr(args[0], "on_host", False):
            raise TypeError("MPS has no float64")
        found = func(*args, **(kwargs or {}))
        if func is torch.Tensor.cpu:
            found = found.view_as(found)
            found.on_host = True
        return found


def test_what_is_measured_of_codes_needs_no_numbers_of_64_bits_on_the_gpu():
    bank = bank_of(size=30)
    index = NeighbourIndex(3, k=4, factory="IVF4,Flat", effort=1)
    rows = torch.arange(30)
    with OnApple():
        index.build(bank.codes, rows)
        assert 0 < index.tune() <= 1
        bank.neighbours = index.search(bank.codes, exclude=rows)
        stats = neighbour_stats(bank, rows, bank.neighbours)
        assert stats["bank/neighbours_changed"] == 0
        assert stats["bank/neighbour_agreement"] > 0
        assert code_stats(bank.codes)["codes/effective_dimensions"] > 0
        assert sorted(greedy_tour(bank.codes).tolist()) == rows.tolist()
