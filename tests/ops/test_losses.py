"""What a head's loss returns: losses and metrics, told apart by their names."""

import pytest
import torch

from vertebra.ops import split_losses, total_loss

OUTPUTS = {
    "loss_class": torch.tensor(0.5),
    "recall": torch.ones(7),
    "loss_box": torch.tensor(2.0),
    "class_loss": torch.ones(1),
}


def test_only_names_that_begin_with_loss_are_minimized():
    """By hand: two losses and a metric."""
    losses, metrics = split_losses(OUTPUTS)
    assert list(losses) == ["loss_class", "loss_box"] and list(metrics) == ["recall", "class_loss"]
    assert total_loss(OUTPUTS) == 2.5


def test_result_without_a_loss_is_refused():
    """By hand: ValueError with the convention and the names that came."""
    with pytest.raises(ValueError, match=r"begins with 'loss_', such as 'loss_class'; got \['class'\]"):
        total_loss({"class": torch.tensor(0.5)})
