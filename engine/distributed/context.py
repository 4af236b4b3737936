"""The process group of a run: started by ``torchrun`` or SLURM's ``srun``, or a single process."""

import contextlib
import datetime
import gc
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
"""How long a rank waits for another rank that does not answer."""
HEARTBEAT = 5.0
"""Seconds between the heartbeats that rank zero sends while the other ranks wait for it."""


@dataclass(frozen=True, slots=True)
class Launch:
    """The rank, world size and rendezvous address that a launcher assigned to this process."""

    rank: int
    world_size: int
    local_rank: int
    """The rank among the processes on this machine."""
    address: str
    """The rendezvous address of all ranks: ``tcp://host:port``."""
    by_slurm: bool = False


def read_launch(environment: Mapping[str, str]) -> Launch | None:
    """Return the launch settings that torchrun or srun put into the environment; None for a single process."""
    if "WORLD_SIZE" in environment and "RANK" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        rank, world_size, local_rank = (int(environment.get(name, "0")) for name in names)
        host, port = environment.get("MASTER_ADDR", "localhost"), environment.get("MASTER_PORT", "29500")
        by_slurm = False
    elif "SLURM_STEP_NUM_TASKS" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        rank, world_size, local_rank = (int(environment[name]) for name in names)
        host = environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"])
        # Jobs that run on the same machine need different ports.
        port = environment.get("MASTER_PORT") or str(20000 + int(environment.get("SLURM_JOB_ID", "0")) % 20000)
        by_slurm = True
    else:
        return None
    return Launch(rank, world_size, local_rank, f"tcp://{host}:{port}", by_slurm) if world_size > 1 else None


def _first_host(nodes: str) -> str:
    """Return the first host of a SLURM node list: ``node07`` for ``node[07-09,12],gpu3``."""
    match = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    if match is None:
        raise UsageError(f"cannot parse SLURM's node list {nodes!r}", "set MASTER_ADDR")
    return "".join(part or "" for part in match.groups())


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """The rank of this process, and collectives over all ranks; a single process does not communicate."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    store: Store | None = None
    """Key-value store shared by the ranks, for heartbeats; None if the caller initialized the process group."""
    _call_ids: Iterator[int] = field(default_factory=itertools.count)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is rank zero, which prints, writes files and computes scores."""
        return self.rank == 0

    @contextlib.contextmanager
    def fail_together(self) -> Iterator[None]:
        """Raise a :class:`VertebraError` of any rank in the block on every rank.

        If several ranks fail, all raise the error of the lowest; only that rank reports it. Every rank must enter the
        block.
        """
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
        """Return the values of all ranks, in rank order, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Call ``work`` on rank zero only, and return its result on every rank; an error is raised on every rank too.

        Unlike in a collective, the other ranks wait without a timeout as long as rank zero sends heartbeats.
        """
        if self.world_size == 1:
            return work()
        key = f"rank_zero/{next(self._call_ids)}"
        if self.store is not None and not self.is_rank_zero:
            # A collective would time out after TIMEOUT, even while rank zero is working.
            wait_for_heartbeats_to_end(self.store, key, TIMEOUT.total_seconds())
        values: list[Any] = [None]
        with self.fail_together():
            if self.is_rank_zero:
                with heartbeats(self.store, key):
                    values = [work()]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather_to_rank_zero(self, value: T) -> list[T]:
        """Return the values of all ranks, in rank order, on rank zero; an empty list on the other ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size if self.is_rank_zero else []
        dist.gather_object(value, values or None, dst=0)
        return values

    def all_reduce_max(self, number: int) -> int:
        """Return the maximum over all ranks."""
        if self.world_size == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """Return the elementwise mean over all ranks; ``values`` may be overwritten."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values / self.world_size

    def broadcast_buffers_from_rank_zero(self, module: nn.Module) -> None:
        """Overwrite the module's buffers on every rank by rank zero's: batch norm statistics differ between ranks."""
        if self.world_size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def wrap_ddp(self, module: nn.Module, accumulates: bool = False) -> nn.Module:
        """Return the module wrapped in DDP, which averages gradients over all ranks.

        ``accumulates``: some backward passes run under ``no_sync``. Parameters of levels that no head reads get no
        gradient. They are the same in every step, so a static graph finds them in the first backward pass; but DDP
        only does so in a pass that synchronizes gradients, so with ``accumulates`` it searches in every pass.
        """
        if self.world_size == 1:
            return module
        on_gpu = self.device.type == "cuda"
        with warnings.catch_warnings():  # torch 2.15 deprecates broadcast_buffers, without another way to switch it off
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
    """Send heartbeats inside the block: increment ``KEY/beats`` in the store every ``HEARTBEAT`` seconds.

    At the end ``KEY/ended`` is set, even if the block raises.
    """
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


def wait_for_heartbeats_to_end(store: Store, key: str, timeout: float) -> None:
    """Wait until :func:`heartbeats` with this key has ended on rank zero.

    Raises PeerError after ``timeout`` seconds without a heartbeat.
    """
    pause, beats, last_beat = 0.001, 0, time.monotonic()
    while not store.check([f"{key}/ended"]):
        new_beats = store.add(f"{key}/beats", 0)
        if new_beats != beats:
            beats, last_beat = new_beats, time.monotonic()
        if time.monotonic() - last_beat > timeout:
            raise PeerError(
                f"another process of the run is gone or does not answer (rank zero, for {timeout:.0f} s)",
                "see the output of rank zero",
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


@contextlib.contextmanager
def init_distributed(device: torch.device | str) -> Iterator[DistributedContext]:
    """Initialize the process group of the run, and destroy it at the end of the block.

    The device ``cuda`` becomes the GPU of this rank. If the caller has initialized a process group, that one is used
    and stays. Raises UsageError if a machine has fewer GPUs than ranks, and :class:`PeerError` if another process has
    ended or does not answer, here or in the block.
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
        # Sharded models are in reference cycles. One that outlives the process group aborts Python at its end.
        gc.collect()
        # Not after an error: NCCL would wait here for the other ranks, which only notice when this process ends.
        dist.destroy_process_group()


def local_device_index(launch: Launch, count: int) -> int:
    """Return the index of this rank's GPU among the ``count`` visible ones; UsageError if there are too few."""
    if launch.by_slurm and count == 1:
        return 0  # with --gpus-per-task each process sees only its GPU
    if launch.local_rank >= count:
        raise UsageError(
            f"this process has local rank {launch.local_rank}, but sees {count} GPUs",
            "start one process per GPU, and check CUDA_VISIBLE_DEVICES",
        )
    return launch.local_rank


@contextlib.contextmanager
def peer_errors() -> Iterator[None]:
    """Convert torch's communication errors, raised when another process has ended, to :class:`PeerError`."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not (isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text):
            raise
        raise PeerError(
            f"another process of the run is gone or does not answer ({text.splitlines()[0]:.200})",
            "see the output of the other processes",
        ) from error
