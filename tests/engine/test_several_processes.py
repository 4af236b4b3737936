"""Training and evaluation by several processes, with torchrun and gloo."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vertebra.data import CocoConfig, ResizeConfig, ScaledCropConfig, Shard
from vertebra.data.epoch_order import EachOnceOrder
from vertebra.data.sampling import StepSampler
from vertebra.engine import ExperimentConfig, ScheduleConfig, SGDConfig, train
from vertebra.engine.distributed.context import Launch, read_launch
from vertebra.heads import MaskBranchConfig
from vertebra.inference import open_checkpoint
from vertebra.structures import UsageError

from ..helpers.runs import equal_tensors, newest_weights, read_metrics, wait_for_steps
from ..helpers.tiny import tiny_config

TOOLS = Path(__file__).parents[2] / "tools"


NORMS = {"frozen": ("frozen", "group", "none"), "sync": ("sync", "sync", "none")}
"""The norms of the backbone, the neck and the mask branch."""


def experiment(shapes: Path, norms: str = "frozen", **changes) -> ExperimentConfig:
    """Return a tiny Mask R-CNN on images of one size, whose norms do not depend on the images of one rank."""
    config = tiny_config(shapes, recipe={"batch_size": 6, "optimizer": SGDConfig(lr=0.01)}).replace(**changes)
    backbone, neck, mask = NORMS[norms]
    head = config.model.head.replace(mask=MaskBranchConfig(convolutions=(8,), norm=mask))
    parts = {
        "backbone": config.model.backbone.replace(norm=backbone),
        "neck": config.model.neck.replace(norm=neck),
        "head": head,
    }

    def same_size(split, transform):
        dataset = CocoConfig(**{**split.dataset.model_dump(), "masks": True})
        return split.replace(dataset=dataset, transform=transform)

    window = ScaledCropConfig(size=(64, 64), scales=(1.0, 1.0))  # so that padding does not depend on batch mates
    splits = {
        "train": same_size(config.train, window),
        "val": same_size(config.val, ResizeConfig(short_sides=(64,), long_side=64, flip=0.0)),
    }
    return config.replace(model=config.model.replace(**parts), **splits)


def start(
    processes: int, folder: Path, config: ExperimentConfig, *arguments: str, tool: Path = TOOLS / "train.py"
) -> subprocess.Popen[str]:
    """Start a training by several processes, as a user does."""
    (folder / "config.json").write_text(config.model_dump_json())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    run = [str(tool), str(folder / "config.json"), "--output", str(folder / "run"), "--device", "cpu"]
    return subprocess.Popen([*torchrun, *run, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True)


def launch(processes: int, folder: Path, config: ExperimentConfig, *arguments: str) -> str:
    """Run a training by several processes to its end, and return what it prints."""
    process = start(processes, folder, config, *arguments)
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


def child_processes(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that a torchrun started, by rank."""
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.fixture(scope="module")
def single_process_run(shapes, tmp_path_factory) -> Path:
    """Return the run of one process, which the others are compared with."""
    folder = tmp_path_factory.mktemp("alone")
    train(experiment(shapes), folder / "run")
    return folder / "run"


def assert_same_steps(run: Path, single_process_run: Path, weights_within: float = 1e-6) -> None:
    """Check that losses, gradient norms and final weights of four steps agree."""
    ours, theirs = (
        [line for line in read_metrics(folder) if line.pop("group") == "train"] for folder in (run, single_process_run)
    )
    assert len(ours) == 4
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(reference, rel=1e-5, abs=1e-7)
    for name, tensor in newest_weights(run).items():
        torch.testing.assert_close(tensor, newest_weights(single_process_run)[name], rtol=1e-4, atol=weights_within)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_losses_and_weights_do_not_depend_on_the_world_size(processes, single_process_run, shapes, tmp_path):
    """Law: all numbers agree up to rounding (1e-5 relative; 2e-7 was measured), metrics too."""
    printed = launch(processes, tmp_path, experiment(shapes))
    assert_same_steps(tmp_path / "run", single_process_run)
    assert {"rpn_recall", "rpn_positives", "box_positives"} <= read_metrics(single_process_run)[0].keys()
    assert printed.count("step 4/4") == 1  # only rank zero prints


