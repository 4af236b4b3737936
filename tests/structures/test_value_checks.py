"""What values refuse at construction, as users meet it: in a process without the tests' own checks of every shape."""

import subprocess
import sys

import pytest

PRELUDE = """
import numpy as np, sys, torch
from vertebra.data import Objects, Sample
from vertebra.structures import Images, Instances
boxes, labels = torch.ones(1, 4), torch.zeros(1, dtype=torch.int64)
pixels = torch.zeros(3, 4, 6, dtype=torch.uint8)
box, label, none = np.ones((1, 4), np.float32), np.zeros(1, np.int64), np.zeros((0, 4), np.float32)
"""

REFUSED = {
    "Instances(torch.ones(4), labels)": "boxes must have shape (n, 4), got (4,)",
    "Instances(boxes, torch.zeros(2, dtype=torch.int64))": "one label per box is needed, got 1 boxes and 2 labels",
    "Instances(boxes, labels, torch.ones(2, 4, 5) > 0)": "one mask per box is needed, got 1 boxes and 2 masks",
    "Instances(boxes, labels, torch.full((1, 4, 5), 255))": "masks are true or false (torch.bool), got torch.int64",
    "Objects(box, np.zeros(2, np.int64), none)": "one label per box is needed, got 1 boxes and 2 labels",
    "Objects(box, label, none, np.zeros((0, 4, 6), np.uint8))": "one mask per box is needed, got 1 boxes and 0 masks",
    "Objects(box, label, none, np.zeros((2, 4, 6), np.uint8))": "one mask per box is needed, got 1 boxes and 2 masks",
    "Objects(box, label, none, np.full((1, 4, 6), 255, np.uint8))": (
        "masks are 1 on the object and 0 elsewhere, got 255"
    ),
    "Sample(pixels, torch.zeros(4, 5, dtype=torch.int64), 3, (4, 6), '')": (
        "image 3 is (height, width) (4, 6), its masks are (4, 5)"
    ),
    "Sample(pixels, Instances(boxes, labels, torch.ones(1, 4, 5) > 0), 3, (4, 6), '')": (
        "image 3 is (height, width) (4, 6), its masks are (4, 5)"
    ),
    "Images(torch.zeros(1, 3, 4, 6), torch.tensor([[4, 6]]))": "Images hold uint8 pixels 0..255",
    "Images.from_list([])": "needs at least one image",
}


@pytest.fixture(scope="module")
def messages():
    """What each expression raises, from one process for all."""
    tries = [
        f"try: {expression}\nexcept ValueError as error: print(error)\nelse: print('taken')" for expression in REFUSED
    ]
    program = "\n".join([PRELUDE, *tries])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return dict(zip(REFUSED, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("expression", REFUSED)
def test_a_value_that_cannot_be_is_refused(messages, expression):
    """FAULTS 42, 56, 57, 59: what would train on nonsense in silence is a ValueError that says what came and what was
    expected."""
    assert REFUSED[expression] in messages[expression]
