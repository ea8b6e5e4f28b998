"""`acn test`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acn_lightning.experiment.results import Outcome


def test(checkpoint: str, overrides: list[str]) -> "Outcome":
    """Evaluate a checkpoint on its test set.

    Args:
        checkpoint: a checkpoint, a run's folder for its best one, or a pack.
        overrides: changes to the checkpoint's config.

    Raises:
        UsageError: the checkpoint cannot be read, the overrides contradict its networks, or its
            networks cannot take the data.
    """
    import time

    from acn_lightning import callbacks as cb
    from acn_lightning.checkpoint import find_model, read_checkpoint
    from acn_lightning.experiment.carried import not_taken
    from acn_lightning.experiment.folder import output_folder, writing
    from acn_lightning.experiment.restore import from_checkpoint
    from acn_lightning.experiment.results import Outcome, evaluate, files_of
    from acn_lightning.experiment.trainer import check_limits, make_trainer

    start = time.perf_counter()
    found = find_model(checkpoint)
    content = read_checkpoint(found)
    config, data, module = from_checkpoint(content, overrides, bank=False)
    folder = output_folder("test", found, config)
    measure = cb.MeasureTest(**config["evaluation"])
    stop = cb.StopOnSignal(None)
    callbacks = [
        cb.SeedEpochs(config["seed"]),
        cb.RefreshNeighbours(),
        measure,
        cb.DrawPictures(folder / "images", **config["pictures"]),
        stop,
    ]
    trainer = make_trainer(config, callbacks, [], folder)
    check_limits(trainer, data)
    with writing(folder, config), stop.listening():
        known = {"checkpoint": str(found)}
        results = evaluate(trainer, module, data, measure, start, known, folder)
    hints = not_taken(content, config, overrides, "evaluation.")
    return Outcome(results, files_of(folder), hints=tuple(hints))
