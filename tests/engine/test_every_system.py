"""Differences between systems: threads without signals, file locks, links, memory, devices, imports."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from vertebra.engine import train
from vertebra.engine.checkpoints import link_best, prune_checkpoints
from vertebra.engine.logging.memory import peak_memory
from vertebra.engine.run_folder import RunFolder
from vertebra.inference import Predictor, checkpoint_paths, load_model, open_checkpoint
from vertebra.structures import UsageError, pick_device

from ..helpers.runs import equal_tensors, newest_weights, start_training, wait_for_steps
from ..helpers.tiny import tiny_classifier

UNIX_ONLY = ("fcntl", "resource", "pwd", "grp", "termios")


def test_all_modules_import_without_unix_only_modules():
    """Law: with fcntl, resource and others unavailable, every module of the package and its tools can be imported."""
    code = f"""
import importlib, pkgutil, sys
import torch, torchvision, timm, albumentations, rich.console, tensorboard, filelock, psutil, multiprocessing
import torch.utils.tensorboard, hotcoco, pycocotools.mask
for name in {UNIX_ONLY!r}:
    sys.modules[name] = None
import vertebra
for module in pkgutil.walk_packages(vertebra.__path__, "vertebra."):
    if not module.name.startswith(("vertebra.tests", "vertebra.data.worker_preload", "vertebra.ops.nms_kernel")):
        importlib.import_module(module.name)
"""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_loader_imports_no_heavy_modules():
    """Law: reading images needs neither torchvision nor torch's compiler, which take as long to import as torch.

    A spawned worker imports everything again. Albumentations imports some versions of huggingface_hub, and these rich.
    """
    heavy = (
        "torchvision",
        "torch._dynamo",
        "timm",
        "tensorboard",
        "hotcoco",
        "vertebra.ops",
        "vertebra.models",
    )
    code = f"import sys, vertebra.data.loader; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_training_works_in_a_thread(tmp_path, capsys):
    """Law: the same weights as in the main thread; a line says that signals are not handled, and signal handlers
    stay."""
    config = tiny_classifier()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=train, args=(config, tmp_path / "thread"))
    thread.start()
    thread.join()
    assert "training in a thread: Ctrl-C and SIGTERM are not handled here" in capsys.readouterr().err
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    train(config, tmp_path / "main")
    assert "training in a thread" not in capsys.readouterr().err
    assert equal_tensors(newest_weights(tmp_path / "thread"), newest_weights(tmp_path / "main"))


def test_second_run_in_a_folder_is_refused_with_the_process(tmp_path, capsys):
    """By hand: exit code 2 while another process trains there; after that process is killed, the folder is free."""
    config = tiny_classifier(recipe={"schedule": {"steps": 100_000}}, run={"checkpoint_every": 1})
    process = start_training(config, tmp_path / "run")
    wait_for_steps(process, tmp_path / "run")
    with pytest.raises(
        UsageError, match=f"another run is writing to this folder \\(process {process.pid} on .*\\)"
    ) as caught:
        train(config, tmp_path / "run", resume=True)
    assert caught.value.exit_code == 2
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with RunFolder(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / "run.holder").exists()


def test_best_checkpoint_is_kept_without_symbolic_links(tmp_path, monkeypatch):
    """By hand: as on Windows without the right to make links. A text file is used as a link, and can replace a link
    and be replaced by one."""
    config = tiny_classifier(recipe={"schedule": {"steps": 6}}, run={"checkpoint_every": 1, "keep_checkpoints": 10})
    train(config, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    link_best(folder, 1)
    assert (folder / "best").is_symlink()

    def refuse(self: Path, *arguments: object) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "symlink_to", refuse)
        link_best(folder, 2)
    assert (folder / "best").read_text() == "step-0000002\n" and not (folder / "best").is_symlink()
    prune_checkpoints(folder, keep=1)
    assert [path.name for path in checkpoint_paths(folder)] == ["step-0000002", "step-0000006"]
    assert open_checkpoint(folder / "best").step == 2
    assert load_model(folder / "best").class_names["classification"]
    link_best(folder, 6)
    assert (folder / "best").is_symlink() and open_checkpoint(folder / "best").step == 6


def test_peak_memory_does_not_fall():
    """Law: the peak stays after 200 MB are freed."""
    before = peak_memory(torch.device("cpu"))
    block = torch.ones(50_000_000)
    del block
    assert peak_memory(torch.device("cpu")) >= before
    assert 0.1 < peak_memory(torch.device("cpu")) < 64


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (True, True, "auto", "cuda"),
        (False, True, "auto", "cpu"),
        (False, False, "auto", "cpu"),
        (False, True, "mps", "mps"),
        (True, False, "cuda:1", "cuda:1"),
        (True, False, "cpu", "cpu"),
    ],
)
def test_auto_device_prefers_cuda(cuda, mps, name, expected, monkeypatch):
    """By hand: ``auto`` is a CUDA GPU if there is one; Apple's GPU is used only if it is asked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [("cuda", "no CUDA device"), ("mps", "no Apple GPU"), ("gpu", "there is no device named 'gpu'")],
)
def test_unavailable_device_is_refused(name, message, monkeypatch):
    """By hand: a UsageError, from Python too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=message):
        pick_device(name)


def test_python_functions_take_device_auto(tmp_path, monkeypatch):
    """By hand: every function with a device takes ``auto``, and an unavailable device is a UsageError."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train(tiny_classifier(), tmp_path / "run", device="auto")
    assert load_model(tmp_path / "run", device="auto").device.type == "cpu"
    assert Predictor(tmp_path / "run", device="auto").model.device.type == "cpu"
    for use in (train, load_model, Predictor):
        arguments = (tiny_classifier(), tmp_path / "other") if use is train else (tmp_path / "run",)
        with pytest.raises(UsageError, match="no CUDA device"):
            use(*arguments, device="cuda")


def test_mps_fallback_is_enabled_on_macos(monkeypatch):
    """By hand: on macOS ``import vertebra`` sets the variable that torch reads when it is imported, unless the user
    has set it."""
    code = (
        "import sys, os; sys.platform = 'darwin'; import vertebra; "
        "print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'], 'torch' in sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTORCH_ENABLE_MPS_FALLBACK"}
    for chosen, expected in (({}, "1 False"), ({"PYTORCH_ENABLE_MPS_FALLBACK": "0"}, "0 False")):
        result = subprocess.run(
            [sys.executable, "-c", code], env={**environment, **chosen}, capture_output=True, text=True
        )
        assert result.stdout.strip() == expected, result.stderr
