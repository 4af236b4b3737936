"""Benchmark of a config's training step: speed and memory with several precisions, memory formats and compilation."""

import statistics
from collections.abc import Mapping
from typing import Any

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import config_argument, device_option, integer_option, set_option

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"channels_last": False},
    "tf32": {"precision": "tf32", "channels_last": False},
    "bf16": {"precision": "bf16", "channels_last": False},
    "fp16": {"precision": "fp16", "channels_last": False},
    "channels-last": {"channels_last": True},
    "bf16+channels-last": {"precision": "bf16", "channels_last": True},
    "compile": {"compile": True, "channels_last": False},
    "bf16+channels-last+compile": {"precision": "bf16", "channels_last": True, "compile": True},
    "deterministic": {"deterministic": True, "channels_last": False},
}
"""Changes to the recipe by setting name; the first setting is the baseline."""


@click.command(
    "benchmark-training",
    context_settings=CONTEXT,
    short_help="Time a config's training step.",
    epilog="Example: vertebra benchmark-training quickstart bf16 compile --rounds 2",
)
@config_argument()
@click.argument("settings", nargs=-1, metavar="[SETTING]...", type=click.Choice(tuple(SETTINGS)))
@set_option
@integer_option("--steps", 5, "Timed steps per measurement.")
@integer_option("--rounds", 3, "Measurements per setting.")
@device_option
def command(
    config: str, settings: tuple[str, ...], assignments: tuple[str, ...], steps: int, rounds: int, device: str
) -> None:
    """Measure the speed and memory of a config's training step under several settings, alternately (A B C A B C).

    Every step trains on the config's first batch; reading it is not timed. Shows images per second, their ratio to
    fp32, and the peak memory of the GPU, or of the process on a CPU. Each measurement runs in a new process. CONFIG is
    a config file or the name of a shipped config. SETTING is fp32, tf32, bf16, fp16, channels-last, bf16+channels-last,
    compile, bf16+channels-last+compile or deterministic; without any, all are measured.
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
            measurements[name].append(_measure_in_process(_with_recipe(experiment, SETTINGS[name]), device, steps))
    table = Table("setting", "images/s", f"against {baseline}", "memory, GiB")
    for name, measured in measurements.items():
        speeds, memory = zip(*measured, strict=True)
        pairs = zip(speeds, measurements[baseline], strict=True)
        ratio = statistics.median(speed / baseline_speed for speed, (baseline_speed, _) in pairs)
        table.add_row(name, f"{statistics.median(speeds):.2f}", f"{ratio:.2f}", f"{max(memory):.2f}")
    Console(width=100).print(table)


def _with_recipe(config: Mapping[str, Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a dumped config with some fields of its recipe changed."""
    return {**config, "recipe": {**config["recipe"], **changes}}


def _measure_in_process(config: Mapping[str, Any], device: str, steps: int) -> tuple[float, float]:
    """Run :func:`measure` in a new process, so that earlier measurements do not affect it."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measure, config, device, steps).result()


def measure(config: Mapping[str, Any], device: str, steps: int) -> tuple[float, float]:
    """Return (images per second, peak memory in GiB) of the median step after two warm-up steps."""
    import time

    from vertebra.data import Shard, build_dataset, train_loader
    from vertebra.engine import TrainingState, parse_config, train_step
    from vertebra.engine.logging.memory import peak_memory
    from vertebra.inference.numerics import deterministic_kernels, matrix_precision, resolve_precision
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
    experiment = experiment.replace(recipe=experiment.recipe.resolve(model.device))
    with (
        matrix_precision(resolve_precision(experiment.recipe.precision, model.device)),
        deterministic_kernels(experiment.recipe.deterministic),
    ):
        state = TrainingState.create(model, experiment)
        for step in range(1, steps + 3):
            started = time.perf_counter()
            train_step(state, batches, experiment, step)  # synchronizes: it reads the losses from the device
            seconds.append(time.perf_counter() - started)
    return experiment.recipe.batch_size / statistics.median(seconds[2:]), peak_memory(model.device)


if __name__ == "__main__":
    raise SystemExit(run_command(command))
