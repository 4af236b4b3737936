"""What values refuse at construction for a user: in a process without the shape checks of the tests."""

import subprocess
import sys

import pytest
import torch

from vertebra.structures import Images, Instances

PRELUDE = """
import math, numpy as np, sys, torch
from vertebra.data import Objects, Sample
from vertebra.structures import (
    Classification, Detections, Embedding, Images, Instances, PanopticSegmentation, RoIMasks,
)
boxes, labels = torch.tensor([[0.0, 1.0, 5.0, 3.0]]), torch.zeros(1, dtype=torch.int64)
def instances(*box): return Instances(torch.cat([boxes, torch.tensor([box])]), labels.expand(2))
pixels = torch.zeros(3, 4, 6, dtype=torch.uint8)
box, label, none = boxes.numpy(), labels.numpy(), np.zeros((0, 4), np.float32)
bitmap = torch.ones(1, 4, 5) > 0
DETECTIONS = Detections(boxes, labels, torch.ones(1))
"""

REFUSED = {
    # boxes that no head can learn from
    "instances(1.0, 2.0, math.nan, 3.0)": "boxes[1] is (1, 2, nan, 3): a box is (x1, y1, x2, y2), finite, with x1 < x2",
    "instances(1.0, 2.0, math.inf, 3.0)": "boxes[1] is (1, 2, inf, 3)",
    "instances(-math.inf, 2.0, 5.0, 3.0)": "boxes[1] is (-inf, 2, 5, 3)",
    "instances(4.0, 2.0, 3.0, 3.0)": "boxes[1] is (4, 2, 3, 3)",
    "instances(1.0, 3.0, 3.0, 2.5)": "boxes[1] is (1, 3, 3, 2.5)",
    "instances(1.0, 2.0, 1.0, 3.0)": "correct it, or drop it if it is empty",
    "Instances(boxes, labels, ignored=torch.tensor([[1.0, 1, math.nan, 2]]))": "ignored[0] is (1, 1, nan, 2)",
    "Instances(boxes.long(), labels)": "boxes must be floating-point pixels, got torch.int64; convert them with .float",
    "Instances(torch.ones(4), labels)": "boxes must have shape (n, 4), got (4,)",
    # labels
    "Instances(boxes, labels - 1)": "labels[0] is -1; labels start at 0, and the background has no label",
    "Instances(boxes, labels.float())": "labels must be int64 of shape (n,), got torch.float32 of shape (1,)",
    "Instances(boxes, labels[:, None])": "labels must be int64 of shape (n,), got torch.int64 of shape (1, 1)",
    # counts
    "Instances(boxes, torch.zeros(2, dtype=torch.int64))": "one label per box is needed, got 1 boxes and 2 labels",
    "Instances(boxes, labels, torch.ones(2, 4, 5) > 0)": "one mask per box is needed, got 1 boxes and 2 masks",
    "Objects(box, np.zeros(2, np.int64), none)": "one label per box is needed, got 1 boxes and 2 labels",
    "Objects(box, label, none, np.zeros((0, 4, 6), np.uint8))": "one mask per box is needed, got 1 boxes and 0 masks",
    "Objects(box, label, none, np.zeros((2, 4, 6), np.uint8))": "one mask per box is needed, got 1 boxes and 2 masks",
    # masks
    "Instances(boxes, labels, torch.full((1, 4, 5), 255))": "masks must be torch.bool, got torch.int64",
    "Instances(boxes, labels, bitmap[0, :1] > 0)": "masks must have shape (n, height, width), got (1, 5)",
    "Objects(box, label, none, np.full((1, 4, 6), 255, np.uint8))": (
        "masks are 1 on the object and 0 elsewhere, got 255"
    ),
    "PanopticSegmentation(torch.zeros(2, 3), ())": (
        "a segment map is int32 of shape (height, width), got torch.float32 of (2, 3)"
    ),
    "PanopticSegmentation(torch.zeros(1, 2, 3, dtype=torch.int32), ())": "got torch.int32 of (1, 2, 3)",
    # ground truth of another image
    "Sample(pixels, torch.zeros(4, 5, dtype=torch.int64), 3, (4, 6), '')": (
        "image 3: the image has the (height, width) (4, 6), its semantic map (4, 5)"
    ),
    "Sample(pixels, Instances(boxes, labels, bitmap), 3, (4, 6), '')": (
        "image 3: the image has the (height, width) (4, 6), its masks (4, 5)"
    ),
    "Sample(pixels, instances(2.0, 0.0, 7.5, 4.0), 3, (4, 6), '')": (
        "image 3: boxes[1] is (2, 0, 7.5, 4): it must lie in its image of (height, width) (4, 6); clip it"
    ),
    "Sample(pixels, instances(2.0, 0.0, 5.0, 6.0), 3, (4, 6), '')": "image 3: boxes[1] is (2, 0, 5, 6)",
    "Sample(pixels, instances(-2.0, 0.0, 5.0, 4.0), 3, (4, 6), '')": "image 3: boxes[1] is (-2, 0, 5, 4)",
    # images
    "Images(torch.zeros(1, 3, 4, 6), torch.tensor([[4, 6]]))": "Images hold uint8 pixels 0..255",
    "Images(pixels[None], torch.tensor([4, 6]))": "sizes need a (height, width) for each of the 1 images; got shape (2",
    "Images.from_list([])": "needs at least one image",
    "Images.from_list([pixels, pixels[:1]])": "the same number of channels, got shapes (3, 4, 6), (1, 4, 6)",
    # predictions
    "Detections(torch.ones(4), labels, labels.float())": "boxes must have shape (n, 4), got (4,)",
    "Detections(boxes, labels, torch.ones(2))": "one score per box is needed, got 1 boxes and 2 scores",
    "Detections(boxes, labels.expand(3), torch.ones(1))": "one label per box is needed, got 1 boxes and 3 labels",
    "Detections(boxes, labels, torch.ones(1, 2))": "scores must have shape (n,), got (1, 2)",
    "Detections(boxes, labels, torch.ones(1), RoIMasks(torch.ones(2, 7, 7), (4, 6)))": "one mask per box is needed",
    "RoIMasks(torch.ones(7, 7), (4, 6))": "grids must have shape (n, size, size), got (7, 7)",
    "DETECTIONS[0, 1]": "rows are selected by an int, a slice, a list, or a 1-D tensor of ints or bools",
    "DETECTIONS[None]": "a 1-D tensor of ints or bools; got None",
    "DETECTIONS[0.5]": "a 1-D tensor of ints or bools; got 0.5",
    "DETECTIONS[labels[:, None]]": "a 1-D tensor of ints or bools; got a tensor of torch.int64, shape (1, 1)",
    "DETECTIONS[labels.float()]": "a 1-D tensor of ints or bools; got a tensor of torch.float32, shape (1,)",
    "list(Objects(box, label, none))": "objects are selected by a 1-D array of ints or bools, got 0",
    "Classification(labels, torch.ones(2))": "one score for each label, got shapes (1,) and (2,)",
    "Embedding(torch.ones(2, 3))": "an embedding is one vector, got shape (2, 3)",
}


