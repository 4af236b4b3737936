"""The whole loss and the whole prediction of a model as one compiled graph, without breaks and recompilations.

Models are compiled in a new process, since functions whose shapes are checked do not compile.
"""

import subprocess
import sys

import pytest

COMPILE = """
import random, sys
import torch
from vertebra.backbones import ResNetConfig
from vertebra.heads import BoxBranchConfig, DeepLabConfig, MaskBranchConfig, RCNNConfig, RPNConfig
from vertebra.models import ModelConfig, build_model
from vertebra.necks import FPNConfig, PassthroughConfig
from vertebra.ops import pad_maps, pad_targets, split_losses, total_loss
from vertebra.structures import Images, Instances

name, backend, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(0)
box = BoxBranchConfig(fc=(32,), samples=32, score_threshold=0.0, levels=("p2", "p3", "p4"))
mask = MaskBranchConfig(convolutions=(16,), truth="sharp") if name == "mask" else None
head = RCNNConfig(mask=mask, box=box, rpn=RPNConfig(pre_nms=(100, 100), post_nms=(50, 50)))
neck = FPNConfig(channels=16)
if name == "deeplab":
    head, neck = DeepLabConfig(level="c4", rates=(2, 4, 6), channels=16), PassthroughConfig()
backbone = ResNetConfig(name="resnet10t", levels=("c2", "c3", "c4"))
model = build_model(ModelConfig(backbone=backbone, neck=neck, head=head), ["a", "b", "c"])


def loss(images, targets):
    return model.head.padded_loss(model.features(images), images, targets)


def predict(images):
    return (model.head if name == "deeplab" else model.head.detect)(model.features(images), images)


def make_batch(size):
    sizes = (size, (size[0] - 10, size[1] - 20))
    images = Images.from_list([torch.randint(0, 256, (3, *each), dtype=torch.uint8) for each in sizes], 64)
    if name == "deeplab":
        return images, pad_maps([torch.randint(0, 3, each) for each in sizes], images.padded_size)
    objects = []
    for height, width in sizes:
        number = random.randint(1, 8)
        corners = torch.rand(number, 2) * 20
        boxes = torch.cat([corners, corners + 5 + 20 * torch.rand(number, 2)], dim=1)
        masks = torch.rand(number, height, width) < 0.5
        objects.append(Instances(boxes, torch.randint(0, 3, (number,)), masks))
    return images, pad_targets(objects, images, count=8)._replace(instances=())


random.seed(0)
sizes = [(random.randrange(50, 250), random.randrange(50, 250)) for _ in range(20)]
compiled_loss, compiled_predict = (
    torch.compile(each, backend=backend, fullgraph=True, dynamic=True) for each in (loss, predict)
)
for step in range(count):
    images, targets = make_batch(sizes[step % 20])
    torch._dynamo.config.error_on_recompile = step > 0
    model.train()
    torch.manual_seed(step)
    found = compiled_loss(images, targets)
    total_loss(found).backward()
    torch.manual_seed(step)
    torch.testing.assert_close(split_losses(found)[0], split_losses(loss(images, targets))[0], rtol=1e-3, atol=1e-5)
    model.eval()
    with torch.no_grad():
        found, expected = compiled_predict(images), predict(images)
        if name != "deeplab":
            found, expected = found[0].scores, expected[0].scores
            found = found[:, : expected.shape[1]]  # the graph has a fixed number of rows
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
assert not torch._dynamo.utils.counters["graph_break"]
print("one graph")
"""


def compile_whole(name: str, backend: str, count: int) -> None:
    done = subprocess.run([sys.executable, "-c", COMPILE, name, backend, str(count)], capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "one graph", done.stderr


@pytest.mark.slow
def test_whole_mask_rcnn_is_one_graph():
    """Law: nothing breaks the graph of the loss or of prediction, and batches of new sizes are not compiled again."""
    compile_whole("mask", "eager", 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faster", "mask", "deeplab"])
def test_whole_loss_and_prediction_are_one_graph(name):
    """Law: over 50 batches of 20 sizes nothing breaks the graph or is compiled again, and all numbers are the same."""
    compile_whole(name, "eager", 50)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faster", "mask", "deeplab"])
def test_whole_graph_compiles_to_machine_code(name):
    """Law: the code that inductor generates computes the same losses and predictions."""
    compile_whole(name, "inductor", 6)
