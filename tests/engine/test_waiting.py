"""Ranks that wait for rank zero: for as long as it works, and no longer than it lives."""

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


def test_a_rank_waits_while_rank_zero_shows_signs_of_life(monkeypatch):
    """By hand: work that takes four times as long as a rank waits for one that it does not hear."""
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


def test_a_rank_waits_no_longer_than_rank_zero_lives():
    """By hand: nobody counts, as where rank zero hangs or is gone."""
    began = time.monotonic()
    with pytest.raises(PeerError, match=r"gone or does not answer \(rank zero, for 0 s\)"):
        wait_for_heartbeats_to_end(HashStore(), "turn", timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 2.0


def test_an_error_of_rank_zero_ends_the_wait():
    """By hand: the others hear of the error in the collective that follows."""
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
def test_scoring_may_take_longer_than_the_timeout_of_collectives(tmp_path: Path):
    """By hand: two processes whose collectives give up after 8 s, and work of 12 s on rank zero.

    Boundary AP of a large data set may take longer than the 30 minutes that a run gives.
    """
    script = tmp_path / "wait.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*torchrun, str(script)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"rank {rank} has {number}" for rank in (0, 1) for number in (0, 1)]