@pytest.fixture(scope="module")
def messages():
    """Return the error of each expression, from one process for all of them."""
    tries = [
        f"try: {expression}\nexcept (ValueError, TypeError) as error: print(error)\nelse: print('accepted')"
        for expression in REFUSED
    ]  # fmt: skip
    program = "\n".join([PRELUDE, *tries])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return dict(zip(REFUSED, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("expression", REFUSED)
def test_invalid_value_is_refused(messages, expression):
    """docs/faults.md rows 29-34, 41, 42, 56, 57, 59, 82, 141, 144. By hand: a value that would silently train on
    nonsense raises an error that says what came and what was expected."""
    assert REFUSED[expression] in messages[expression]


def test_no_value_is_read_back_from_a_gpu():
    """Law: meta tensors, which have no values, stand for tensors on a GPU; what is known from the CPU is kept."""
    boxes, labels = torch.tensor([[0.0, 0.0, 5.0, 5.0]]), torch.tensor([4])
    moved = Instances(boxes, labels, torch.ones(1, 4, 5) > 0, ignored=boxes).to("meta")
    assert moved.boxes.device.type == moved.ignored.device.type == "meta" and moved.max_label == 4
    moved.require_size((4, 5))
    there = Instances(boxes.to("meta"), labels.to("meta"))
    assert there.max_label is None and len(there) == 1


def test_boxes_at_the_border_of_their_image_are_accepted():
    """By hand: a box of the whole image, and one that is larger by less than a pixel; a region to ignore may be
    larger still."""
    labels = torch.zeros(1, dtype=torch.int64)
    for box in ([0.0, 0.0, 6.0, 4.0], [-0.5, -0.9, 6.9, 4.9]):
        Instances(torch.tensor([box]), labels, ignored=torch.tensor([[-99.0, -99, 99, 99]])).require_size((4, 6))


def test_no_objects_are_accepted():
    """By hand: an image of background alone."""
    nothing = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4, 6, dtype=torch.bool))
    nothing.require_size((4, 6))
    assert len(nothing) == 0 and nothing.max_label == -1


def test_gray_images_make_a_batch_of_one_channel():
    """By hand: a batch of gray images has one channel; beside RGB a gray image would have been repeated silently."""
    images = Images.from_list([torch.full((1, 4, 6), 7, dtype=torch.uint8)] * 2, divisor=4)
    assert images.pixels.shape == (2, 1, 4, 8) and images.sizes.tolist() == [[4, 6]] * 2
