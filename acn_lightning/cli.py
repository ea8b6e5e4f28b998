"""The `acn` command: parses its arguments, runs a command, prints the result.

Heavy imports happen only when needed.
"""

import argparse
import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

from acn_lightning.commands import all_commands
from acn_lightning.utils.errors import InterruptionError, TrainingError, UsageError
from acn_lightning.utils.signals import handling
from acn_lightning.utils.terminal import steady_streams
from acn_lightning.utils.text import printable

DESCRIPTION = """\
Associative Compression Networks: representations from a generative model.

Set an experiment's options as key=value. Text is taken as typed; other values are YAML. `acn show
NAME` lists the keys; those under trainer are the arguments of Lightning's Trainer, by the same
names.
`acn COMMAND --help` lists the arguments and options of a command.
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
    """Runs a command and returns its exit status: 0 on success; 2, with one line, on wrong input or
    a failed run; 128 + the signal's number when interrupted (130 for Ctrl-C, 143 for SIGTERM)."""
    steady_streams()
    parsed, unknown = make_parser().parse_known_args(arguments)
    words = parsed.words + unknown  # --key=value, which gets an error message of its own
    try:
        with handling(("SIGTERM", "SIGHUP"), leave):
            print_result(call(parsed.command, words))
            sys.stdout.flush()
        return 0
    except (UsageError, TrainingError) as error:
        return complain(str(error))
    except OSError as error:  # such as an unreadable file or a full disk
        return complain(str(error))
    except MemoryError:
        return complain("not enough memory.")
    except RuntimeError as error:
        if any(words in str(error) for words in ("allocate memory", "out of memory")):
            return complain(f"not enough memory. {str(error).splitlines()[0]}")
        if any(words in str(error) for words in ("closed by peer", "reset by peer")):
            return complain("another process of this run has ended: see its own error.")
        raise
    except InterruptionError as stop:
        return interrupted(stop, words)
    except KeyboardInterrupt:
        print("\nacn: interrupted.", file=sys.stderr)
        return 130


def leave(number: int, frame: FrameType | None) -> None:
    """Ends a command at a signal as at Ctrl-C, so that it removes what it has half written.

    Raises:
        InterruptionError: always.
    """
    raise InterruptionError(None, 128 + number)


def complain(error: str) -> int:
    """Prints an error on one line; returns the exit status."""
    print(f"acn: {printable(error)}", file=sys.stderr)
    return 2


def interrupted(stop: InterruptionError, words: Sequence[str]) -> int:
    """Prints how to go on with the same run, on rank 0 only; returns the exit status. A run's
    folder holds its whole config."""
    from acn_lightning.experiment.folder import is_rank_zero

    if not is_rank_zero():
        return 0
    way_on = ""
    if stop.checkpoint and "resume=auto" in words:
        way_on = " Resume with the same command."
    elif stop.checkpoint:
        run = stop.checkpoint.parents[1]
        same = [str(run / "config.yaml"), f"run={run.name}", "resume=auto"]
        way_on = f" Resume with: acn fit {shlex.join(same)}"
    print(f"\nacn: interrupted.{printable(way_on)}", file=sys.stderr)
    return stop.status


# ---------------------------------------------------------------- a command's arguments


def call(command: Callable[..., Any], words: Sequence[str]) -> Any:
    """Runs a command with arguments from the command line.

    Raises:
        UsageError: an argument is missing, or an option has a value of the wrong type.
    """
    arguments, overrides = split(command, words)
    from acn_lightning.commands._report import quiet_libraries  # imports torch

    quiet_libraries()
    if options_of(command):
        from acn_lightning.config.compose import own_options

        own, overrides = own_options(command, overrides)
        return command(*arguments, overrides, **own)
    return command(*arguments, overrides)


