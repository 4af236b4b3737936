"""Checks of training targets against the model's classes and the batch of images."""

from collections.abc import Sequence

from torch import Tensor

from .images import Images
from .instances import Instances
from .semantic import IGNORE


def check_targets(targets: Sequence[Instances | Tensor], images: Images, num_classes: int) -> None:
    """Raise ValueError if the targets do not fit the images or a head of ``num_classes`` classes.

    That is: the number of targets differs from the number of images, a label (of an object, an image or a pixel) is out
    of range, a box lies outside its image, or a mask has another size. Nothing is read back from a GPU; there, only
    the largest label is checked, which :class:`Instances` recorded while the labels were on the CPU.
    """
    if len(targets) != len(images):
        raise ValueError(f"one target per image is needed, got {len(images)} images and {len(targets)} targets")
    require_labels_below(targets, num_classes)
    if images.sizes.device.type != "cpu":
        return
    for index, (target, (height, width)) in enumerate(zip(targets, images.size_list(), strict=True)):
        if isinstance(target, Instances):
            try:
                target.require_size((height, width))
            except ValueError as error:
                raise ValueError(f"target {index}: {error}") from None


def require_labels_below(targets: Sequence[Instances | Tensor], num_classes: int) -> None:
    """Raise ValueError for a label outside 0..num_classes-1; a semantic map may also contain 255.

    Labels on a GPU are checked only if :class:`Instances` recorded their maximum on the CPU.
    """
    for index, target in enumerate(targets):
        label = _out_of_range_label(target, num_classes)
        if label is not None:
            raise ValueError(
                f"target {index} has the label {label}, but the head has {num_classes} classes, 0..{num_classes - 1} "
                "(no label stands for the background): correct the label, or build the head with more classes"
            )


def _out_of_range_label(target: Instances | Tensor, num_classes: int) -> int | None:
    """Return a label that is out of range; None if there is none or it would have to be read from a GPU."""
    if isinstance(target, Instances):
        largest = target.max_label
        return largest if largest is not None and largest >= num_classes else None
    if target.device.type != "cpu":
        return None
    wrong = (target < 0) | (target >= num_classes)
    if target.ndim:
        wrong &= target != IGNORE
    return int(target[wrong][0]) if wrong.any() else None
