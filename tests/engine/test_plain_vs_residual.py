"""The experiment behind residual networks (1512.03385), at the scale of a test."""

import pytest
import torch
import torch.nn.functional as F

from vertebra.backbones import create_backbone
from vertebra.data.shapes import ShapeCropsConfig, draw_crop


def loss_after_30_steps(name):
    """Return the loss on 64 crops of 16 pixels, all of which every step sees."""
    config = ShapeCropsConfig(split="train", count=64, size=16)
    crops = [draw_crop(config, index) for index in range(config.count)]
    pixels = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in crops]).float() / 127.5 - 1
    labels = torch.tensor([label for _, label in crops])
    torch.manual_seed(0)
    backbone, classifier = create_backbone(name), torch.nn.Linear(64, 8)
    optimizer = torch.optim.SGD([*backbone.parameters(), *classifier.parameters()], lr=0.02, momentum=0.9)
    for _ in range(30):
        loss = F.cross_entropy(classifier(backbone(pixels)["c2"].mean(dim=(2, 3))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.slow
def test_deep_plain_network_trains_worse_than_the_residual_one():
    """Learning (1512.03385 Figure 1 and section 4.2): 36 more layers make the plain network worse, but not the
    residual one."""
    losses = {name: loss_after_30_steps(f"cifar_{name}") for name in ("plain20", "plain56", "resnet20", "resnet56")}
    assert losses["plain56"] > losses["plain20"] + 0.5
    assert losses["plain56"] > 1.7  # chance is ln 8 = 2.08
    assert losses["resnet20"] < 0.1
    assert losses["resnet56"] < 0.1
