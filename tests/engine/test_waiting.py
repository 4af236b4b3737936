"""Ranks that wait for rank zero: as long as rank zero works, and no longer than it lives."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from torch.distributed import HashStore

from vertebra.engine.distributed import context
from vertebra.engine.distributed.context import heartbeats, wait_for_heartbeats_to_end
from vertebra.structures import PeerError


def test_rank_waits_while_rank_zero_sends_heartbeats(monkeypatch):
    """By hand: work that takes four times as long as a rank waits without heartbeats."""
    monkeypatch.setattr(context, "HEARTBEAT", 0.05)
    store, ended = HashStore(), []

    def work() -> None:
        with heartbeats(store, "turn"):
            time.sleep(2.0)
            ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    wait_for_heartbeats_to_end(store, "turn", timeout=0.5)
    assert ended and time.monotonic() - ended[0] < 1.0
    thread.join()


def test_rank_stops_waiting_without_heartbeats():
    """By hand: no heartbeats, as if rank zero hangs or is gone."""
    began = time.monotonic()
    with pytest.raises(PeerError, match=r"gone or does not answer \(rank zero, for 0 s\)"):
        wait_for_heartbeats_to_end(HashStore(), "turn", timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 2.0


def test_error_on_rank_zero_ends_the_wait():
    """By hand: the other ranks learn of the error in the next collective."""
    store = HashStore()
    with pytest.raises(ValueError, match="broken"), heartbeats(store, "turn"):
        raise ValueError("broken")
    wait_for_heartbeats_to_end(store, "turn", timeout=0.0)


SCRIPT = """
import datetime, time
from vertebra.engine import init_distributed
from vertebra.engine.distributed import context

context.TIMEOUT, context.HEARTBEAT = datetime.timedelta(seconds=8), 1.0
with init_distributed("cpu") as distributed:
    for number in range(2):
        value = distributed.on_rank_zero(lambda: [time.sleep(12 * number), number][1])
        print("rank", distributed.rank, "has", value, flush=True)
"""


@pytest.mark.slow
def test_scoring_may_take_longer_than_the_collective_timeout(tmp_path: Path):
    """By hand: two processes whose collectives time out after 8 s, and work of 12 s on rank zero.

    Boundary AP of a large data set may take longer than the 30 minutes of a run's timeout.
    """
    script = tmp_path / "wait.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*torchrun, str(script)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"rank {rank} has {number}" for rank in (0, 1) for number in (0, 1)]
