"""The command line itself: help, version, completion, closed pipes, and three ways to call it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vertebra
from vertebra.configs import list_configs
from vertebra.tools.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "rich", "numpy", "pydantic", "cv2", "vertebra.structures")


def run_vertebra(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a process of its own."""
    command = [sys.executable, "-m", "vertebra.tools.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "--help"], ["eval", "--help"]], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments):
    """Law: packages that take seconds to import are not imported for help."""
    code = f"""
import sys
from vertebra.tools.cli import main
code = main({arguments!r})
print("loaded", [name for name in {HEAVY!r} if name in sys.modules], code)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "loaded [] 0", result.stderr


def test_help_lists_every_command(capsys):
    """By hand: each with one complete line."""
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    lines = {words[0]: words[1:] for words in map(str.split, page.splitlines()) if words and words[0] in COMMANDS}
    assert set(lines) == set(COMMANDS)
    assert all(words[-1].endswith(".") and not words[-1].endswith("...") for words in lines.values())


def test_the_version_is_shown(capsys):
    """By hand."""
    assert main(["--version"]) == 0
    assert vertebra.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_script(shell):
    """By hand: as the README says, ``eval`` of what is printed enables completion."""
    if shell == "bash" and not Path("/bin/bash").exists():
        pytest.skip("click asks bash for its version")
    result = run_vertebra(_VERTEBRA_COMPLETE=f"{shell}_source")
    assert result.returncode == 0 and "_VERTEBRA_COMPLETE" in result.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vertebra ev", {"eval"}),
        ("vertebra train quick", {"quickstart"}),
        ("vertebra train --dev", {"--device"}),
        ("vertebra config fcn", set(list_configs("fcn*"))),
        ("vertebra list back", {"backbones"}),
    ],
)
def test_completion_of_commands_options_and_configs(words, expected):
    """By hand: as a shell calls it."""
    result = run_vertebra(_VERTEBRA_COMPLETE="zsh_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))
    # zsh gets three lines per word, of which the second is the word
    assert set(result.stdout.splitlines()[1::3]) == expected, result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [["list", "configs"], ["--help"]], ids=" ".join)
def test_closed_pipe_is_no_error(arguments):
    """By hand: ``vertebra list backbones | head -1``: exit code 0 and nothing on stderr."""
    command = [sys.executable, "-m", "vertebra.tools.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (0, "")


def test_broken_pipe_to_another_process_is_an_error(capsys):
    """Control: a pipe to another process breaks while stdout is read."""
    import click

    from vertebra.tools.cli import run_command

    def fail() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    assert run_command(click.Command("tool", callback=fail), []) == 2
    assert capsys.readouterr().err.startswith("error: usage: Broken pipe")


@pytest.mark.parametrize(
    "call",
    [["tools/describe.py"], ["-m", "vertebra.tools.describe"], ["-m", "vertebra.tools.cli", "describe"]],
    ids=" ".join,
)
def test_script_module_and_command_behave_the_same(call):
    """Law: the same line and exit code."""
    result = subprocess.run([sys.executable, *call], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2
    assert result.stderr.startswith("error: usage: Missing argument 'MODEL'")


def test_wrong_command_line_is_reported_by_one_process(capsys, monkeypatch):
    """By hand: torchrun starts two, and both end with exit code 2."""
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert main(["train", "quickstart", "--no-such-option"]) == 2
        assert capsys.readouterr().err.count("error: ") == lines
