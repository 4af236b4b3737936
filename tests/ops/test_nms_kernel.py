"""The GPU kernel of NMS, interpreted on the CPU and compiled for GPUs, without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

KERNEL = Path(__file__).parents[2] / "ops" / "nms_kernel.py"

LOAD = f"""
import importlib.util, torch
specification = importlib.util.spec_from_file_location("nms_kernel", {str(KERNEL)!r})
kernel = importlib.util.module_from_spec(specification)
specification.loader.exec_module(kernel)
"""

INTERPRET = (
    LOAD
    + """
from torchvision.ops import nms
generator = torch.Generator().manual_seed(0)
corners, sides = torch.rand(2, 2, 90, 2, generator=generator)
boxes = torch.cat([100 * corners, 100 * corners + 1 + 60 * sides], dim=2)
scores, labels = torch.rand(2, 90, generator=generator), torch.randint(0, 3, (2, 90), generator=generator)
scores[:, ::7], scores[:, 1] = -torch.inf, scores[:, 2]  # no candidates, and a tie
kept = kernel.nms_mask_of_batch(boxes, scores, labels, 0.5)
for image in range(2):
    expected = torch.zeros(90, dtype=torch.bool)
    for label in range(3):
        rows = ((labels[image] == label) & (scores[image] > -torch.inf)).nonzero()[:, 0]
        expected[rows[nms(boxes[image, rows], scores[image, rows], 0.5)]] = True
    assert torch.equal(kept[image], expected) and 20 < kept[image].sum() < 75
assert kernel.nms_mask_of_batch(boxes[:, :0], scores[:, :0], labels[:, :0], 0.5).shape == (2, 0)
print("equal")
"""
)

COMPILE = (
    LOAD
    + """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
types = {"boxes": "*fp32", "labels": "*i64", "kept": "*i8", "count": "i32", "threshold": "fp32", "BLOCK": "constexpr"}
for capability in (75, 80, 90):
    source = ASTSource(fn=kernel._suppress, signature=types, constexprs={"BLOCK": 4096})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 16})
    assert "cubin" in compiled.asm
print("compiled")
"""
)


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_interpreted_kernel_equals_torchvisions_nms():
    """Oracle: torchvision's NMS of each label of each image, with ties and boxes that are no candidates."""
    assert run(INTERPRET, TRITON_INTERPRET="1") == "equal"


def test_kernel_compiles_for_gpus(tmp_path):
    """Law: Triton compiles the kernel for NVIDIA GPUs of three generations."""
    assert run(COMPILE, TRITON_CACHE_DIR=str(tmp_path)) == "compiled"