@pytest.mark.slow
def test_accumulation_does_not_depend_on_the_world_size(shapes, tmp_path):
    """Law: three micro-batches of two images, on whichever rank; gradients are reduced after the third."""
    config = experiment(shapes, recipe={"accumulate": 3})
    train(config, tmp_path / "alone")
    launch(2, tmp_path, config)
    assert_same_steps(tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
def test_sync_norms_of_two_processes_equal_one(shapes, tmp_path):
    """Law: the statistics over the images of all ranks are those of the batch."""
    config = experiment(shapes, "sync")
    train(config, tmp_path / "alone")
    launch(2, tmp_path, config)
    assert_same_steps(tmp_path / "run", tmp_path / "alone")


def test_two_processes_stop_together_and_resume_exactly(shapes, tmp_path):
    """docs/faults.md row 111. Law: after SIGTERM to one of them, the resumed run is bit-equal to an uninterrupted one.

    One process would not give the same bits, and is refused.
    """
    steps = ScheduleConfig(steps=24, warmup_steps=2)
    config = experiment(shapes, recipe={"schedule": steps}, run={"checkpoint_every": 100, "keep_checkpoints": 3})
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (unbroken, broken):
        folder.mkdir()
    launch(2, unbroken, config)
    process = start(2, broken, config)
    wait_for_steps(process, broken / "run")
    os.kill(child_processes(process)[1], signal.SIGTERM)
    _, printed = process.communicate(timeout=100)
    assert process.returncode != 0 and printed.count("stopped by SIGTERM after step") == 1
    assert 1 <= open_checkpoint(broken / "run").step < 24
    with pytest.raises(UsageError, match="trained with 2 processes, not 1"):
        train(config, broken / "run", resume=True)
    launch(2, broken, config, "--resume")
    assert equal_tensors(newest_weights(unbroken / "run"), newest_weights(broken / "run"))
    assert read_metrics(unbroken / "run") == read_metrics(broken / "run")


CHECKED_END = """
import gc
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from vertebra.tools.cli import run_command
from vertebra.tools.train import command

destroy = dist.destroy_process_group

def destroy_after_models():
    assert not [True for value in gc.get_objects() if isinstance(value, DistributedDataParallel | FSDPModule)]
    destroy()

dist.destroy_process_group = destroy_after_models
raise SystemExit(run_command(command))
"""


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_processes_do_not_hang_at_their_end(parallel, shapes, tmp_path):
    """Law: modules that are averaged or sharded over ranks are freed before their process group.

    A DDP module that holds the last reference to a gloo group joins the group's threads while it holds the GIL, and
    these may be waiting for the GIL. A sharded module that outlives the group can abort Python at its end.
    """
    (tmp_path / "checked.py").write_text(CHECKED_END)
    config = experiment(shapes, recipe={"parallel": parallel})
    process = start(2, tmp_path, config, tool=tmp_path / "checked.py")
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 0, printed


def test_dead_process_ends_the_others(shapes, tmp_path):
    """docs/faults.md row 119. By hand: within a minute, with a nonzero exit code and without a traceback."""
    config = experiment(shapes, recipe={"schedule": ScheduleConfig(steps=10_000)}, run={"checkpoint_every": 10_000})
    process = start(2, tmp_path, config)
    wait_for_steps(process, tmp_path / "run")
    os.kill(child_processes(process)[1], signal.SIGKILL)
    _, printed = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "error: peer: another process of the run is gone" in printed


@pytest.mark.parametrize("fault", ["data", pytest.param("batch", marks=pytest.mark.slow)])
def test_error_on_all_ranks_is_reported_once(fault, shapes, tmp_path):
    """By hand: one line for a batch that cannot be divided, and one for a missing file."""
    config = experiment(shapes)
    if fault == "batch":
        config, words = (
            config.replace(recipe={"batch_size": 5}),
            "batch_size 5 cannot be divided evenly among 2 proc",
        )
    else:
        dataset = config.val.dataset.replace(annotations=tmp_path / "gone.json")
        config = config.replace(val=config.val.replace(dataset=dataset))
        words = "gone.json"
    process = start(2, tmp_path, config)
    _, printed = process.communicate(timeout=100)
    assert process.returncode != 0
    assert sum(line.startswith("error: ") and words in line for line in printed.splitlines()) == 1


@pytest.mark.parametrize("share", [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_shards_make_up_the_batch(share):
    """Law: the shards of all ranks, micro-batch by micro-batch, are the batch of one process in its order."""
    processes, micro_batches = share
    sampler = {"epochs": EachOnceOrder(10, seed=1), "batch_size": 12, "start_step": 3, "end_step": 7}
    batches = list(StepSampler(**sampler))
    shards = [list(StepSampler(**sampler, shard=Shard(rank, processes, micro_batches))) for rank in range(processes)]
    assert all(len(shard) == 4 * micro_batches for shard in shards)
    for step, batch in enumerate(batches):
        micro = range(step * micro_batches, (step + 1) * micro_batches)
        assert [place for number in micro for shard in shards for place in shard[number]] == batch
    with pytest.raises(ValueError, match="choose a multiple of 5"):
        StepSampler(**sampler, shard=Shard(0, 5, 1))


SLURM = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "41234"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a batch script without srun
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "9"}, (3, 4, 1, "a:9")),
        (SLURM | {"SLURM_STEP_NODELIST": "node[07-09,12],gpu3"}, (5, 8, 1, "node07:21234")),
        (SLURM | {"SLURM_STEP_NODELIST": "gpu3,gpu4"}, (5, 8, 1, "gpu3:21234")),
        (SLURM | {"SLURM_STEP_NODELIST": "r[1-2]n1"}, (5, 8, 1, "r1n1:21234")),
        (SLURM | {"SLURM_STEP_NODELIST": "x", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, (5, 8, 1, "h:1")),
    ],
)
def test_rank_and_address_are_read_from_the_environment(environment, expected):
    """By hand: torchrun's variables, and those that srun sets."""
    launch = read_launch(environment)
    if expected is None:
        assert launch is None
    else:
        *numbers, address = expected
        assert launch == Launch(*numbers, f"tcp://{address}", by_slurm="SLURM_STEP_NUM_TASKS" in environment)


