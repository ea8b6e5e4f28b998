"""What no class tells about the keys of a config."""

import dataclasses
from typing import Literal, NamedTuple

from acn_lightning.utils.registry import Option


class Described(NamedTuple):
    """A section, or a class that a section can choose.

    Attributes:
        text: what it is.
        options: its own keys.
    """

    text: str
    options: dict[str, Option]


RUN = {
    "experiment": Option(str, dataclasses.MISSING, "name of the experiment: acn fit NAME sets it."),
    "seed": Option(int, 0, "of weights, order, draws: all that is random."),
    "logger": Option(
        str, "csv", '"csv", "wandb" or "tensorboard"; `metrics.csv` is always written.'
    ),
    "run": Option(str | None, None, "name of the run's folder; null for the time and a short id."),
    "resume": Option(
        str | None, None,
        "a checkpoint to go on from; `auto` for the newest of the run's own folder.",
    ),
    "compile": Option(
        bool | Literal["auto"], False,
        "`torch.compile` of a training step's costs; `auto` where the run is long enough for it to "
        "pay, by timing steps.",
    ),
    "channels_last": Option(
        bool | Literal["auto"], True,
        "memory format of the networks; `auto` for the faster one, by timing steps.",
    ),
}  # fmt: skip
"""Keys outside all sections."""

CODE_SIZE = Option(int, 16, "numbers in a code, D.")
"""`model.code_size`: the framework passes it to each network."""

KINDS = {
    "data": Option(str, "digits"),
    "model.encoder": Option(str, "conv", "the network that maps an image to a code."),
    "model.shape": Option(str, "white", "constraint on the overall distribution of codes."),
    "model.prior": Option(str, "mixture", "what a neighbour's code tells about a code."),
    "model.decoder": Option(str, "conv", "the network that describes an image, given a code."),
    "model.likelihood": Option(str, "bernoulli", "the distribution of a pixel."),
    "optimizer": Option(
        str, "adam", '"adam", "adamw" or "sgd"; or package.module:Name of a torch.optim.Optimizer.'
    ),
    "schedule": Option(str, "constant", "how the learning rate changes along a run."),
}
"""Sections that choose a class by a word, and the key `kind` of each; for data it is `source`,
which `ImageData` describes itself."""

LEARNING_RATE = Option(float, 1e-3, "at the start.")
"""`optimizer.learning_rate`: PyTorch's `lr`."""

WANDB = Described(
    "Settings for Weights & Biases, used with `logger=wandb`.",
    {
        "project": Option(
            str | None, None,
            'as in `wandb.init`; null takes WANDB_PROJECT, or "acn_lightning".',
        ),
        "entity": Option(str | None, None, "as in `wandb.init`."),
        "group": Option(str | None, None, "as in `wandb.init`."),
        "name": Option(
            str | None, None,
            "as in `wandb.init`; null takes WANDB_NAME, or the name of the run's folder.",
        ),
        "tags": Option(list[str], [], "as in `wandb.init`; without any, those of WANDB_TAGS."),
        "mode": Option(
            str | None, None,
            '"online", "offline" or "disabled"; null takes WANDB_MODE from the environment, or, if '
            'that is unset, "offline" ("online" in a sweep).',
        ),
    },
)  # fmt: skip
"""The section `wandb`."""

TRAINER_DEFAULTS = {"max_epochs": 10, "default_root_dir": "runs", "devices": 1}
"""Defaults that differ from Lightning's. (It would take all GPUs of the machine.)"""

TRAINER_OURS = ("callbacks", "logger", "plugins")
"""Arguments of the Trainer that the framework sets."""

PACKAGES = ("lightning", "torch")
"""Whose own arguments are keys: of the Trainer and of optimisers."""

USUAL = {
    "optimizer.learning_rate": ("lr", "base_lr"),
    "optimizer.weight_decay": ("wd", "l2"),
    "optimizer.kind": ("optim", "optimizer_name"),
    "schedule.kind": ("scheduler", "lr_scheduler", "lr_schedule"),
    "schedule.warmup_steps": ("warmup", "warmup_iters"),
    "trainer.max_epochs": ("epoch", "epochs", "n_epochs", "num_epochs", "train_epochs"),
    "trainer.max_steps": ("steps", "n_steps", "num_steps", "iters", "iterations", "max_iters"),
    "trainer.devices": ("gpu", "gpus", "n_gpus", "num_gpus", "num_devices"),
    "trainer.accelerator": ("device", "cuda"),
    "trainer.precision": ("amp", "fp16", "bf16", "dtype"),
    "trainer.gradient_clip_val": ("clip", "grad_clip", "clip_grad", "max_grad_norm"),
    "trainer.accumulate_grad_batches": ("grad_accum", "gradient_accumulation_steps"),
    "trainer.default_root_dir": ("log_dir", "logdir", "out_dir", "output_dir", "save_dir"),
    "data.batch_size": ("bs", "batch", "batchsize", "train_batch_size"),
    "data.root": ("data_dir", "data_path", "dataset_path", "folder"),
    "data.source": ("dataset", "data_set", "dataset_name"),
    "data.validation": ("val_split", "val_size", "validation_split", "val_fraction"),
    "data.image_size": ("img_size", "imgsz", "resolution"),
    "model.code_size": ("latent", "latent_dim", "latent_size", "latents", "z_dim", "zdim",
                        "n_latents", "code_dim", "embedding_dim", "embed_dim"),
    "model.rate_weight": ("beta", "kl_weight"),
    "average.decay": ("ema", "ema_decay"),
    "neighbours.k": ("neighbors", "n_neighbors", "knn"),
    "resume": ("checkpoint", "ckpt", "ckpt_path", "resume_from", "resume_from_checkpoint"),
    "seed": ("random_seed", "manual_seed", "random_state"),
}  # fmt: skip
"""What other programs call a key."""

ANYWHERE = ("", "trainer", "optimizer", "schedule", "data", "model")
"""Sections, "" for none, in which such a name is looked for."""


def usual_key(name: str) -> str | None:
    """The key that a name of other programs stands for, in whatever section; None if none does.

    Example:
        >>> usual_key("trainer.epochs"), usual_key("lr"), usual_key("callbacks.mine.lr")
        ('trainer.max_epochs', 'optimizer.learning_rate', None)
    """
    section, _, last = name.rpartition(".")
    if section not in ANYWHERE:
        return None
    return next((key for key, names in USUAL.items() if last in names), None)


def kind_key(section: str) -> str:
    """The key that chooses the class of a section."""
    return "data.source" if section == "data" else f"{section}.kind"
