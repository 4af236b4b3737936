"""Time a config's training step, and measure its memory, in several numbers, layouts and compiled."""

import statistics
from collections.abc import Mapping
from typing import Any

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import config_argument, device_option, integer_option, set_option

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
"""Changes of the recipe by a name; the others are compared with the first."""


@click.command(
    "benchmark-training",
    context_settings=CONTEXT,
    short_help="Time a config's training step.",
    epilog="Example: vertebra benchmark-training quickstart bf16 compile --rounds 2",
)
@config_argument()
@click.argument("settings", nargs=-1, metavar="[SETTING]...", type=click.Choice(tuple(SETTINGS)))
@set_option
@integer_option("--steps", 5, "Timed steps of a measurement.")
@integer_option("--rounds", 3, "Measurements of each setting.")
@device_option
def command(
    config: str, settings: tuple[str, ...], assignments: tuple[str, ...], steps: int, rounds: int, device: str
) -> None:
    """Time a config's training step, and measure its memory, under several settings in turn (A B C A B C).

    Shows images a second on the config's own first batch, without reading it, beside those of plain fp32, and the peak
    memory: the GPU's, or on a CPU the process's. Each measurement is a process of its own. CONFIG is a config file or
    the name of a shipped one. SETTING is fp32, tf32, bf16, fp16, channels-last, bf16+channels-last, compile,
    bf16+channels-last+compile or deterministic; without one, all are measured.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from vertebra.configs import load_config
    from vertebra.engine import override
    from vertebra.structures import pick_device

    experiment = override(load_config(config), assignments).model_dump(mode="json")
    baseline, *_ = SETTINGS
    names = list(dict.fromkeys([baseline, *(settings or SETTINGS)]))
    device = str(pick_device(device))
    threads, batch_size = torch.get_num_threads(), experiment["recipe"]["batch_size"]
    click.echo(f"{experiment['name']}, {device}, torch {torch.__version__}, {threads} threads, batch {batch_size}")
    measurements: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            measurements[name].append(_measure_alone(_with_recipe(experiment, SETTINGS[name]), device, steps))
    table = Table("setting", "images/s", f"beside {baseline}", "memory, GiB")
    for name, measured in measurements.items():
        speeds, memory = zip(*measured, strict=True)
        pairs = zip(speeds, measurements[baseline], strict=True)
        ratio = statistics.median(speed / plain for speed, (plain, _) in pairs)
        table.add_row(name, f"{statistics.median(speeds):.2f}", f"{ratio:.2f}", f"{max(memory):.2f}")
    Console(width=100).print(table)


def _with_recipe(config: Mapping[str, Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a dumped config with some fields of its recipe changed."""
    return {**config, "recipe": {**config["recipe"], **changes}}


def _measure_alone(config: Mapping[str, Any], device: str, steps: int) -> tuple[float, float]:
    """Run :func:`measure` in a process of its own, in which nothing ran before."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(measure, config, device, steps).result()


def measure(config: Mapping[str, Any], device: str, steps: int) -> tuple[float, float]:
    """Return images a second, by the median step after two for warming up, and the peak memory in GiB."""
    import time

    from vertebra.data import Shard, build_dataset, train_loader
    from vertebra.engine import TrainingState, parse_config, train_step
    from vertebra.engine.logging.memory import peak_memory
    from vertebra.inference.numerics import deterministic_kernels, matrix_precision
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
            shard=Shard(micro_batches=experiment.recipe.accumulate),
            sampling=experiment.train.sampling,
            mix=experiment.train.mix,
        )
    batches, seconds = list(loader), []
    with matrix_precision(experiment.recipe.precision), deterministic_kernels(experiment.recipe.deterministic):
        state = TrainingState.create(model, experiment)
        for step in range(1, steps + 3):
            began = time.perf_counter()
            train_step(state, batches, experiment, step)  # ends by reading numbers back, so the device is done
            seconds.append(time.perf_counter() - began)
    return experiment.recipe.batch_size / statistics.median(seconds[2:]), peak_memory(model.device)


if __name__ == "__main__":
    raise SystemExit(run_command(command))