EVALUATE = """
import sys
from vertebra.data import build_dataset
from vertebra.engine import evaluate, experiment_config, init_distributed, pick_task
from vertebra.formats import write_results
from vertebra.inference import load_checkpoint_model, open_checkpoint

run, output = sys.argv[1:]
with init_distributed("cpu") as processes:
    checkpoint = open_checkpoint(run)
    config = experiment_config(checkpoint)
    model, dataset = load_checkpoint_model(checkpoint), build_dataset(config.val.dataset)
    found = evaluate(pick_task(model.head, checkpoint.classes), model, dataset, config, processes)
    if found is not None:
        write_results(output, found[0])
"""


@pytest.mark.parametrize("processes", [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (3, 4, 5))])
def test_results_do_not_depend_on_the_world_size(processes, single_process_run, tmp_path):
    """docs/faults.md row 130. Law: several processes write the same results file as one, byte for byte.

    The 4 images are no multiple of 3 processes, and fewer than 5.
    """
    script = tmp_path / "evaluate.py"
    script.write_text(EVALUATE)
    files = []
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    for number, launcher in enumerate(([], torchrun)):
        output = tmp_path / f"{number}.json"
        subprocess.run(
            [sys.executable, *launcher, str(script), str(single_process_run), str(output)], check=True, timeout=200
        )
        files.append(output.read_bytes())
    assert len(json.loads(files[0])) > 100
    assert files[0] == files[1]


@pytest.mark.slow
def test_eval_command_on_two_processes_equals_one(single_process_run, tmp_path):
    """Law: two processes print and write what one does, byte for byte and once; an error of all is reported once."""
    outputs = []
    for count in (1, 2):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command = [
            *torchrun,
            str(TOOLS / "eval.py"),
            str(single_process_run),
            "--device=cpu",
            "--json",
            str(tmp_path / f"{count}"),
        ]
        done = subprocess.run(command, check=True, timeout=200, stdout=subprocess.PIPE)
        outputs.append((done.stdout, (tmp_path / f"{count}").read_bytes()))
    assert outputs[0] == outputs[1] and outputs[0][0]
    command = [*torchrun, str(TOOLS / "eval.py"), str(tmp_path / "gone"), "--device=cpu"]
    failed = subprocess.run(command, timeout=200, stderr=subprocess.PIPE, text=True)
    assert failed.returncode != 0 and failed.stderr.count("error: checkpoint") == 1
