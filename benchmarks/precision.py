"""Times the precision that a run chooses, against the better of the two that it can choose from."""

from tempfile import TemporaryDirectory

from acn_lightning.config.compose import compose
from acn_lightning.experiment.build import build_for, read_data
from acn_lightning.experiment.quickest import Way, timings, with_quickest
from acn_lightning.experiment.trainer import quiet_trainer
from benchmarks.data import images_in
from benchmarks.measure import Figure
from benchmarks.training import quieten

PRECISIONS = ("32-true", "bf16-mixed")


@quieten()
def precision(rounds: int = 3) -> Figure:
    """Compares a step of mnist+small in the precision that `trainer.precision=auto` takes on this
    machine with one in the better of 32-true and bf16-mixed, both measured here whether the machine
    multiplies 16 bits or emulates them.

    Args:
        rounds: how often to choose, and to time both; the figures are of the worst round.
    """
    figures = []
    with TemporaryDirectory() as folder:
        words = [*images_in(folder, 3000), "trainer.precision=auto"]
        config = compose("mnist+small", words)
        data = read_data(config)
        for _ in range(rounds):
            chosen, _found = with_quickest(config, data)
            module = build_for(data, chosen).to(quiet_trainer(chosen).strategy.root_device)
            last = bool(chosen["channels_last"])
            both = [Way(one, last) for one in PRECISIONS]
            seconds = timings(data, module, both).seconds
            taken = Way(chosen["trainer"]["precision"], last)
            each = {way.precision: one for way, one in seconds.items()}
            note = ", ".join(f"{name} {1000 * one:.1f} ms" for name, one in each.items())
            best = min(seconds.values())
            note = f"{taken.precision}; {note}"
            figures.append(Figure(seconds[taken], best, "<= 1.05", note, {"seconds": each}))
    return max(figures, key=lambda figure: figure.ratio)
