"""PAFPN against torchvision's feature pyramid and the paper's bottom-up path written out."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vertebra.necks import PAFPN, PAFPNConfig

from ..helpers.pyramids import BACKBONE, features_of


def torchvisions_pyramid(state, features):
    """Return p2..p5 of torchvision's network with the weights of the FPN inside a PAFPN."""
    theirs = torchvision.ops.FeaturePyramidNetwork([info.channels for info in BACKBONE.values()], 8)
    ours = [value for key, value in state.items() if key.startswith("fpn.")]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours, strict=True)))
    return list(theirs(OrderedDict(features)).values())


@pytest.mark.parametrize("activation", ["relu", "none"])
@torch.no_grad()
def test_pafpn_equals_the_paper_written_out(activation):
    """Oracle: section 3.1, N2 = P2 and N(i+1) = conv(P(i+1) + conv of stride 2 (N(i))), each with a ReLU."""
    pafpn, features = PAFPN(BACKBONE, PAFPNConfig(channels=8, activation=activation)), features_of(BACKBONE)
    for parameter in pafpn.parameters():
        nn.init.normal_(parameter, std=0.2)
    state = pafpn.state_dict()
    p2, p3, p4, p5 = torchvisions_pyramid(state, features)
    after = F.relu if activation == "relu" else nn.Identity()

    def convolve(x, key, stride=1):
        return after(F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], stride, padding=1))

    def weights(key):
        return key if activation == "none" else f"{key}.0"

    expected = {"p2": p2}
    for fine, coarse, level in (("p2", "p3", p3), ("p3", "p4", p4), ("p4", "p5", p5)):
        down = convolve(expected[fine], weights(f"down.{coarse}"), stride=2)
        expected[coarse] = convolve(level + down, weights(f"output.{coarse}"))
    expected["p6"] = expected["p5"][..., ::2, ::2]
    pyramid = pafpn(features)
    assert list(pyramid) == list(expected)
    for level in expected:
        torch.testing.assert_close(pyramid[level], expected[level])


def test_norms_are_on_both_paths():
    """By hand: 4 lateral and 4 output convolutions of the FPN, 3 strided and 3 output ones of the bottom-up path."""
    pafpn = PAFPN(BACKBONE, PAFPNConfig(channels=8, norm="group"))
    assert sum(isinstance(module, nn.GroupNorm) for module in pafpn.modules()) == 4 + 4 + 3 + 3
    assert sum(isinstance(module, nn.ReLU) for module in pafpn.modules()) == 3 + 3


def test_pafpn_refuses_levels_it_cannot_merge():
    """By hand: the check is the FPN's."""
    with pytest.raises(ValueError, match="needs levels that each have twice the stride of the previous"):
        PAFPN(BACKBONE, PAFPNConfig(levels=("c2", "c4")))
