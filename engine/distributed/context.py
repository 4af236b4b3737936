"""The processes of one run: those that ``torchrun`` or SLURM's ``srun`` started, or one alone."""

import contextlib
import datetime
import itertools
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from ...ops import get_rank, get_world_size
from ...structures import PeerError, UsageError, VertebraError, pick_device

T = TypeVar("T")

TIMEOUT = datetime.timedelta(minutes=30)
"""How long a rank waits for another of which it hears nothing."""
HEARTBEAT = 5.0
"""Seconds between the signs of life of rank zero while it works and the others wait."""


@dataclass(frozen=True, slots=True)
class Launch:
    """The place of a process among others, as its launcher gives it."""

    rank: int
    world_size: int
    local_rank: int
    """The rank among the processes of its own machine."""
    address: str
    """Where all ranks meet: ``tcp://host:port``."""
    by_slurm: bool = False


def read_launch(environment: Mapping[str, str]) -> Launch | None:
    """Return what torchrun or srun told this process in its environment; None where it is alone."""
    if "WORLD_SIZE" in environment and "RANK" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        rank, world_size, local_rank = (int(environment.get(name, "0")) for name in names)
        host, port = environment.get("MASTER_ADDR", "localhost"), environment.get("MASTER_PORT", "29500")
        by_slurm = False
    elif "SLURM_STEP_NUM_TASKS" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        rank, world_size, local_rank = (int(environment[name]) for name in names)
        host = environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"])
        # Jobs that run on one machine must not meet at one port.
        port = environment.get("MASTER_PORT") or str(20000 + int(environment.get("SLURM_JOB_ID", "0")) % 20000)
        by_slurm = True
    else:
        return None
    return Launch(rank, world_size, local_rank, f"tcp://{host}:{port}", by_slurm) if world_size > 1 else None


def _first_host(nodes: str) -> str:
    """Return the first machine of SLURM's list: ``node[07-09,12],gpu3`` begins with ``node07``."""
    match = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    if match is None:
        raise UsageError(f"SLURM's list of machines cannot be read: {nodes!r}", "set MASTER_ADDR")
    return "".join(part or "" for part in match.groups())


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """This process among the ranks of its run; alone, everything here costs nothing."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    store: Store | None = None
    """Where ranks leave signs for each other; None where the caller made the process group."""
    _turns: Iterator[int] = field(default_factory=itertools.count)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this rank is the one that prints, writes and scores."""
        return self.rank == 0

    @contextlib.contextmanager
    def fail_together(self) -> Iterator[None]:
        """Raise an error of any rank on all of them; only the lowest rank that has one reports it."""
        error = None
        try:
            yield
        except VertebraError as caught:
            error = caught
        errors = {rank: other for rank, other in enumerate(self.all_gather(error)) if other is not None}
        if errors:
            rank, first = min(errors.items())
            first.reported_by_other_rank = rank != self.rank
            raise first

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in order of rank, on all of them."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Return on all ranks what rank zero alone computes, however long that takes; its error is raised on all."""
        if self.world_size == 1:
            return work()
        key = f"rank_zero/{next(self._turns)}"
        if self.store is not None and not self.is_rank_zero:
            # Not in a collective, which would give up after TIMEOUT.
            wait_for_heartbeats_to_end(self.store, key, TIMEOUT.total_seconds())
        values: list[Any] = [None]
        with self.fail_together():
            if self.is_rank_zero:
                with heartbeats(self.store, key):
                    values = [work()]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather_to_rank_zero(self, value: T) -> list[T]:
        """Return the values of all ranks, in order of rank, on rank zero; an empty list on the others."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size if self.is_rank_zero else []
        dist.gather_object(value, values or None, dst=0)
        return values

    def all_reduce_max(self, number: int) -> int:
        """Return the greatest of all ranks' numbers."""
        if self.world_size == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """Return the mean of all ranks' values; ``values`` may be overwritten."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values / self.world_size

    def broadcast_buffers_from_rank_zero(self, module: nn.Module) -> None:
        """Overwrite the buffers of every rank with rank zero's: each rank has batch norm statistics of its own."""
        if self.world_size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def wrap_ddp(self, module: nn.Module, accumulates: bool = False) -> nn.Module:
        """Return the module with its gradients averaged over all ranks; ``accumulates``: not in every backward pass.

        Levels that no head reads get no gradient in any step. Shapes follow from the config, so the first backward pass
        can tell which parameters those are; but DDP learns it only from one that ends in an exchange.
        """
        if self.world_size == 1:
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
def heartbeats(store: Store | None, key: str) -> Iterator[None]:
    """Count up a key of the store every ``HEARTBEAT`` seconds inside, and set another at the end, also of an error."""
    if store is None:
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT):
            store.add(f"{key}/beats", 1)

    thread = threading.Thread(target=beat, name="heartbeats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        store.set(f"{key}/ended", "1")


def wait_for_heartbeats_to_end(store: Store, key: str, patience: float) -> None:
    """Wait until :func:`heartbeats` has ended; PeerError after ``patience`` seconds without a beat."""
    pause, beats, heard = 0.001, 0, time.monotonic()
    while not store.check([f"{key}/ended"]):
        now = store.add(f"{key}/beats", 0)
        if now != beats:
            beats, heard = now, time.monotonic()
        if time.monotonic() - heard > patience:
            raise PeerError(
                f"another process of the run is gone or does not answer (rank zero, for {patience:.0f} s)",
                "look at what it says",
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


@contextlib.contextmanager
def init_distributed(device: torch.device | str) -> Iterator[DistributedContext]:
    """Join the other ranks of the run, and leave them at the end. ``cuda`` becomes a GPU of this rank's own.

    A process that its caller has joined to a process group stays in that. Raises UsageError where a machine has fewer
    devices than ranks, and :class:`PeerError` where another process is gone, in here or in the block.
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
        meeting = rendezvous(launch.address, launch.rank, launch.world_size, timeout=TIMEOUT)
        store, rank, world_size = next(meeting)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("process_group", store),
            rank=rank,
            world_size=world_size,
            timeout=TIMEOUT,
        )
        yield DistributedContext(device, rank, world_size, store)
        # Not after an error: NCCL would wait here for the others, who wait for this one and are told by its end.
        dist.destroy_process_group()


def local_device_index(launch: Launch, count: int) -> int:
    """Return which of the ``count`` GPUs that a process sees is its own; UsageError where there are too few."""
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
    """Turn what torch says of a process that is gone or does not answer into a :class:`PeerError`."""
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
