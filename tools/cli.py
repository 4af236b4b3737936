"""The command line ``vertebra COMMAND ...``: the list of commands, and the conversion of errors to exit codes.

Each command is a file in this folder that defines ``command``, a :class:`click.Command`. Only the requested command is
imported, and it imports heavy packages such as torch inside its function, so that ``vertebra --help`` and shell
completion are instant.
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
    "serve",
    "describe",
    "list",
    "config",
    "convert",
    "convert-data",
    "doctor",
    "browse",
    "make-shapes",
    "export",
    "export-backbone",
    "export-table",
    "benchmark",
    "benchmark-data",
    "benchmark-evaluation",
    "benchmark-prediction",
    "benchmark-training",
    "benchmark-backbones",
    "count-operations",
    "compat",
)
"""The names of the commands; ``export-backbone`` is defined in ``export_backbone.py``."""

CONTEXT: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "show_default": True,
    "max_content_width": 100,
}
"""Click settings that all commands share."""


class LazyCommands(Mapping[str, click.Command]):
    """A mapping from names to commands that imports each command on first access."""

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
    epilog="vertebra COMMAND --help shows the help of a command.",
    context_settings=CONTEXT,
    params=[
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Also show the traceback of an error."),
    ],
)
vertebra_command = click.version_option(vertebra.__version__, prog_name="vertebra")(vertebra_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console command and return its exit code."""
    if arguments is None and "_VERTEBRA_COMPLETE" in os.environ:
        vertebra_command.main(prog_name="vertebra")  # prints the shell completions and exits
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if all(word == "--debug" for word in arguments):
        arguments = ["--help"]
    return run_command(vertebra_command, arguments)


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    An expected error is printed as one line on stderr; ``--debug`` adds the traceback. If the reader of stdout closes
    the pipe, as ``head`` does, the command ends without an error.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [_expand_home_folder(argument) for argument in arguments if argument != "--debug"]
    try:
        return _invoke(command, arguments)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except SystemExit as exit_:
        if isinstance(exit_.__context__, BrokenPipeError):  # rich exits in this way if stdout is closed
            return 0
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_output_closed():
            return 0
        return _report(error, debug)


def _expand_home_folder(argument: str) -> str:
    """Replace ``~`` in ``~/FILE`` and ``--option=~/FILE``, where shells leave it, by the home folder."""
    option, equals, value = argument.rpartition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{os.path.expanduser(value)}" if value.startswith("~/") else argument  # noqa: PTH111


def _invoke(command: click.Command, arguments: list[str]) -> int:
    """Run a command on its arguments and return its exit code, also for ``--help`` and ``--version``."""
    if isinstance(command, click.Group):
        _check_command_name(arguments)
    try:
        with command.make_context(command.name, arguments) as context:
            command.invoke(context)
        code = 0
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    sys.stdout.flush()  # at exit a BrokenPipeError could no longer be handled
    return code


def _check_command_name(arguments: Sequence[str]) -> None:
    """Raise UsageError, suggesting the nearest commands, if the first word is not a command."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    if words and words[0] not in COMMANDS:
        from vertebra.structures import UsageError, suggest

        raise UsageError(f"there is no command {words[0]!r}", suggest(words[0], COMMANDS))


def _is_output_closed() -> bool:
    """Return whether the reader of stdout has closed the pipe; if so, discard all further output."""
    try:
        sys.stdout.write("\n")  # flushing an empty buffer would not detect it
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _report(error: Exception, debug: bool) -> int:
    """Print an expected error as one line and return its exit code; raise any other error, which is a bug."""
    if isinstance(error, click.ClickException):
        if debug:
            traceback.print_exc()
        if _local_rank() == 0:
            print(f"error: usage: {_describe_usage_error(error)}", file=sys.stderr)
        return 2
    expected = _expected_error(error)
    if expected is None:
        raise error
    if debug:
        traceback.print_exc()
    if not expected.reported_by_other_rank:
        print(f"error: {expected}", file=sys.stderr)
    return expected.exit_code


def _describe_usage_error(error: click.ClickException) -> str:
    """Return click's message as one line, with the command that shows help."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message} (see {context.command_path} --help)"


def _expected_error(error: Exception) -> "VertebraError | None":
    """Convert an error to a VertebraError that the user can act on; return None if it is a bug."""
    from vertebra.structures import MemoryFullError, UsageError, VertebraError, is_out_of_memory

    if isinstance(error, VertebraError):
        return error
    if is_out_of_memory(error):
        message = str(error).partition("\n")[0] or "out of memory"
        return MemoryFullError(message, "lower the batch size or the size of the images")
    if isinstance(error, OSError):
        file = None if error.filename is None else str(error.filename)
        return UsageError(error.strerror or str(error), "check the path and its permissions", file=file)
    return None


def _local_rank() -> int:
    """Return this process's rank on its machine from the environment of torchrun or srun; 0 for a single process."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)


@contextlib.contextmanager
def errors_from_local_rank_zero() -> Iterator[None]:
    """Let only local rank zero report an error that occurs in every process before the process group exists."""
    from vertebra.structures import VertebraError

    try:
        yield
    except VertebraError as error:
        from vertebra.engine.distributed.context import read_launch

        launch = read_launch(os.environ)
        error.reported_by_other_rank = launch is not None and launch.local_rank > 0
        raise


def check_output_file(path: Path) -> None:
    """Make the folder of an output file, and raise UsageError early if the file could not be written."""
    from vertebra.structures import UsageError

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise UsageError("this is a folder", "give the name of a file in it", file=path)
    if not os.access(path.parent, os.W_OK):
        raise UsageError("this folder cannot be written to", "choose another folder", file=path.parent)


if __name__ == "__main__":
    raise SystemExit(main())
