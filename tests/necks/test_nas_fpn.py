"""NAS-FPN against an interpreter of the table in the authors' release, with the release's own rules."""

import pytest
import torch
import torch.nn.functional as F

from vertebra.necks import NASFPN, NASFPNConfig
from vertebra.structures import FeatureInfo

from ..helpers.pyramids import BACKBONE, features_of

RETINANET = {level: BACKBONE[level] for level in ("c3", "c4", "c5")}

RELEASE = [
    (4, "attention", (1, 3), False),
    (4, "sum", (1, 5), False),
    (3, "sum", (0, 6), True),
    (4, "sum", (6, 7), True),
    (5, "attention", (7, 8), True),
    (7, "attention", (6, 9), True),
    (6, "attention", (9, 10), True),
]
"""Of each cell the level, the operation, its two maps by number (0 to 4 are p3..p7, then the cells) and whether it is
an output."""


def resize(level, fine, cells):
    """Return a function that resizes a map of ``level`` to the level ``fine``, whose size is that of ``cells``.

    Towards finer levels cells are repeated; towards coarser levels the largest cell counts.
    """
    factor = 2 ** abs(level - fine)
    if level > fine:
        rows, columns = (torch.arange(size) // factor for size in cells.shape[-2:])
        return lambda feature: feature[..., rows, :][..., columns]

    def pool(feature):
        height, width = feature.shape[-2:]
        rows = [feature[..., top : top + factor, :].amax(-2) for top in range(0, height, factor)]
        tall = torch.stack(rows, dim=-2)
        return torch.stack([tall[..., left : left + factor].amax(-1) for left in range(0, width, factor)], dim=-1)

    return pool


def run_release(pyramid, convolve):
    """Run the table by the rules of the release.

    An output cell also adds every unused map of its level. In attention the coarser map makes the gate.
    """
    maps, levels, uses = list(pyramid), [3, 4, 5, 6, 7], [0] * 5
    for number, (target, operation, sources, is_output) in enumerate(RELEASE):
        first, second = (resize(levels[source], target, pyramid[target - 3])(maps[source]) for source in sources)
        if operation == "sum":
            merged = first + second
        else:
            if levels[sources[0]] < levels[sources[1]]:
                first, second = second, first
            merged = first + second * torch.sigmoid(first.flatten(2).max(dim=2).values[..., None, None])
        for source in sources:
            uses[source] += 1
        for other, level in enumerate(levels):
            if is_output and level == target and not uses[other]:
                merged = merged + maps[other]
                uses[other] += 1
        maps, levels, uses = [*maps, convolve(number, F.relu(merged))], [*levels, target], [*uses, 0]
    outputs = dict(zip(levels[-5:], maps[-5:], strict=True))
    return [outputs[level] for level in (3, 4, 5, 6, 7)]


@pytest.mark.parametrize("size", [(130, 227), (128, 256)])
@torch.no_grad()
def test_nas_fpn_equals_the_authors_release(size):
    """Oracle: an interpreter of the authors' table, also on odd sizes."""
    torch.manual_seed(0)
    neck = NASFPN(RETINANET, NASFPNConfig(channels=8, repeats=2, norm="none"))
    features, state = features_of(RETINANET, *size), neck.state_dict()
    pyramid = [
        F.conv2d(features[level], state[f"lateral.{level}.weight"], state[f"lateral.{level}.bias"])
        for level in RETINANET
    ]
    for level in (5, 6):
        pyramid.append(resize(level, level + 1, pyramid[-1])(pyramid[-1]))
    for step in range(2):
        cells = [key.removesuffix(".weight") for key in state if key.startswith(f"layers.{step}.") and "weight" in key]

        def convolve(number, x, cells=cells):
            return F.conv2d(x, state[f"{cells[number]}.weight"], state[f"{cells[number]}.bias"], padding=1)

        pyramid = run_release(pyramid, convolve)
    for (level, ours), expected in zip(neck(features).items(), pyramid, strict=True):
        torch.testing.assert_close(ours, expected, msg=lambda text, level=level: f"{level}: {text}")


def test_defaults_are_the_papers():
    """Oracle: the paper's 7 @ 256 on p3..p7, which has 7 layers of 7 cells with a 3x3 convolution."""
    neck = NASFPN(RETINANET)
    assert neck.feature_info == {f"p{number}": FeatureInfo(256, 2**number) for number in range(3, 8)}
    assert sum(value.shape == (256, 256, 3, 3) for value in neck.parameters()) == 7 * 7


def test_more_levels_than_cells_are_refused():
    """By hand: six levels that double their stride, where the cells are for five."""
    info = {f"c{number}": FeatureInfo(8, 2**number) for number in range(1, 7)}
    with pytest.raises(ValueError, match="NASFPN merges 5 levels") as caught:
        NASFPN(info)
    assert "`levels`" in str(caught.value)
    assert list(NASFPN(info, NASFPNConfig(channels=8, levels=("c2", "c3", "c4", "c5", "c6"))).feature_info)[-1] == "p6"
