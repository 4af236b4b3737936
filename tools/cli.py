"""``vertebra COMMAND ...``: the tools by name, and the one place where an error becomes a line and an exit code."""

import argparse
import contextlib
import importlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vertebra.structures import MemoryFullError, UsageError, VertebraError, is_out_of_memory, suggest

COMMANDS = {
    "train": "train, evaluate and draw predictions from a config",
    "eval": "score a trained run, or results in a file",
    "describe": "say what a trained model is and began with",
    "predict": "draw what a trained model finds in images",
    "list": "list backbones, necks, heads or configs",
    "make-shapes": "write the generated data set",
    "export-backbone": "write a trained run's backbone as weights to start from",
    "benchmark": "time a model against torchvision's",
    "benchmark-data": "time reading and transforming against torchvision's and albumentations'",
    "benchmark-training": "time a config's training step in other numbers, layouts and compiled",
    "benchmark-backbones": "time backbones against torchvision's and timm's",
    "compat": "try timm's models under every head",
}


def run_tool(tool: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> int:
    """Run a tool's ``main``; an expected fault is one line on stderr. ``--debug`` adds the traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return tool(arguments)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        fault = _expected(error)
        if fault is None:
            raise
        if debug:
            traceback.print_exc()
        if not fault.reported_by_other_rank:
            print(f"error: {fault}", file=sys.stderr)
        return fault.exit_code


def _expected(error: Exception) -> VertebraError | None:
    """The fault that an exception tells of; None for a bug of ours, which shows its traceback."""
    if isinstance(error, VertebraError):
        return error
    if is_out_of_memory(error):
        what = str(error).partition("\n")[0] or "no memory is left"
        return MemoryFullError(what, "lower the batch size or the size of the images")
    if isinstance(error, OSError):
        file = None if error.filename is None else str(error.filename)
        return UsageError(error.strerror or str(error), "check the path and the rights to it", file=file)
    return None


@contextlib.contextmanager
def errors_from_local_rank_zero() -> Iterator[None]:
    """For what the processes of a run do before they meet: each fails for itself, and of those on a machine the first
    one tells."""
    try:
        yield
    except VertebraError as fault:
        from vertebra.engine.distributed.context import read_launch

        launch = read_launch(os.environ)
        fault.reported_by_other_rank = launch is not None and launch.local_rank > 0
        raise


def parse_integer(least: int, most: int = sys.maxsize) -> Callable[[str], int]:
    """What argparse reads a whole number in a range with."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            wanted = f"from {least} to {most}" if most < sys.maxsize else f"of {least} or more"
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number {wanted}")
        return int(text)

    return parse


def share(text: str) -> float:
    """What argparse reads a number from 0 to 1 with."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value


def check_output_file(path: Path) -> None:
    """Refuse a file that could not be written, before the work that makes it; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise UsageError("this is a folder", "give the name of a file in it", file=path)
    if not os.access(path.parent, os.W_OK):
        raise UsageError("this folder cannot be written to", "choose another", file=path.parent)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in arguments if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print("usage: vertebra COMMAND ...\n")
        for name, what in COMMANDS.items():
            print(f"  {name:19} {what}")
        print("\nvertebra COMMAND --help shows each one's page; --debug adds the traceback to an error.")
        return 0
    return run_tool(_dispatch, arguments)


def _dispatch(arguments: Sequence[str] | None) -> int:
    command, *rest = arguments or []
    if command not in COMMANDS:
        raise UsageError(f"there is no command {command!r}", suggest(command, COMMANDS))
    return importlib.import_module(f"vertebra.tools.{command.replace('-', '_')}").main(rest)


if __name__ == "__main__":
    raise SystemExit(main())
