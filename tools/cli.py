"""``vertebra COMMAND ...``: the commands by name, and the one place where an error becomes a line and an exit code.

A command is a file in this folder that defines ``command``, a :class:`click.Command`. Only the command that runs is
imported, and what it needs (torch above all) only inside its function: that keeps ``vertebra --help`` and shell
completion instant.
"""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import vertebra

if TYPE_CHECKING:
    from vertebra.structures import VertebraError

COMMANDS = (
    "train",
    "eval",
    "predict",
    "describe",
    "list",
    "config",
    "make-shapes",
    "export-backbone",
    "benchmark",
    "benchmark-data",
    "benchmark-training",
    "benchmark-backbones",
    "compat",
)
"""The commands by name; ``export-backbone`` is in ``export_backbone.py``."""

CONTEXT: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "show_default": True,
    "max_content_width": 100,
}
"""Settings of every command's page."""


class LazyCommands(Mapping[str, click.Command]):
    """The commands by name, each imported when it is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in COMMANDS:
            raise KeyError(name)
        return importlib.import_module(f"vertebra.tools.{name.replace('-', '_')}").command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


vertebra_command = click.Group(
    "vertebra",
    commands=LazyCommands(),  # type: ignore[arg-type]  # click only reads it
    help="Train, evaluate and use vision models: any backbone, any head.",
    epilog="vertebra COMMAND --help shows the page of a command.",
    context_settings=CONTEXT,
    params=[
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error too."),
    ],
)
vertebra_command = click.version_option(vertebra.__version__, prog_name="vertebra")(vertebra_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console command and return its exit code."""
    if arguments is None and "_VERTEBRA_COMPLETE" in os.environ:
        vertebra_command.main(prog_name="vertebra")  # answers the shell and exits
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if all(word == "--debug" for word in arguments):
        arguments = ["--help"]
    return run_command(vertebra_command, arguments)


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. An expected error is one line on stderr; ``--debug`` adds the traceback.

    A reader of the output that closes its end, as ``head`` does, ends the command without an error.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _invoke(command, arguments)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except SystemExit as exit_:
        if isinstance(exit_.__context__, BrokenPipeError):  # so rich ends a table that nobody reads
            return 0
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_output_closed():
            return 0
        return _report(error, debug)


def _invoke(command: click.Command, arguments: list[str]) -> int:
    """Run a command on its arguments and return its exit code, that of a page of help or version too."""
    if isinstance(command, click.Group):
        _check_command_name(arguments)
    try:
        with command.make_context(command.name, arguments) as context:
            command.invoke(context)
        code = 0
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    sys.stdout.flush()  # here a closed pipe can still be told from a bug
    return code


def _check_command_name(arguments: Sequence[str]) -> None:
    """Raise UsageError that names the nearest commands if the first word is none of them."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    if words and words[0] not in COMMANDS:
        from vertebra.structures import UsageError, suggest

        raise UsageError(f"there is no command {words[0]!r}", suggest(words[0], COMMANDS))


def _is_output_closed() -> bool:
    """Return whether nobody reads stdout any more, and then let what is left of the output go nowhere."""
    try:
        sys.stdout.write("\n")  # a flush alone has nothing left to write, and says nothing
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _report(error: Exception, debug: bool) -> int:
    """Print an expected error as one line and return its exit code; raise what is a bug of ours, with its traceback."""
    if isinstance(error, click.ClickException):
        if debug:
            traceback.print_exc()
        if _local_rank() == 0:
            print(f"error: usage: {_describe_usage_error(error)}", file=sys.stderr)
        return 2
    fault = _expected_error(error)
    if fault is None:
        raise error
    if debug:
        traceback.print_exc()
    if not fault.reported_by_other_rank:
        print(f"error: {fault}", file=sys.stderr)
    return fault.exit_code


def _describe_usage_error(error: click.ClickException) -> str:
    """Return what is wrong with a command line, and where its page of help is."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message} (see {context.command_path} --help)"


def _expected_error(error: Exception) -> "VertebraError | None":
    """Return the error that a user can act on; None for a bug of ours."""
    from vertebra.structures import MemoryFullError, UsageError, VertebraError, is_out_of_memory

    if isinstance(error, VertebraError):
        return error
    if is_out_of_memory(error):
        message = str(error).partition("\n")[0] or "no memory is left"
        return MemoryFullError(message, "lower the batch size or the size of the images")
    if isinstance(error, OSError):
        file = None if error.filename is None else str(error.filename)
        return UsageError(error.strerror or str(error), "check the path and the rights to it", file=file)
    return None


def _local_rank() -> int:
    """Return the rank of this process on its machine, as torchrun or srun tell it; 0 for a process alone."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)


@contextlib.contextmanager
def errors_from_local_rank_zero() -> Iterator[None]:
    """Let local rank zero alone report an error that every process of a run has before they meet."""
    from vertebra.structures import VertebraError

    try:
        yield
    except VertebraError as fault:
        from vertebra.engine.distributed.context import read_launch

        launch = read_launch(os.environ)
        fault.reported_by_other_rank = launch is not None and launch.local_rank > 0
        raise


def check_output_file(path: Path) -> None:
    """Make the folder of an output file; raise UsageError if the file could not be written, before the work for it."""
    from vertebra.structures import UsageError

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise UsageError("this is a folder", "give the name of a file in it", file=path)
    if not os.access(path.parent, os.W_OK):
        raise UsageError("this folder cannot be written to", "choose another", file=path.parent)


if __name__ == "__main__":
    raise SystemExit(main())
