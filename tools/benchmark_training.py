"""Time a config's training step, and measure its memory, in several numbers, layouts and compiled."""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from vertebra.structures import UsageError, suggest
from vertebra.tools.cli import parse_integer, run_tool

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "channels-last": {"channels_last": True},
    "bf16+channels-last": {"precision": "bf16", "channels_last": True},
    "compile": {"compile": True},
    "bf16+channels-last+compile": {"precision": "bf16", "channels_last": True, "compile": True},
    "deterministic": {"deterministic": True},
}
"""Changes of the recipe by a name; the first setting is what the others are compared with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/benchmark_training.py CONFIG [SETTING ...] [--set KEY=VALUE] [--steps 5] [--rounds 3]``."""
    options = _parse(arguments)

    import torch

    from vertebra.configs import load_config
    from vertebra.engine import override, pick_device

    config = override(load_config(options.config), options.set).model_dump(mode="json")
    first, *_ = SETTINGS
    names = list(dict.fromkeys([first, *(options.settings or SETTINGS)]))
    device = str(pick_device(options.device))
    threads, batch_size = torch.get_num_threads(), config["recipe"]["batch_size"]
    print(f"{config['name']}, {device}, torch {torch.__version__}, {threads} threads, batch {batch_size}")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            found[name].append(_measure_alone(_with_recipe(config, SETTINGS[name]), device, options.steps))
    table = Table("setting", "images/s", f"beside {first}", "memory, GiB")
    for name, measured in found.items():
        speeds, memory = zip(*measured, strict=True)
        ratio = statistics.median(own / plain for own, (plain, _) in zip(speeds, found[first], strict=True))
        table.add_row(name, f"{statistics.median(speeds):.2f}", f"{ratio:.2f}", f"{max(memory):.2f}")
    Console(width=100).print(table)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmark-training",
        description="Images a second of a config's training step on its own first batch, without reading it, and the "
        "greatest memory, under each setting in turn (A B C A B C); and the speed beside that of plain fp32. Each "
        "measurement is a process of its own. Memory is the GPU's, or that of the whole process on a CPU.",
        epilog="example: python tools/benchmark_training.py configs/quickstart.py bf16 compile --rounds 2",
    )
    parser.add_argument("config", help="a config file, or the name of a shipped one")
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=f"of {', '.join(SETTINGS)} (default: all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the config")
    parser.add_argument("--steps", type=parse_integer(1), default=5, help="timed steps of a measurement (default 5)")
    parser.add_argument("--rounds", type=parse_integer(1), default=3, help="measurements of each setting (default 3)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.settings if name not in SETTINGS]:
        raise UsageError(f"there is no setting {unknown[0]!r}", suggest(unknown[0], SETTINGS))
    return options


def _with_recipe(config: Mapping[str, Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a dumped config with some fields of its recipe changed."""
    return {**config, "recipe": {**config["recipe"], **changes}}


def _measure_alone(config: Mapping[str, Any], device: str, steps: int) -> tuple[float, float]:
    """:func:`measure` in a process that nothing ran in before."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(measure, config, device, steps).result()


def measure(config: Mapping[str, Any], device: str, steps: int) -> tuple[float, float]:
    """Images a second, by the median step after two for warming up, and the greatest memory in GiB."""
    import time

    from vertebra.data import Shard, build_dataset, train_loader
    from vertebra.engine import TrainingState, parse_config, train_step
    from vertebra.engine.logging.memory import peak_memory
    from vertebra.engine.loop.determinism import deterministic_kernels
    from vertebra.engine.loop.precision import matrix_precision
    from vertebra.models import build_model
    from vertebra.structures import value_errors_as_usage_errors

    experiment = parse_config(config)
    data = build_dataset(experiment.train.dataset, experiment.train.bad_data)
    names = {task: classes.names for task, classes in data.classes.items()}
    with value_errors_as_usage_errors():
        model = build_model(experiment.model, names).to(device).train()
        loader = train_loader(
            data,
            experiment.train.transform,
            experiment.run.loader.replace(workers=0),
            batch_size=experiment.recipe.batch_size,
            divisor=model.size_divisor,
            seed=experiment.recipe.seed,
            start_step=0,
            end_step=1,
            share=Shard(micro_batches=experiment.recipe.accumulate),
            sampling=experiment.train.sampling,
            mix=experiment.train.mix,
        )
    batches, seconds = list(loader), []
    with matrix_precision(experiment.recipe.precision), deterministic_kernels(experiment.recipe.deterministic):
        state = TrainingState.of(model, experiment)
        for step in range(1, steps + 3):
            began = time.perf_counter()
            train_step(state, batches, experiment, step)  # ends by reading numbers back, so the device is done
            seconds.append(time.perf_counter() - began)
    return experiment.recipe.batch_size / statistics.median(seconds[2:]), peak_memory(model.device)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
