"""``vertebra COMMAND ...``: the tools by name, and the one place where an error becomes a line and an exit code."""

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence

from vertebra.structures import UsageError, VertebraError, suggest

COMMANDS = {
    "train": "train, evaluate and draw predictions from a config",
    "eval": "score a trained run, or results in a file",
    "predict": "draw what a trained model finds in images",
    "list": "list backbones, necks, heads or configs",
    "make-shapes": "write the generated data set",
    "export-backbone": "write a trained run's backbone as weights to start from",
    "benchmark": "time a model against torchvision's",
}


def run_tool(tool: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> int:
    """Run a tool's ``main``; an expected fault is one line on stderr. ``--debug`` adds the traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return tool(arguments)
    except VertebraError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The console command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: vertebra COMMAND ...\n")
        for name, what in COMMANDS.items():
            print(f"  {name:12} {what}")
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
