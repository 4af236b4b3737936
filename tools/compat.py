"""Compatibility test of timm's models as backbones with every head, with a record of the result for each model."""

import importlib
import json
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.cli import CONTEXT, run_command

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext


@click.command(
    "compat",
    context_settings=CONTEXT,
    short_help="Test timm's models with every head.",
    epilog="Example: vertebra compat --minutes 60 --results compat.jsonl --table docs/compatibility.md",
)
@click.argument("patterns", nargs=-1)
@click.option(
    "--results",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Add a line of JSON per model to this file; models that are in it already are skipped.",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the results to this file as a Markdown page.",
)
@click.option(
    "--minutes", default=60.0, metavar="NUMBER", help="Start no model after this time; 0 only writes the table."
)
@click.option("--limit", default=120.0, metavar="NUMBER", help="Time limit per model in seconds.")
@click.option("--parameters", default=100.0, metavar="NUMBER", help="Skip models with more parameters, in millions.")
def command(
    patterns: tuple[str, ...], results: Path, table: Path | None, minutes: float, limit: float, parameters: float
) -> None:
    """Build timm's models as backbones and train each for two steps with every head.

    A head passes if its loss falls in both steps. PATTERNS are shell patterns of model names; without any, all models
    are tested: the smallest of every family first, then the next of every family, so that all families are covered
    within the time limit.
    """
    import timm

    records = _read_records(results)
    selected = {name for pattern in patterns or ("*",) for name in timm.list_models(pattern)}
    deadline = time.monotonic() + 60 * minutes
    context = process_context()
    for family, name in _alternate_families(selected - records.keys(), parameters):
        if time.monotonic() > deadline:
            break
        record = {"model": name, "family": family, **try_in_process(name, limit, context)}
        records[name] = record
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        click.echo(_format_record(record))
    if table is not None:
        from vertebra.tools.compat_page import write_page

        write_page(table, list(records.values()), sorted(selected - records.keys()))


def _read_records(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records in a results file by model; none if the file does not exist."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {record["model"]: record for record in map(json.loads, lines)}


def _format_record(record: dict[str, Any]) -> str:
    """Return a record as a line: the result of every head, or the reason why the model was refused."""
    heads = "  ".join(f"{head}: {result}" for head, result in record.get("heads", {}).items())
    return f"{record['model']}: {heads or record['reason']}"


def _alternate_families(selected: set[str], max_parameters: float) -> Iterator[tuple[str, str]]:
    """Yield (family, model): the smallest model of every family, then the next of every family, and so on.

    Models with more than ``max_parameters`` million parameters are left out.
    """
    import timm

    families = {}
    for family in timm.list_modules():
        sizes = {name: _count_parameters(name) for name in timm.list_models(module=family) if name in selected}
        small = {name: size for name, size in sizes.items() if size is None or size <= max_parameters}
        families[family] = sorted(small, key=lambda name: (small[name] is None, small[name], name))
    for names in zip_longest(*families.values()):
        yield from ((family, name) for family, name in zip(families, names, strict=True) if name is not None)


def _count_parameters(name: str) -> float | None:
    """Return a model's number of parameters in millions; None if it cannot be built on the meta device."""
    import timm
    import torch

    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(name).parameters()) / 1e6
    except Exception:  # some constructors compute with weights, which fails on the meta device
        return None


def process_context() -> "BaseContext":
    """Return the multiprocessing context that starts processes fastest: fork if available, otherwise spawn.

    With fork, the modules of a trial are imported here once, so that child processes share them.
    """
    import multiprocessing

    if "fork" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    importlib.import_module("vertebra.tools.compat_trial")
    return multiprocessing.get_context("fork")


def try_in_process(name: str, limit: float, context: "BaseContext") -> dict[str, Any]:
    """Test one model in a child process, which is killed after ``limit`` seconds; return the model's record."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(name, sender))  # type: ignore[attr-defined]  # all have it
    started = time.monotonic()
    process.start()
    sender.close()
    try:
        result = receiver.recv() if receiver.poll(limit) else {"reason": f"not done in {limit:.0f} s"}
    except EOFError:
        process.join()
        result = {"reason": f"the process died with exit code {process.exitcode}"}
    process.kill()
    process.join()
    return result | {"seconds": round(time.monotonic() - started, 1)}


def _send_result(name: str, sender: "Connection") -> None:
    """Send a model's record to the parent process, or the reason why it was refused."""
    from vertebra.tools import compat_trial

    try:
        sender.send(compat_trial.try_model(name))
    except Exception as error:
        sender.send({"reason": compat_trial.describe_error(error)})


if __name__ == "__main__":
    raise SystemExit(run_command(command))
