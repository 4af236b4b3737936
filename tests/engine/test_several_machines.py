"""Training on two machines: network namespaces connected by a veth pair, with torchrun and gloo in each."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from vertebra.engine import ScheduleConfig, train

from .test_several_processes import TOOLS, assert_same_steps, child_processes, experiment, wait_for_steps

CARD = "card0"
HOSTS = ("10.201.7.1", "10.201.7.2")
IMPATIENT = """
import datetime
from vertebra.engine.distributed import context as processes
from vertebra.tools.cli import run_command
from vertebra.tools.train import command

processes.TIMEOUT = datetime.timedelta(seconds=15)
raise SystemExit(run_command(command))
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[Sequence[str]]:
    """Yield the names of two network namespaces, and delete them after the test."""
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command here (iproute2)")
    names = [f"vertebra-{os.getpid()}-{index}" for index in range(2)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", CARD, "netns", names[0], "type", "veth", "peer", "name", CARD, "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
        for name, host in zip(names, HOSTS, strict=True):
            ip("-n", name, "addr", "add", f"{host}/24", "dev", CARD)
            for card in ("lo", CARD):
                ip("-n", name, "link", "set", card, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], timeout=20, capture_output=True)


@contextlib.contextmanager
def running_training(machines: Sequence[str], folder: Path, tool: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Start a training with one process on each machine, as a user does, and kill what remains of it afterwards."""
    run = [str(tool), str(folder / "config.json"), "--output", str(folder / "run"), "--device=cpu"]
    processes = []
    try:
        for index, (name, host) in enumerate(zip(machines, HOSTS, strict=True)):
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
            meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={HOSTS[0]}:29400", f"--local-addr={host}"]
            meeting += [f"--rdzv-conf=is_host={int(index == 0)}"]  # a namespace has no host name of its own to tell by
            process = subprocess.Popen(
                ["ip", "netns", "exec", name, *torchrun, *meeting, *run],
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env=os.environ | {"GLOO_SOCKET_IFNAME": CARD},
            )
            processes.append(process)
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                kill(process)
            process.communicate(timeout=20)


def kill(torchrun: subprocess.Popen[str]) -> None:
    """Kill a torchrun and its processes, as a power cut would."""
    for process in (*child_processes(torchrun), torchrun.pid):
        os.kill(process, signal.SIGKILL)


def test_two_machines_equal_one_process(machines, shapes, tmp_path):
    """Law: all numbers agree up to rounding."""
    config = experiment(shapes)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    with running_training(machines, tmp_path, TOOLS / "train.py") as processes:
        for process in processes:
            _, printed = process.communicate(timeout=300)
            assert process.returncode == 0, printed
    train(config, tmp_path / "alone")
    assert_same_steps(tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "unplugged"])
def test_lost_machine_ends_the_other(fault, machines, shapes, tmp_path):
    """docs/faults.md row 119. By hand: the other machine ends with a nonzero exit code: within a minute if processes
    end, after the timeout if the machine is cut off."""
    config = experiment(shapes, recipe={"schedule": ScheduleConfig(steps=10_000)}, run={"checkpoint_every": 10_000})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    with running_training(machines, tmp_path, tmp_path / "impatient.py") as (first, second):
        wait_for_steps(first, tmp_path / "run")
        if fault == "killed":
            kill(second)
        else:
            ip("-n", machines[1], "link", "set", CARD, "down")
        _, printed = first.communicate(timeout=60 if fault == "killed" else 120)
        assert first.returncode != 0
        assert printed.count("error: peer: another process of the run is gone") == 1
