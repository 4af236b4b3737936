"""What a device allows without a wait."""

import torch


def can_count(device: torch.device) -> bool:
    """Return whether code may ask how many values fulfil a condition, to work on those alone.

    A CPU knows, a GPU would have to be waited for, and a compiler cannot know.
    """
    return device.type == "cpu" and not torch.compiler.is_compiling()
