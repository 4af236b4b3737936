"""Batch norm over the images of all processes, on a CPU: against torch's batch norm over the same batch in one
process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vertebra.backbones import create_backbone
from vertebra.ops import SyncBatchNorm

STEPS = """
import sys
import torch
import torch.distributed as dist
from vertebra.ops import SyncBatchNorm

dist.init_process_group("gloo")
rank = dist.get_rank()
for case in torch.load(sys.argv[1]):
    norm = SyncBatchNorm(case["pixels"].shape[1], **case["options"]).to(case["pixels"].dtype)
    norm.load_state_dict(case["state"])
    pixels, factors = (case[name].split(case["sizes"])[rank] for name in ("pixels", "factors"))
    norm(pixels)
    leaf = pixels.clone().requires_grad_()
    output = norm(leaf)
    (output * factors).sum().backward()
    result = {"output": output.detach(), "gradient": leaf.grad, "buffers": norm.state_dict()}
    result["weights"] = {name: parameter.grad for name, parameter in norm.named_parameters()}
    torch.save(result, f"{sys.argv[1]}.{case['name']}.{rank}")
dist.destroy_process_group()
"""

CASES = {
    "even": {"shape": (4, 3, 5, 2), "sizes": [2, 2], "options": {}},
    "uneven": {"shape": (5, 3, 2, 2), "sizes": [1, 4], "options": {"eps": 1e-3, "momentum": 0.3}},
    "one image has none": {"shape": (3, 2, 4, 4), "sizes": [3, 0], "options": {}},
    "vectors": {"shape": (6, 4), "sizes": [1, 5], "options": {"affine": False}},
    "cumulative": {"shape": (4, 2, 3, 3), "sizes": [1, 3], "options": {"momentum": None}},
    "no statistics": {"shape": (4, 2, 3, 3), "sizes": [3, 1], "options": {"track_running_stats": False}},
}


def build_case(name: str) -> dict:
    """Return values far from zero, for which a variance computed as a difference of squares would be inexact."""
    generator = torch.Generator().manual_seed(len(name))
    case = CASES[name]
    pixels, factors = (torch.randn(case["shape"], generator=generator) for _ in range(2))
    pixels = pixels + 100
    norm = SyncBatchNorm(pixels.shape[1], **case["options"])
    for tensor in norm.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5 if tensor.is_floating_point() else tensor)
    return {"name": name, "pixels": pixels, "factors": factors, "state": norm.state_dict(), **case}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, list[dict]]:
    """Return what two processes compute for each case."""
    folder = tmp_path_factory.mktemp("sync")
    (folder / "steps.py").write_text(STEPS)
    torch.save([build_case(name) for name in CASES], folder / "cases")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, str(folder / "steps.py"), str(folder / "cases")], check=True, timeout=100)
    return {name: [torch.load(Path(f"{folder}/cases.{name}.{rank}")) for rank in range(2)] for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_normalize_like_one(name, results):
    """Oracle: torch's BatchNorm over the batch in float64, twice; a process may have more images, or none."""
    case, by_rank = build_case(name), results[name]
    norm = (nn.BatchNorm1d if case["pixels"].ndim == 2 else nn.BatchNorm2d)(case["pixels"].shape[1], **case["options"])
    norm.load_state_dict(case["state"])
    norm.double()
    norm(case["pixels"].double())
    leaf = case["pixels"].double().requires_grad_()
    output = norm(leaf)
    (output * case["factors"]).sum().backward()
    assert leaf.grad is not None
    assert_close(torch.cat([result["output"] for result in by_rank]), output.detach())
    assert_close(torch.cat([result["gradient"] for result in by_rank]), leaf.grad)
    for key, parameter in norm.named_parameters():
        assert parameter.grad is not None
        assert_close(by_rank[0]["weights"][key] + by_rank[1]["weights"][key], parameter.grad)
    for result in by_rank:
        assert result["buffers"].keys() == norm.state_dict().keys()
        for key, expected in norm.state_dict().items():
            assert_close(result["buffers"][key], expected)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Compare within float32's rounding of numbers near 100."""
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("training", [True, False])
def test_one_process_equals_batch_norm(training):
    """Oracle: torch's BatchNorm2d, bit for bit."""
    ours, theirs = SyncBatchNorm(3).train(training), nn.BatchNorm2d(3).train(training)
    pixels = torch.randn(2, 3, 4, 4)
    assert torch.equal(ours(pixels), theirs(pixels))
    assert all(torch.equal(tensor, ours.state_dict()[key]) for key, tensor in theirs.state_dict().items())


def test_timms_norms_with_activations_are_replaced():
    """Oracle: the same timm model with timm's norms, some of which include an activation."""
    torch.manual_seed(0)
    plain = create_backbone("timm/test_resnet")
    sync = create_backbone("timm/test_resnet", norm="sync")
    sync.load_state_dict(plain.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    for name, level in plain(pixels).items():
        assert torch.equal(level, sync(pixels)[name])
    norms = [module for module in sync.modules() if isinstance(module, _BatchNorm)]
    assert norms and all(isinstance(module, SyncBatchNorm) for module in norms)
