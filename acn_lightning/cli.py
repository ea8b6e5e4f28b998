"""The `acn` command: parses its arguments, runs a command, prints the result.

Heavy imports happen only when needed.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from acn_lightning.commands import all_commands
from acn_lightning.commands._help import (
    describe,
    mistyped,
    names_of_configs,
    nearest_command,
    positional,
    usage,
)
from acn_lightning.utils.docstrings import first_words
from acn_lightning.utils.errors import (
    InterruptionError,
    TrainingError,
    UsageError,
    lacks_memory,
)
from acn_lightning.utils.quiet import quiet_libraries
from acn_lightning.utils.registry import options
from acn_lightning.utils.signals import handling
from acn_lightning.utils.terminal import steady_streams
from acn_lightning.utils.text import printable, words_to_go_on

DESCRIPTION = """\
Associative Compression Networks: representations from a generative model.

Set an experiment's options as key=value. Text is taken as typed; other values are YAML.
`acn COMMAND --help` lists the arguments and options of a command, `acn options` explains the keys,
and `acn show NAME` prints an experiment's values.
"""

EXAMPLES = """\
examples:
  acn fit                                        train on scikit-learn's digits
  acn fit mnist+small data.root=DIR              an ACN for one CPU core
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
    if "_ARGCOMPLETE" in os.environ:  # the shell asks for what may come next
        from acn_lightning.commands._completion import complete

        complete(make_parser())
    steady_streams()
    first = next(iter(sys.argv[1:] if arguments is None else arguments), "-")
    if not first.startswith("-") and first not in all_commands():
        return complain(unknown_command(first))
    parsed, unknown = make_parser().parse_known_args(arguments)
    words = parsed.words + unknown  # --key=value, which gets an error message of its own
    try:
        with signals_end_it(), quiet_libraries():
            print_result(call(parsed.command, words))
            sys.stdout.flush()
        return 0
    except (UsageError, TrainingError) as error:
        return complain(str(error))
    except OSError as error:  # such as an unreadable file or a full disk
        return complain(str(error))
    except (MemoryError, RuntimeError) as error:
        if lacks_memory(error):
            return complain(" ".join(["not enough memory.", *str(error).splitlines()[:1]]))
        if any(words in str(error) for words in ("closed by peer", "reset by peer")):
            return complain("another process of this run has ended: see its own error.")
        raise
    except InterruptionError as stop:
        return interrupted(stop, words)
    except KeyboardInterrupt:
        print("\nacn: interrupted.", file=sys.stderr)
        return 130


def unknown_command(word: str) -> str:
    """The error about a word that is no command."""
    commands = all_commands()
    guess = nearest_command(word, commands)
    named = word or repr(word)
    return f"{named}: there is no such command. Commands are {', '.join(commands)}.{guess}"


@contextmanager
def signals_end_it() -> Iterator[None]:
    """Ends a command at a signal as at Ctrl-C, so that it removes what it has half written.

    Raises:
        InterruptionError: at a signal. Code of others that the signal meets halfway, such as an
            import of torch, may raise another error in its place.
    """
    stops: list[InterruptionError] = []

    def leave(number: int, frame: FrameType | None) -> None:
        stops.append(InterruptionError(None, 128 + number))
        raise KeyboardInterrupt if number == signal.SIGINT else stops[-1]

    with handling(("SIGTERM", "SIGHUP", "SIGINT"), leave):
        try:
            yield
        except Exception as error:
            if stops:
                raise stops[-1] from error
            raise


def complain(error: str) -> int:
    """Prints an error on one line; returns the exit status."""
    print(f"acn: {printable(error)}", file=sys.stderr)
    return 2


