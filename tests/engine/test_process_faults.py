"""One of two processes raises an error, dies or hangs: the run ends soon, and reports the reason once."""

import time

import pytest

from vertebra.engine import ScheduleConfig

from .test_several_processes import experiment, start

FAULTY = """
import datetime
import os
import signal
import sys
import time

from vertebra.engine.distributed import context as processes
from vertebra.structures import DataError
from vertebra.tools.cli import run_command
from vertebra.tools.train import command

place, fault = {place!r}, {fault!r}


def broken(*arguments, **options):
    print(f"broken at {{time.monotonic()}}", file=sys.stderr, flush=True)
    if fault == "raises":
        raise DataError("this image is broken", file="photo.jpg")
    if fault == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1000)


processes.TIMEOUT = datetime.timedelta(seconds=15)
if os.environ["RANK"] == "1":
    module = "vertebra.engine.run" if place == "build_dataset" else "vertebra.engine.loop.train"
    setattr(sys.modules[module], place, broken)
raise SystemExit(run_command(command))
"""


GONE = ("error: peer: another process of the run is gone or does", "error: interrupted: stopped by SIGTERM")
"""What the other one says: in an evaluation the signal by which torchrun ends it may come first."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["raises", "dies", "hangs"])
@pytest.mark.parametrize("place", ["build_dataset", "train_step", "evaluate"])
def test_fault_of_one_process_ends_all(place, fault, shapes, tmp_path):
    """docs/faults.md row 119. By hand: the run ends within a minute with a nonzero exit code, and every line is printed
    once.

    The fault comes while the data set is opened, in a step or in an evaluation. A hanging process is noticed after the
    timeout of 15 s, and torchrun gives a process 30 s to end.
    """
    (tmp_path / "faulty.py").write_text(FAULTY.format(place=place, fault=fault))
    process = start(
        2, tmp_path, experiment(shapes, recipe={"schedule": ScheduleConfig(steps=1)}), tool=tmp_path / "faulty.py"
    )
    _, printed = process.communicate(timeout=300)
    ended = time.monotonic()  # of one clock for all processes of a machine
    assert process.returncode != 0
    began = float(printed.partition("broken at ")[2].split()[0])
    assert ended - began < (75 if fault == "hangs" else 60)
    error_lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    expected = [("error: bad-data: photo.jpg",)] if fault == "raises" else []
    if (place, fault) != ("build_dataset", "raises"):  # which all hear of in good order
        expected.append(GONE)
    for beginnings in expected:
        assert sum(line.startswith(beginnings) for line in error_lines) == 1, printed
    assert len(error_lines) == len(expected)
