"""Command lines about backbones."""

import json
import multiprocessing

import pytest

from vertebra.tools import compat, compat_page, compat_trial
from vertebra.tools.cli import main


def test_list_shows_size_levels_and_weights_of_a_backbone(capsys, monkeypatch):
    """By hand: seresnet50's published 28.1 M parameters less its classifier, 4.1 GFLOPs, and every source of
    weights; one match."""
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["list", "backbones", "seresnet50"]) == 0
    shown = capsys.readouterr().out
    for fact in ("26.0", "4.1", "c2:256/4", "c5:2048/32", "timm/a1_in1k", "timm/ra2_in1k"):
        assert fact in shown, fact
    assert main(["list", "backbones", "resnet18*"]) == 0
    assert "torchvision 1, timm" in capsys.readouterr().out


def test_list_shows_levels_of_timm_models_or_why_not(capsys, monkeypatch):
    """By hand: a ViT with one level, and a model for one image size only."""
    monkeypatch.setenv("COLUMNS", "240")
    assert main(["list", "backbones", "timm/test_vit*"]) == 0
    assert "c4:64/16" in capsys.readouterr().out
    assert main(["list", "backbones", "timm/eca_botnext26ts_256"]) == 0
    assert "timm/eca_botnext26ts_256 cannot be a backbone" in capsys.readouterr().out


@pytest.mark.slow
def test_compat_tries_every_head_and_gives_reasons(tmp_path, capsys):
    """Learning: two steps lower the loss. By hand: CrossViT's outputs are no feature maps. A second run tries
    nothing again."""
    arguments = ["test_vit", "test_resnet", "crossvit_tiny_240", "resnet18"]
    options = ["--results", str(tmp_path / "results.jsonl"), "--table", str(tmp_path / "docs" / "page.md")]
    assert main(["compat", *arguments, *options, "--parameters", "11"]) == 0
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    records = {record["model"]: record for record in map(json.loads, lines)}
    assert set(records) == {"test_vit", "test_resnet", "crossvit_tiny_240"}
    every = dict.fromkeys(compat_page.HEADS, "yes")
    assert records["test_vit"]["heads"] == records["test_resnet"]["heads"] == every
    assert records["test_vit"]["neck"] == "simple_pyramid"
    assert "not a feature map" in records["crossvit_tiny_240"]["reason"]
    page = (tmp_path / "docs" / "page.md").read_text()
    assert (
        "3 models of 3 families tried: 2 pass with every head, 0 with some or none, 1 are refused. 1 were not" in page
    )
    assert page.endswith("## Not tried\n\nresnet18\n")
    capsys.readouterr()
    assert main(["compat", *arguments, *options, "--parameters", "11"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_compat_survives_a_model_that_hangs_or_dies(monkeypatch):
    """By hand: the reason is recorded, which is why each model is tried in a process of its own."""

    def hang(name):
        import time

        time.sleep(60)

    def die(name):
        import os

        os._exit(7)

    context = compat.process_context()  # a forked process inherits the patched functions
    monkeypatch.setattr(compat_trial, "try_model", hang)
    assert compat.try_in_process("any", 0.2, context)["reason"] == "not done in 0 s"
    monkeypatch.setattr(compat_trial, "try_model", die)
    assert compat.try_in_process("any", 60.0, context)["reason"] == "the process died with exit code 7"


def test_benchmark_compares_with_torchvision_or_timm(capsys):
    """By hand: a row for each backbone that torchvision or timm has, and none for others."""
    arguments = ["resnet10t", "cifar_resnet20", "--size", "32", "--batch", "2", "--rounds", "1", "--device", "cpu"]
    assert main(["benchmark-backbones", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "resnet10t" in shown
    assert "timm" in shown
    assert "cifar" not in shown
