"""Fixtures for all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vertebra.data.shapes import SceneConfig, write_shapes

from .helpers.runs import kill_started_processes

# The tests run in a process for each core and their tensors are tiny: threads would only wait for one another.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that tests start


@pytest.fixture(autouse=True)
def kill_processes_after_test() -> Iterator[None]:
    """Kill the processes that a test started, also if the test fails."""
    yield
    kill_started_processes()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """Return a folder of generated scenes in COCO's layout: 8 for training, 4 for validation."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, train=8, val=4, config=SceneConfig(size=80))
    return root / "coco"