def interrupted(stop: InterruptionError, words: Sequence[str]) -> int:
    """Prints how to go on with the same run, on rank 0 only; returns the exit status. A run's
    folder holds its whole config.

    Other ranks have ended well, except to torchrun: it would take a host whose processes all say so
    for one that has completed the run, and not start them again with another host's.
    """
    # A process that has not imported it yet has no ranks; what a signal broke cannot be imported.
    distributed = sys.modules.get("acn_lightning.utils.distributed")
    if distributed and not distributed.is_rank_zero():
        return stop.status if "TORCHELASTIC_RUN_ID" in os.environ else 0
    way_on = ""
    if stop.checkpoint and "resume=auto" in words:
        way_on = " Resume with the same command."
    elif stop.checkpoint:
        run = stop.checkpoint.parents[1]
        way_on = f" Resume with: acn fit {shlex.join(words_to_go_on(run))}"
    print(f"\nacn: interrupted.{printable(way_on)}", file=sys.stderr)
    return stop.status


# ---------------------------------------------------------------- a command's arguments


def call(command: Callable[..., Any], words: Sequence[str]) -> Any:
    """Runs a command with arguments from the command line.

    Raises:
        UsageError: an argument is missing, or an option has a value of the wrong type.
    """
    words = [undashed(command, word) for word in words]
    if error := mistyped(command, [word for word in words if not os.path.exists(word)]):
        raise UsageError(error)
    given, overrides = split(command, words)
    if options(command):
        from acn_lightning.config.compose import own_options

        own, overrides = own_options(command, overrides)
        return command(*given, overrides, **own)
    return command(*given, overrides)


def undashed(command: Callable[..., Any], word: str) -> str:
    """A command's own option in the form of other commands, `--json` or `--sort=cost`, as
    `key=value`. Other words stay."""
    name, equals, value = word.removeprefix("--").partition("=")
    own = options(command)
    if not word.startswith("--") or name not in own or not (equals or own[name][0] is bool):
        return word
    return f"{name}={value if equals else 'true'}"


def split(command: Callable[..., Any], words: Sequence[str]) -> tuple[list[Any], list[str]]:
    """Splits words into (the command's positional arguments, `key=value` overrides).

    Raises:
        UsageError: an argument is missing or empty.
    """
    names = [word for word in words if "=" not in word or os.path.exists(word)]
    overrides = [word for word in words if word not in names]
    given: list[Any] = []
    for parameter in positional(command):
        if parameter.annotation == list[str]:
            taken, names = names, []
        else:
            taken, names = names[:1], names[1:]
        if not taken and parameter.annotation != (str | None):
            what = "experiment, such as digits" if parameter.name == "name" else parameter.name
            raise UsageError(f"say which {what}: acn {command.__name__} {usage(command)}.")
        if "" in taken:  # such as "$UNSET" in a script
            raise UsageError(
                f"{parameter.name}: this word is empty. See acn {command.__name__} --help."
            )
        several = parameter.annotation == list[str]
        given.append(taken if several else next(iter(taken), None))
    return given, [*names, *overrides]  # surplus names are refused later, as not key=value


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


# ---------------------------------------------------------------- the parser


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others are."""

    def format_help(self) -> str:
        """Help on a command comes from its function; other help is argparse's own."""
        command = self.get_default("command")
        if not command:
            return super().format_help()
        name = command.__name__
        head = f"usage: acn {name} {usage(command)}\n\n{first_words(command)}"
        return f"{head}\n\n{describe(command)}\n"

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits with status 2."""
        self.exit(complain(f"{message}. See {self.prog} --help."))


def make_parser() -> argparse.ArgumentParser:
    """The argument parser; building it imports nothing heavy."""
    parser = Parser(
        prog="acn",
        description=DESCRIPTION,
        epilog=f"{names_of_configs()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=installed_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in all_commands().items():
        one = commands.add_parser(name, help=first_words(command).rstrip("."))
        one.set_defaults(command=command)
        one.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    return parser


def installed_version() -> str:
    """The installed version, if any: a checkout also runs without being installed."""
    try:
        return version("acn-lightning")
    except PackageNotFoundError:
        return "not installed"
