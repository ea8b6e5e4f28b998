"""What makes a run quicker changes its costs by rounding only, alone and together; checkpoints do
not care."""

import copy
import csv

import pytest
import torch

from acn_lightning.config.compose import compose
from acn_lightning.experiment import trainer as run
from acn_lightning.experiment.build import build
from acn_lightning.optimization import OptimizerFactory
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK
from tests.processes import Run, call, costs_of

COMBINATIONS = [  # channels_last, compile, bits: none of them, each alone, all together
    (False, False, 32),
    (True, False, 32),
    (False, True, 32),
    (False, False, 16),
    (True, True, 16),
]


def test_each_alone_and_all_together_change_costs_and_gradients_by_rounding():
    pixelcnn = ("model.decoder.kind=pixelcnn", "model.decoder.layers=2", "model.prior.mixtures=3")
    ((plain, *others),) = call(costs_of, (COMBINATIONS, [*QUICK, *pixelcnn]))
    for combination, found in zip(COMBINATIONS[1:], others, strict=True):
        bits = combination[2]
        close = pytest.approx(plain, rel=1e-4 if bits == 32 else 1e-2)
        assert found == close, combination
        if bits == 16:
            assert found != pytest.approx(plain, rel=1e-7)  # it was not left out


def test_a_compiled_run_and_its_checkpoint(acn, tmp_path):
    """The whole way, C++ compiler included, in the order: compiled, tested and resumed without."""
    # The fewest networks that make a run: each costs the C++ compiler some seconds.
    fewest = [option for option in QUICK if "encoder" not in option and "prior" not in option]
    short = (*fewest, "model.encoder.kind=none", "model.prior.kind=standard_normal",
             "data.batch_size=647", "evaluation.linear=none",
             "trainer.limit_test_batches=1")  # fmt: skip
    quicker = ("compile=true", "channels_last=true", "trainer.precision=bf16-mixed")

    fit = ("fit", "digits", *short, "trainer.max_epochs=1")
    assert acn(*fit, "experiment=plain")[0] == 0
    status, said = Run(*fit, "experiment=quick", *quicker, folder=tmp_path).ended()
    assert status == 0, said
    plain, quick = (next((tmp_path / "runs" / name).iterdir()) for name in ("plain", "quick"))
    costs = [first_epoch(folder) for folder in (plain, quick)]
    assert costs[1] == pytest.approx(costs[0], rel=1e-2)
    names = [set(torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
             for folder in (plain, quick)]  # fmt: skip
    assert names[0] == names[1]
    last = quick / "checkpoints" / "last.ckpt"
    back = ("compile=false", "channels_last=false", "trainer.precision=32-true")
    status, _, err = acn("fit", f"resume={last}", *back, "trainer.max_epochs=2")
    assert status == 0, err


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("before", [torch.channels_last, torch.contiguous_format])
def test_a_step_after_the_memory_format_has_changed_equals_one_after_it_has_not(kind, before):
    factory = OptimizerFactory(kind=kind, **({"momentum": 0.9} if kind == "sgd" else {}))
    gradients = torch.randn(4, 6, 5, 3, 3, generator=torch.Generator().manual_seed(0))

    def trained(memory_format, state=None, steps=gradients):
        weight = torch.nn.Parameter(torch.ones(6, 5, 3, 3).to(memory_format=memory_format))
        optimizer = factory.make([weight], fused=True)
        if state:
            optimizer.load_state_dict(state)
        for gradient in steps:
            weight.grad = gradient.to(memory_format=memory_format)
            optimizer.step()
        return weight.detach(), optimizer.state_dict()

    _, state = trained(before)
    formats = torch.channels_last, torch.contiguous_format
    one, other = (trained(after, copy.deepcopy(state), gradients[:1])[0] for after in formats)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def first_epoch(folder):
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        name: float(next(row[name] for row in rows if row[name]))
        for name in ("train/distortion", "train/total", "val/distortion", "val/total")
    }


def test_no_compiler_is_said_before_the_first_step(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"compile: .*C\+\+ compiler.*Install g\+\+"):
        build(compose("digits", [*QUICK, "compile=true"]))


@pytest.mark.parametrize(
    ("instructions", "precision"),
    [({}, "32-true"), ({"avx512_bf16": False, "amx_bf16": True}, "bf16-mixed"),
     ({"avx512_bf16": False, "avx512_f": True}, "32-true")],
)  # fmt: skip
def test_precision_by_what_the_cpu_multiplies(monkeypatch, instructions, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    assert run.quickest_precision("cpu") == precision
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # a torch that has none yet
    assert run.quickest_precision("cpu") == "32-true"


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_precision_by_what_the_gpu_multiplies(monkeypatch, native, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert run.quickest_precision("auto") == precision
    assert run.quickest_precision("cpu") != "16-mixed"


def test_auto_becomes_a_precision_of_lightnings(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "quickest_precision", lambda accelerator: "bf16-mixed")
    config = compose("mnist", ["data.root=nowhere"])
    assert config["trainer"]["precision"] == "auto"
    assert run.make_trainer(config, [], [], tmp_path).precision == "bf16-mixed"
