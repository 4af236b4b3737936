"""Batch norm over the images of all processes, on a CPU: against torch's over the whole batch in one process."""

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
    pixels, factors = (case[name].split(case["shares"])[rank] for name in ("pixels", "factors"))
    norm(pixels)
    leaf = pixels.clone().requires_grad_()
    output = norm(leaf)
    (output * factors).sum().backward()
    found = {"output": output.detach(), "gradient": leaf.grad, "buffers": norm.state_dict()}
    found["weights"] = {name: parameter.grad for name, parameter in norm.named_parameters()}
    torch.save(found, f"{sys.argv[1]}.{case['name']}.{rank}")
dist.destroy_process_group()
"""

CASES = {
    "even": {"shape": (4, 3, 5, 2), "shares": [2, 2], "options": {}},
    "uneven": {"shape": (5, 3, 2, 2), "shares": [1, 4], "options": {"eps": 1e-3, "momentum": 0.3}},
    "one image has none": {"shape": (3, 2, 4, 4), "shares": [3, 0], "options": {}},
    "vectors": {"shape": (6, 4), "shares": [1, 5], "options": {"affine": False}},
    "cumulative": {"shape": (4, 2, 3, 3), "shares": [1, 3], "options": {"momentum": None}},
    "no statistics": {"shape": (4, 2, 3, 3), "shares": [3, 1], "options": {"track_running_stats": False}},
}


def _case(name: str) -> dict:
    """Values far from zero, where a variance that is a difference of squares would be lost."""
    draw = torch.Generator().manual_seed(len(name))
    known = CASES[name]
    pixels, factors = (torch.randn(known["shape"], generator=draw) for _ in range(2))
    pixels = pixels + 100
    norm = SyncBatchNorm(pixels.shape[1], **known["options"])
    for tensor in norm.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5 if tensor.is_floating_point() else tensor)
    return {"name": name, "pixels": pixels, "factors": factors, "state": norm.state_dict(), **known}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[dict]]:
    """What two processes get of each case."""
    folder = tmp_path_factory.mktemp("sync")
    (folder / "steps.py").write_text(STEPS)
    torch.save([_case(name) for name in CASES], folder / "cases")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, str(folder / "steps.py"), str(folder / "cases")], check=True, timeout=100)
    return {name: [torch.load(Path(f"{folder}/cases.{name}.{rank}")) for rank in range(2)] for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_normalise_as_one(name, found):
    """Oracle: torch's BatchNorm over the whole batch in float64, twice; shares may be uneven, or none."""
    case, shares = _case(name), found[name]
    norm = (nn.BatchNorm1d if case["pixels"].ndim == 2 else nn.BatchNorm2d)(case["pixels"].shape[1], **case["options"])
    norm.load_state_dict(case["state"])
    norm.double()
    norm(case["pixels"].double())
    leaf = case["pixels"].double().requires_grad_()
    output = norm(leaf)
    (output * case["factors"]).sum().backward()
    assert leaf.grad is not None
    close(torch.cat([share["output"] for share in shares]), output.detach())
    close(torch.cat([share["gradient"] for share in shares]), leaf.grad)
    for key, parameter in norm.named_parameters():
        assert parameter.grad is not None
        close(shares[0]["weights"][key] + shares[1]["weights"][key], parameter.grad)
    for share in shares:
        assert share["buffers"].keys() == norm.state_dict().keys()
        for key, expected in norm.state_dict().items():
            close(share["buffers"][key], expected)


def close(ours: Tensor, theirs: Tensor) -> None:
    """Agreement to float32's rounding of numbers near 100."""
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_batch_norm(training):
    """Oracle: torch's BatchNorm2d, bit by bit."""
    ours, theirs = SyncBatchNorm(3).train(training), nn.BatchNorm2d(3).train(training)
    pixels = torch.randn(2, 3, 4, 4)
    assert torch.equal(ours(pixels), theirs(pixels))
    assert all(torch.equal(tensor, ours.state_dict()[key]) for key, tensor in theirs.state_dict().items())


def test_timms_norms_with_activations_are_replaced():
    """Oracle: the same timm model with its own norms, of which some have an activation inside."""
    torch.manual_seed(0)
    own = create_backbone("timm/test_resnet")
    sync = create_backbone("timm/test_resnet", norm="sync")
    sync.load_state_dict(own.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    for name, level in own(pixels).items():
        assert torch.equal(level, sync(pixels)[name])
    norms = [module for module in sync.modules() if isinstance(module, _BatchNorm)]
    assert norms and all(isinstance(module, SyncBatchNorm) for module in norms)
