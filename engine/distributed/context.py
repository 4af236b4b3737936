"""The processes of one run: those that ``torchrun`` or SLURM's ``srun`` started, or one alone."""

import contextlib
import datetime
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...ops import get_rank, get_world_size
from ...structures import PeerError, UsageError, VertebraError, pick_device

T = TypeVar("T")

TIMEOUT = datetime.timedelta(minutes=30)
"""How long processes wait for each other; the first one scores alone while the others wait."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a process is told of its place when it is started."""

    rank: int
    count: int
    local_rank: int
    """Its number on its own machine."""
    address: str
    """Where all meet: ``tcp://host:port``."""
    by_slurm: bool = False


def read_launch(environment: Mapping[str, str]) -> Launch | None:
    """The place that torchrun or srun gave this process; None where it is alone."""
    if "WORLD_SIZE" in environment and "RANK" in environment:
        rank, count, local_rank = (int(environment.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        host, port = environment.get("MASTER_ADDR", "localhost"), environment.get("MASTER_PORT", "29500")
        by_slurm = False
    elif "SLURM_STEP_NUM_TASKS" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        rank, count, local_rank = (int(environment[name]) for name in names)
        host = environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"])
        # Jobs that share a machine must not meet at one port.
        port = environment.get("MASTER_PORT") or str(20000 + int(environment.get("SLURM_JOB_ID", "0")) % 20000)
        by_slurm = True
    else:
        return None
    return Launch(rank, count, local_rank, f"tcp://{host}:{port}", by_slurm) if count > 1 else None


def _first_host(nodes: str) -> str:
    """The first machine of SLURM's list: ``node[07-09,12],gpu3`` begins with ``node07``."""
    found = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    if found is None:
        raise UsageError(f"SLURM's list of machines cannot be read: {nodes!r}", "set MASTER_ADDR")
    return "".join(part or "" for part in found.groups())


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """This process among those of its run; alone, everything here costs nothing."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_rank_zero(self) -> bool:
        """The first one alone prints, writes and scores."""
        return self.rank == 0

    @contextlib.contextmanager
    def fail_together(self) -> Iterator[None]:
        """For what every process does for itself: if one of them fails all fail, and only one of them tells why."""
        error = None
        try:
            yield
        except VertebraError as caught:
            error = caught
        faults = {rank: fault for rank, fault in enumerate(self.all_gather(error)) if fault is not None}
        if faults:
            rank, fault = min(faults.items())
            fault.reported_by_other_rank = rank != self.rank
            raise fault

    def all_gather(self, value: T) -> list[T]:
        """What every process has, in order of rank, on all of them."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """What the first process alone makes, on all of them; if it fails all fail, and it tells why."""
        if self.count == 1:
            return work()
        values: list[Any] = [None]
        with self.fail_together():
            if self.is_rank_zero:
                values = [work()]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather_to_rank_zero(self, value: T) -> list[T]:
        """What every process has, in order of rank, on the first; nothing on the others."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count if self.is_rank_zero else []
        dist.gather_object(value, values or None, dst=0)
        return values

    def all_reduce_max(self, number: int) -> int:
        """The greatest of every process's numbers."""
        if self.count == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """The mean of every process's numbers."""
        if self.count > 1:
            dist.all_reduce(values)
        return values / self.count

    def broadcast_buffers_from_rank_zero(self, module: nn.Module) -> None:
        """Give every process the first one's buffers: the statistics of batch norms are each process's own."""
        if self.count > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def wrap_ddp(self, module: nn.Module, accumulates: bool = False) -> nn.Module:
        """The module with its gradients averaged over all processes; ``accumulates``: not after every backward pass.

        Levels that no head reads get no gradient in any step. Shapes follow from the config, so the first backward pass
        can tell which parameters those are; but DDP learns it only from one that ends in an exchange.
        """
        if self.count == 1:
            return module
        on_gpu = self.device.type == "cuda"
        with warnings.catch_warnings():  # torch 2.15 renames broadcast_buffers, and has no other way to say never
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                module,
                device_ids=[self.device.index] if on_gpu else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                static_graph=not accumulates,
                find_unused_parameters=accumulates,
            )


@contextlib.contextmanager
def init_distributed(device: torch.device | str) -> Iterator[DistributedContext]:
    """Meet the other processes of the run, and part from them at the end. ``cuda`` becomes a device of one's own.

    A process that the caller has joined to a group already stays in it. UsageError where a machine has fewer devices
    than processes; :class:`PeerError` where another process is gone, be it in here or in the block.
    """
    device = pick_device(device)
    launch = read_launch(os.environ)
    with peer_errors():
        if launch is None or dist.is_initialized():
            yield DistributedContext(device, get_rank(), get_world_size())
            return
        if device.type == "cuda":
            device = torch.device("cuda", local_device_index(launch, torch.cuda.device_count()))
            torch.cuda.set_device(device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            init_method=launch.address,
            rank=launch.rank,
            world_size=launch.count,
            timeout=TIMEOUT,
        )
        yield DistributedContext(device, launch.rank, launch.count)
        # Not after a fault: NCCL would wait here for the others, who wait for this one and are told by its end.
        dist.destroy_process_group()


def local_device_index(launch: Launch, count: int) -> int:
    """Which of the ``count`` GPUs that a process sees is its own; UsageError where there are too few."""
    if launch.by_slurm and count == 1:
        return 0  # --gpus-per-task shows each process its own one alone
    if launch.local_rank >= count:
        raise UsageError(
            f"this process sees {count} GPUs, and is number {launch.local_rank + 1} on its machine",
            "start as many processes as there are GPUs, and look at CUDA_VISIBLE_DEVICES",
        )
    return launch.local_rank


@contextlib.contextmanager
def peer_errors() -> Iterator[None]:
    """What torch says of a process that is gone or does not answer, as a :class:`PeerError`."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not (isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text):
            raise
        raise PeerError(
            f"another process of the run is gone or does not answer ({text.splitlines()[0]:.200})",
            "look at what the others say",
        ) from error