def split(command: Callable[..., Any], words: Sequence[str]) -> tuple[list[Any], list[str]]:
    """Splits words into (the command's positional arguments, `key=value` overrides).

    Raises:
        UsageError: an argument is missing.
    """
    names = [word for word in words if "=" not in word or os.path.exists(word)]
    overrides = [word for word in words if word not in names]
    arguments: list[Any] = []
    for parameter in positional(command):
        if parameter.annotation == list[str]:
            taken, names = names, []
        else:
            taken, names = names[:1], names[1:]
        if not taken and parameter.annotation != (str | None):
            raise UsageError(
                f"say which {parameter.name}: acn {command.__name__} {usage(command)}."
            )
        several = parameter.annotation == list[str]
        arguments.append(taken if several else next(iter(taken), None))
    return arguments, [*names, *overrides]  # surplus names are refused later, as not key=value


def positional(command: Callable[..., Any]) -> list[inspect.Parameter]:
    """A command's positional parameters, without the overrides."""
    return [
        parameter
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "overrides"
    ]


def options_of(command: Callable[..., Any]) -> list[inspect.Parameter]:
    """A command's own options: its keyword-only parameters."""
    parameters = inspect.signature(command).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def print_result(result: Any) -> None:
    """Prints what a command returned: text, file paths, or the outcome of a run."""
    if isinstance(result, str):
        print("\n".join(map(printable, result.split("\n"))))
    elif isinstance(result, Path | list):
        print(*map(printable, result if isinstance(result, list) else [result]), sep="\n")
    else:
        from lightning.pytorch.utilities.rank_zero import rank_zero_only

        from acn_lightning.commands._report import results_table

        rank_zero_only(print)(f"\n{results_table(result)}")


# ---------------------------------------------------------------- help


def make_parser() -> argparse.ArgumentParser:
    """The argument parser; building it imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="acn",
        description=DESCRIPTION,
        epilog=f"{names_of_configs()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=installed_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in all_commands().items():
        first = (inspect.getdoc(command) or "").splitlines()[0]
        one = commands.add_parser(
            name,
            help=first.rstrip("."),
            usage=f"acn {name} {usage(command)}",
            description=first,
            epilog=describe(command),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.set_defaults(command=command)
        one.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    return parser


def usage(command: Callable[..., Any]) -> str:
    """The usage, such as `CHECKPOINT IMAGE ... [key=value ...]`."""
    words = []
    for parameter in positional(command):
        word = parameter.name.upper()
        word += " ..." if parameter.annotation == list[str] else ""
        words.append(f"[{word}]" if parameter.annotation == (str | None) else word)
    return " ".join([*words, "[key=value ...]"])


def describe(command: Callable[..., Any]) -> str:
    """Help on a command's arguments and options: defaults, and texts from the docstring."""
    said = docstring_arguments(inspect.getdoc(command) or "")
    rows = [(one.name.upper(), said.get(one.name, "")) for one in positional(command)]
    rows += [
        (f"{option.name}={yaml(option.default)}", said.get(option.name, ""))
        for option in options_of(command)
    ]
    rows.append(("key=value", said.get("overrides", "")))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows)


def docstring_arguments(docstring: str) -> dict[str, str]:
    """The text for each name in a docstring's Args (or a dataclass's Attributes) section."""
    found = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", docstring, re.M)
    said: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", found[1].rstrip()) if found else []:
        names, _, text = entry.strip().partition(": ")
        said |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return said


def yaml(value: Any) -> str:
    """A default value as a user would write it in YAML."""
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


def names_of_configs() -> str:
    """Help on the experiments and layers that come with the package."""
    conf = Path(__file__).parent / "conf"

    def stems(paths: Iterable[Path]) -> str:
        return ", ".join(sorted(path.stem for path in paths))

    return (
        f"experiments (NAME): {stems(conf.glob('*.yaml'))}, or a YAML file\n"
        f"layers on top (NAME+LAYER): {stems((conf / 'layers').glob('*.yaml'))}, or a YAML file"
    )


def installed_version() -> str:
    """The installed version, if any: a checkout also runs without being installed."""
    try:
        return version("acn-lightning")
    except PackageNotFoundError:
        return "not installed"
