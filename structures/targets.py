"""Checks of targets against the model and the images that they are for."""

from collections.abc import Sequence

from torch import Tensor

from .images import Images
from .instances import Instances
from .semantic import IGNORE


def check_targets(targets: Sequence[Instances | Tensor], images: Images, num_classes: int) -> None:
    """Raise ValueError for targets that a head of ``num_classes`` classes would learn nonsense from.

    That is a label of no class, in the objects, the class or the semantic map of an image; boxes or masks that cannot
    be in their image; and more or fewer targets than images. Nothing is read back from a GPU: there, only what
    :class:`Instances` remembers of its labels from the CPU is checked.
    """
    if len(targets) != len(images):
        raise ValueError(f"one target per image is needed, got {len(images)} images and {len(targets)} targets")
    require_labels_below(targets, num_classes)
    if images.sizes.device.type != "cpu":
        return
    for index, (target, (height, width)) in enumerate(zip(targets, images.sizes.tolist(), strict=True)):
        if isinstance(target, Instances):
            try:
                target.require_size((height, width))
            except ValueError as error:
                raise ValueError(f"target {index}: {error}") from None


def require_labels_below(targets: Sequence[Instances | Tensor], num_classes: int) -> None:
    """Raise ValueError for a label that is not one of 0..num_classes-1; a semantic map may have 255 too.

    Labels that were never on the CPU are not checked.
    """
    for index, target in enumerate(targets):
        label = _label_of_no_class(target, num_classes)
        if label is not None:
            raise ValueError(
                f"target {index} has the label {label}, but the head has {num_classes} classes, 0..{num_classes - 1} "
                "(no label stands for the background): correct the label, or build the head with more classes"
            )


def _label_of_no_class(target: Instances | Tensor, num_classes: int) -> int | None:
    """Return a label that is out of range, or None where there is none or it would have to be read from a GPU."""
    if isinstance(target, Instances):
        greatest = target.max_label
        return greatest if greatest is not None and greatest >= num_classes else None
    if target.device.type != "cpu":
        return None
    wrong = (target < 0) | (target >= num_classes)
    if target.ndim:
        wrong &= target != IGNORE
    return int(target[wrong][0]) if wrong.any() else None
