"""The `acn` command: parse, hand over, say what came of it. Heavy imports wait for their turn."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acn_lightning.utils.errors import InterruptionError, TrainingError, UsageError

if TYPE_CHECKING:
    from acn_lightning.experiment.run import Outcome

DESCRIPTION = """\
Associative Compression Networks: representations from a generative model.

Options of an experiment are set as key=value, the value in YAML. `acn show NAME` lists the keys;
those under trainer are the arguments of Lightning's Trainer, by their own names.
"""

EXAMPLES = """\
examples:
  acn fit                                        train on scikit-learn's digits
  acn fit mnist+small data.root=DIR              an ACN for two CPU cores
  acn fit mnist+small+vae trainer.max_epochs=3   a plain VAE
  acn fit resume=runs/mnist/RUN/checkpoints/last.ckpt trainer.max_epochs=60
  acn finetune runs/mnist/RUN/checkpoints/best.ckpt folder data.root=DIR freeze=[encoder]
  acn test runs/mnist/RUN/checkpoints/best.ckpt
  acn sample runs/mnist/RUN/checkpoints/best.ckpt kind=daydream
  acn neighbours runs/mnist/RUN/checkpoints/best.ckpt photo.png k=8
  acn explore runs/mnist/RUN/checkpoints/best.ckpt out=codes.html
  acn export runs/mnist/RUN/checkpoints/best.ckpt out=codes
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0; 2 with one line on wrong input or a run that
    failed; 130 or 143 when Ctrl-C or SIGTERM ended it."""
    parsed, unknown = make_parser().parse_known_args(arguments)
    parsed.overrides += unknown  # --key=value: to be told apart from key=value by its own line
    try:
        status: int = parsed.run(parsed)
        return status
    except (UsageError, TrainingError) as error:
        print(f"acn: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a file that may not be read, a full disk
        print(f"acn: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if any(words in str(error) for words in ("allocate memory", "out of memory")):
            print(f"acn: not enough memory. {str(error).splitlines()[0]}", file=sys.stderr)
        elif any(words in str(error) for words in ("closed by peer", "reset by peer")):
            print("acn: another process of this run has ended: see its own error.", file=sys.stderr)
        else:
            raise
        return 2
    except InterruptionError as stop:
        from acn_lightning.experiment.folder import first

        if not first():  # which speaks for all
            return 0
        command = f": acn fit resume={stop.checkpoint}"
        command = " the same command." if "resume=auto" in parsed.overrides else command
        way_on = f" Go on with{command}" if stop.checkpoint else ""
        print(f"\nacn: interrupted.{way_on}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("\nacn: interrupted.", file=sys.stderr)
        return 130


def make_parser() -> argparse.ArgumentParser:
    """The command line; nothing heavy is imported for it."""
    conf = Path(__file__).parent / "conf"
    names, layers = (
        ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        for folder in (conf, conf / "layers")
    )
    more = f"with +NAME, {layers} or a YAML file on top"
    parser = argparse.ArgumentParser(
        prog="acn",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=installed_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, first, help in [
        ("fit", run_fit, "NAME", f"train an experiment: {names}, or a YAML file; {more}"),
        (
            "finetune",
            run_finetune,
            "CHECKPOINT",
            "train experiment NAME from a checkpoint's weights",
        ),
        ("test", run_test, "CHECKPOINT", "evaluate a checkpoint on its test set"),
        ("sample", run_sample, "CHECKPOINT", "draw a grid of images with a checkpoint"),
        (
            "neighbours",
            run_neighbours,
            "CHECKPOINT",
            "find the training images most like some image files",
        ),
        (
            "export",
            run_export,
            "CHECKPOINT",
            "write codes, neighbours and a map, of the training data, an experiment or a folder",
        ),
        (
            "explore",
            run_explore,
            "CHECKPOINT",
            "write an HTML file to look at the codes of these with",
        ),
        ("onnx", run_onnx, "CHECKPOINT", "write the encoder as an ONNX file"),
        ("show", run_show, "NAME", "print the whole config of an experiment"),
    ]:
        command = commands.add_parser(name, help=help, description=f"{help}.")
        command.set_defaults(run=run)
        command.add_argument("first", nargs="?", metavar=first)
        command.add_argument("overrides", nargs="*", metavar="key=value")
    return parser


def installed_version() -> str:
    """As pip knows it; a checkout also runs without being installed."""
    try:
        return version("acn-lightning")
    except PackageNotFoundError:
        return "not installed"


def run_fit(parsed: argparse.Namespace) -> int:
    """`acn fit [NAME|FILE.yaml] [key=value ...]`."""
    experiment, overrides = split(parsed)
    return tell(quietly("experiment.run").fit(experiment, overrides))


def run_finetune(parsed: argparse.Namespace) -> int:
    """`acn finetune CHECKPOINT NAME [key=value ...]`."""
    checkpoint, name = parsed.first, next(iter(parsed.overrides), "")
    if checkpoint is None or not name or ("=" in name and not Path(name).exists()):
        raise UsageError("say which checkpoint and what for: acn finetune CHECKPOINT NAME.")
    return tell(quietly("experiment.run").finetune(checkpoint, name, parsed.overrides[1:]))


def run_test(parsed: argparse.Namespace) -> int:
    """`acn test CHECKPOINT [key=value ...]`."""
    checkpoint, overrides = of_checkpoint(parsed, "test")
    return tell(quietly("experiment.run").test(checkpoint, overrides))


def run_sample(parsed: argparse.Namespace) -> int:
    """`acn sample CHECKPOINT [kind=...] [key=value ...]`."""
    checkpoint, overrides = of_checkpoint(parsed, "sample")
    return tell_files([quietly("experiment.run").sample(checkpoint, overrides)])


def run_neighbours(parsed: argparse.Namespace) -> int:
    """`acn neighbours CHECKPOINT IMAGE... [key=value ...]`."""
    checkpoint, words = of_checkpoint(parsed, "neighbours", " IMAGE")
    images = [word for word in words if "=" not in word or Path(word).exists()]
    if not images:
        raise UsageError("say which images: acn neighbours CHECKPOINT IMAGE.")
    words = [word for word in words if word not in images]
    command, overrides = with_options("neighbours", words)
    return tell_files(command(checkpoint, images, overrides))


def run_export(parsed: argparse.Namespace) -> int:
    """`acn export CHECKPOINT [NAME|DIR] [key=value ...]`."""
    checkpoint, words = of_checkpoint(parsed, "export")
    where, words = behind(words)
    command, overrides = with_options("export", words)
    return tell_files(command(checkpoint, where, overrides))


def run_explore(parsed: argparse.Namespace) -> int:
    """`acn explore CHECKPOINT [NAME|DIR] [key=value ...]`."""
    checkpoint, words = of_checkpoint(parsed, "explore")
    where, words = behind(words)
    command, overrides = with_options("explore", words)
    return tell_files([command(checkpoint, where, overrides)])


def run_onnx(parsed: argparse.Namespace) -> int:
    """`acn onnx CHECKPOINT [out=FILE] [key=value ...]`."""
    checkpoint, words = of_checkpoint(parsed, "onnx")
    command, overrides = with_options("onnx", words)
    path, difference = command(checkpoint, overrides)
    print(f"{path}: codes are PyTorch's within {difference:.1g}")
    return 0


def run_show(parsed: argparse.Namespace) -> int:
    """`acn show NAME [key=value ...]`."""
    experiment, overrides = split(parsed)
    from acn_lightning.config.compose import compose, to_yaml

    print(to_yaml(compose(experiment or "digits", overrides)), end="")
    return 0


def quietly(name: str) -> Any:
    """A module of this package, imported when a command takes it; what a user can do nothing about
    does not reach the terminal."""
    from acn_lightning.commands.report import hush

    hush()
    return import_module(f"acn_lightning.{name}")


def with_options(name: str, words: Sequence[str]) -> tuple[Callable[..., Any], list[str]]:
    """(a command of `use` with its own options set, the words that are none of these)."""
    command = getattr(quietly("commands.use"), name)
    from acn_lightning.config.compose import own_options

    own, overrides = own_options(command, words)
    return partial(command, **own), overrides


def of_checkpoint(
    parsed: argparse.Namespace, command: str, more: str = ""
) -> tuple[str, list[str]]:
    """(the checkpoint, the words behind it).

    Raises:
        UsageError: none is named.
    """
    checkpoint, words = split(parsed)
    if checkpoint is None:
        raise UsageError(f"say which checkpoint: acn {command} CHECKPOINT{more}.")
    return checkpoint, words


def behind(words: list[str]) -> tuple[str | None, list[str]]:
    """(what is named behind the checkpoint, the overrides)."""
    if words and ("=" not in words[0] or Path(words[0]).exists()):
        return words[0], words[1:]
    return None, words


def tell_files(files: Iterable[Path]) -> int:
    """Prints what was written."""
    print(*files, sep="\n")
    return 0


def tell(outcome: "Outcome") -> int:
    """Prints what came of a run, once for all its processes."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from acn_lightning.commands.report import table

    rank_zero_only(print)(f"\n{table(outcome)}")
    return 0


def split(parsed: argparse.Namespace) -> tuple[str | None, list[str]]:
    """(what the command is about, the overrides): the first word may be an override already."""
    first: str | None = parsed.first
    if first is not None and "=" in first and not Path(first).exists():
        return None, [first, *parsed.overrides]
    return first, parsed.overrides
