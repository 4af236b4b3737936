"""Every head that reads a pyramid works on every neck: the levels that a neck promises are all that a head needs."""

import pytest
import torch

from vertebra.heads import HEADS
from vertebra.necks import NECKS
from vertebra.ops import total_loss
from vertebra.tools.compat_trial import heads_on_pyramid, make_batch, num_classes_of

from ..helpers.pyramids import BACKBONE, features_of

PYRAMID_NECKS = [name for name in NECKS if "channels" in NECKS[name].config.model_fields]
LEVELS = ("p2", "p3", "p4", "p5")


@pytest.mark.parametrize("head_name", heads_on_pyramid(dict.fromkeys(LEVELS, BACKBONE["c2"])))
@pytest.mark.parametrize("neck_name", PYRAMID_NECKS)
def test_every_head_learns_and_predicts_on_every_neck(neck_name, head_name):
    """Law: finite losses, a gradient for every parameter of the neck, and a prediction for every image."""
    torch.manual_seed(0)
    neck = NECKS.build(NECKS[neck_name].config(name=neck_name, channels=16), BACKBONE)
    config = heads_on_pyramid(neck.feature_info)[head_name]
    head = HEADS.build(config, BACKBONE | neck.feature_info, num_classes_of(config))
    images, targets = make_batch(32, head.targets())
    levels = features_of(BACKBONE, *images.pixels.shape[-2:])
    losses = head.loss(levels | neck(levels), images, targets)
    total_loss(losses).backward()
    without_gradient = {name for name, parameter in neck.named_parameters() if parameter.grad is None}
    unread = set(neck.feature_info) - set(getattr(config, "levels", None) or neck.feature_info)
    assert not without_gradient or unread
    with torch.no_grad():
        assert len(head.eval().predict(levels | neck.eval()(levels), images)) == len(targets)
