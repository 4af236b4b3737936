"""Running of exported files of every format behind one interface."""

import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...structures import CheckpointError, UsageError
from .description import KEY, Description


class Session(ABC):
    """An exported file that is ready to run."""

    description: Description
    is_guarded: ClassVar[bool] = False
    """Whether the runtime refuses images below the ``least_side`` of the description."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Compute the outputs with these names."""


class OnnxSession(Session):
    """An ONNX file in onnxruntime, on the CPU."""

    def __init__(self, path: Path) -> None:
        runtime = require_package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class
            raise CheckpointError(f"cannot be read: {_one_line(error)}", "export the model again", file=path) from error
        self.description = Description.from_json(self.session.get_modelmeta().custom_metadata_map.get(KEY), path)
        self.run_options = runtime.RunOptions()
        # Masks in the pixels of the image take most of the time and memory, and need not be computed for predictions.
        self.run_options.only_execute_path_to_fetches = True

    def run(self, inputs: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        values = self.session.run(list(names), arrays, self.run_options)
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


class TorchSession(Session):
    """A file of torch: an exported program, compiled code or TorchScript."""

    is_guarded: ClassVar[bool] = True

    def __init__(self, program: Callable[..., Any], description: Description) -> None:
        self.program, self.description = program, description

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        outputs = self.program(*inputs.values())
        if not isinstance(outputs, Mapping):
            outputs = dict(zip(self.description.outputs, outputs, strict=True))
        return {name: outputs[name] for name in names}


def open_session(path: Path) -> Session:
    """Open an exported file; its suffix gives the format. Raises CheckpointError if it cannot be read."""
    if path.suffix == ".onnx":
        return OnnxSession(path)
    try:
        return _open_torch_file(path)
    except (RuntimeError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"cannot be read: {_one_line(error)}", "export the model again", file=path) from error


def is_exported(path: Path) -> bool:
    """Return whether the name of a file is that of an exported model."""
    return path.suffix in (".onnx", ".pt2", ".ts")


def _open_torch_file(path: Path) -> TorchSession:
    extra: dict[str, Any] = {KEY: ""}
    if path.suffix == ".ts":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates TorchScript
            program = torch.jit.load(path, _extra_files=extra)
        return TorchSession(program, Description.from_json(_text(extra[KEY]), path))
    if _is_compiled(path):
        from torch._inductor import aoti_load_package

        compiled = aoti_load_package(str(path))
        return TorchSession(compiled, Description.from_json(compiled.get_metadata().get(KEY), path))  # pyright: ignore
    program = torch.export.load(path, extra_files=extra)
    return TorchSession(program.module(), Description.from_json(_text(extra[KEY]), path))


def _is_compiled(path: Path) -> bool:
    """Return whether a ``.pt2`` file holds compiled code instead of an exported program."""
    with zipfile.ZipFile(path) as archive:
        return any("/data/aotinductor/" in f"/{name}" for name in archive.namelist())


def _text(value: str | bytes) -> str | None:
    return (value.decode() if isinstance(value, bytes) else value) or None


def require_package(name: str) -> Any:
    """Import an optional package; raise UsageError with the command that installs it."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        fix = 'install it with pip install "vertebra[export]"'
        raise UsageError(f"exported ONNX files need the package {name}", fix) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
