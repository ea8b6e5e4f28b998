"""Shows where a training step spends its time, by part of the model and by operation.

    python -m benchmarks.profile_step [EXPERIMENT] [key=value ...]

Profiles mnist+small, or the experiment, on random images of 28 x 28, with the options that its
config has on this machine. `folder` needs model.encoder.channels and model.decoder.channels, which
a budget chooses otherwise; its images are in colour.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from acn_lightning import objective
from acn_lightning.config.compose import compose
from acn_lightning.experiment.build import build
from acn_lightning.experiment.trainer import make_trainer
from benchmarks.data import images_in, photos_in

STEPS = 10


def main(*words: str) -> None:
    """Prints two tables in percent of a step's time."""
    named = bool(words) and "=" not in words[0]
    experiment, overrides = (words[0], words[1:]) if named else ("mnist+small", words)
    images = photos_in if experiment.partition("+")[0] == "folder" else images_in
    with TemporaryDirectory() as folder:
        config = compose(experiment, [*images(folder, 3000), *overrides])
        data, module = build(config)
        trainer = make_trainer(config, [], [], Path(folder))
    image = data.fixed_set.images[: data.batch_size] / 255
    code = torch.randn(len(image), config["model"]["code_size"])
    optimizer = module.optimizer.make(module.parameters(), fused=True)

    def step() -> None:
        with trainer.precision_plugin.forward_context():
            with record_function("part: encoder"):
                posterior = module(image)
                z = posterior.rsample()
            with record_function("part: prior and rate"):
                rate = objective.rate(posterior, module.prior(code), z).mean()
            with record_function("part: decoder, upsampling of z"):
                likelihood = module.decoder(z)
            with record_function("part: decoder, PixelCNN and likelihood"):
                distortion = objective.distortion(likelihood, image).mean()
        with record_function("part: backward of all"):
            (rate + distortion).backward()
        with record_function("part: Adam"):
            optimizer.step()
            optimizer.zero_grad()

    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(STEPS):
            step()
    events = profiled.key_averages()
    parts = [event for event in events if event.key.startswith("part: ")]
    whole = sum(event.cpu_time_total for event in parts)
    print(f"{whole / STEPS / 1000:.0f} ms a step of {len(image)} images, {trainer.precision}\n")
    show([(event.key.removeprefix("part: "), event.cpu_time_total) for event in parts], whole)
    print()
    operations = [event for event in events if not event.key.startswith("part: ")]
    show([(event.key, event.self_cpu_time_total) for event in operations], whole)


def show(rows: list[tuple[str, Any]], whole: float) -> None:
    """Prints the twelve largest."""
    for name, time in sorted(rows, key=lambda row: -row[1])[:12]:
        print(f"  {name:<50}{100 * time / whole:5.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
