"""Selection of the device that a model runs on."""

import torch

from .errors import UsageError

DeviceLike = torch.device | str
"""The type of a ``device`` argument: ``"auto"``, a name such as ``"cuda:1"``, or a ``torch.device``."""


def pick_device(device: DeviceLike = "auto") -> torch.device:
    """Return the device with this name; ``auto`` is a CUDA GPU if there is one, otherwise the CPU.

    ``auto`` never picks Apple's GPU (``mps``), which lacks float64 and some operators: request it by name. Its missing
    operators run on the CPU if ``vertebra`` was imported before ``torch``. Raises UsageError if the device is not
    available.
    """
    if isinstance(device, torch.device):
        return device
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"there is no device named {device!r}", "choose auto, cpu, cuda or mps") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch finds no CUDA device here", "choose auto or cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("torch finds no Apple GPU here", "choose auto or cpu")
    return chosen
