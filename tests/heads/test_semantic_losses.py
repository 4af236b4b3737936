"""The losses of a map of logits against torch's, slow loops of their definitions, and cases by hand."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from vertebra.heads import SemanticLoss, SemanticLossConfig
from vertebra.heads.semantic.losses import lovasz_softmax

from ..helpers.memory import peak_bytes

CLASSES = 4
LOSSES = [
    {},
    {"class_weights": (0.5, 2.0, 1.0, 3.0)},
    {"hardest": 0.2},
    {"cross_entropy": 0.0, "dice": 1.0},
    {"cross_entropy": 0.0, "lovasz": 1.0},
    {"dice": 0.5, "lovasz": 2.0},
]


def scene(ignored: float = 0.3):
    """Draw logits of two images, and targets with ignored pixels and without the last class."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, 6, 7, generator=generator, dtype=torch.float32) * 2
    target = torch.randint(0, CLASSES - 1, (2, 6, 7), generator=generator)
    target[torch.rand(2, 6, 7, generator=generator) < ignored] = 255
    return logits.requires_grad_(), target


def loss_of(logits, target, **config):
    return SemanticLoss(logits.shape[1], SemanticLossConfig(**config))(logits, target)


def assert_same(logits, ours, expected):
    """Compare two losses and their gradients."""
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, expected)]
    assert gradients[1].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def known_pixels(logits, target):
    """Return the logits and the label of each pixel that is not ignored."""
    rows = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    return [(row, label) for row, label in zip(rows, target.flatten().tolist(), strict=True) if label != 255]


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0, 3.0)])
def test_cross_entropy_equals_torchs(weights):
    """Oracle: torch's mean, which leaves the ignored pixels out and weighs the others."""
    logits, target = scene()
    tensor = None if weights is None else torch.tensor(weights)
    expected = F.cross_entropy(logits, target, tensor, ignore_index=255)
    assert_same(logits, loss_of(logits, target, class_weights=weights), expected)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0, 3.0)])
@pytest.mark.parametrize("hardest", [0.01, 0.2, 0.75])
def test_the_hardest_pixels_are_the_first_of_a_sort(hardest, weights):
    """Oracle: Python's sort of the pixels' losses; the mean of the first, by class weights where there are some."""
    logits, target = scene()
    factors = weights or (1.0,) * CLASSES
    rows = [
        (-factors[label] * row.log_softmax(dim=0)[label], factors[label]) for row, label in known_pixels(logits, target)
    ]
    rows.sort(key=lambda row: -row[0].item())
    hard_rows = rows[: max(1, int(hardest * len(rows)))]
    expected = torch.stack([error for error, _ in hard_rows]).sum() / sum(factor for _, factor in hard_rows)
    assert_same(logits, loss_of(logits, target, hardest=hardest, class_weights=weights), expected)


def test_the_hardest_pixels_equal_detectron2s_where_none_is_ignored():
    """Oracle: detectron2's formula, the mean of the top k of all pixels; it would count ignored ones as zeros."""
    logits, target = scene(ignored=0)
    errors = F.cross_entropy(logits, target, reduction="none").flatten()
    assert_same(logits, loss_of(logits, target, hardest=0.2), errors.topk(int(0.2 * len(errors))).values.mean())


def test_dice_equals_its_formula():
    """Oracle: V-Net's formula as a loop, class by class, over the classes that are in the target."""
    logits, target = scene()
    pixels = known_pixels(logits, target)
    losses = []
    for label in range(CLASSES - 1):
        pairs = [(row.softmax(dim=0)[label], float(pixel_label == label)) for row, pixel_label in pixels]
        overlap = sum(probability * truth for probability, truth in pairs)
        losses.append(1 - 2 * overlap / sum(probability**2 + truth**2 for probability, truth in pairs))
    assert_same(logits, loss_of(logits, target, cross_entropy=0.0, dice=1.0), torch.stack(losses).mean())


def test_dice_of_two_pixels():
    """By hand: two pixels of the first of two classes, at probabilities 1/2 and 1: 1 - 2 * 1.5 / (1.25 + 2)."""
    logits = torch.tensor([[[[0.0, 50.0]], [[0.0, 0.0]]]])
    loss = loss_of(logits, torch.zeros(1, 1, 2, dtype=torch.int64), cross_entropy=0.0, dice=1.0)
    assert loss.item() == pytest.approx(1 - 3 / 3.25)


def test_lovasz_equals_its_definition():
    """Oracle: the Lovasz extension in sets: errors from the greatest on, each times what its pixel adds to 1 - IoU."""
    logits, target = scene()
    pixels = known_pixels(logits, target)
    losses = []
    for label in range(CLASSES - 1):
        members = {index for index, (_, pixel_label) in enumerate(pixels) if pixel_label == label}
        probabilities = [row.softmax(dim=0)[label] for row, _ in pixels]
        errors = [1 - value if index in members else value for index, value in enumerate(probabilities)]
        mistakes, before, loss = set(), 0.0, torch.zeros(())
        for index in sorted(range(len(pixels)), key=lambda index: -errors[index].item()):
            mistakes.add(index)
            after = len(mistakes) / len(members | mistakes)
            loss = loss + errors[index] * (after - before)
            before = after
        losses.append(loss)
    assert_same(logits, loss_of(logits, target, cross_entropy=0.0, lovasz=1.0), torch.stack(losses).mean())


def lovasz_of_all_classes_at_once(probabilities, labels):
    """Compute the extension of all classes in one sort, and let autograd find the gradient."""
    truth, known = labels == torch.arange(len(probabilities))[:, None], labels != 255
    errors = (truth.to(probabilities.dtype) - probabilities).abs()
    errors, order = torch.where(known, errors, -1).sort(dim=1, descending=True)
    errors = errors.clamp(min=0)
    hits = truth.gather(1, order).cumsum(dim=1)
    pixels, mistakes = hits[:, -1:], torch.arange(1, hits.shape[1] + 1)
    jaccard = 1 - (pixels - hits) / (pixels + mistakes - hits)
    steps = torch.cat([jaccard[:, :1], jaccard.diff(dim=1)], dim=1)
    present = pixels[:, 0] > 0
    return torch.where(present, (errors * steps).sum(dim=1), 0).sum() / present.sum().clamp(min=1)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_lovasz_class_by_class_is_that_of_all_at_once_bit_for_bit(rounded, ignored):
    """Oracle: one sort of all classes, and autograd; with probabilities that are equal to others, too."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5000, generator=generator)
    probabilities = (logits.round() if rounded else logits).softmax(dim=0)
    labels = torch.randint(0, 6, (5000,), generator=generator)
    labels[torch.rand(5000, generator=generator) < ignored] = 255
    results = []
    for loss_function in (lovasz_softmax, lovasz_of_all_classes_at_once):
        leaf = probabilities.clone().requires_grad_()
        loss = loss_function(leaf, labels)
        (3 * loss).backward()
        results.append((loss.detach(), leaf.grad))
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)


def test_lovasz_does_not_sort_every_class_at_once():
    """Law: forward and backward take less than 16 bytes for each class and pixel beside the inputs."""
    probabilities = torch.rand(64, 2**14).softmax(dim=0).requires_grad_()
    labels = torch.randint(0, 64, (2**14,))
    assert peak_bytes(lambda: lovasz_softmax(probabilities, labels).backward()) < 16 * 64 * 2**14


def test_lovasz_of_a_sure_prediction_is_one_minus_the_iou():
    """Law: at the corners it is the set function. Here IoU is 2/3 and 1/2, of the third nothing."""
    target = torch.tensor([[[0, 0, 1, 0, 1, 255]]])
    predicted = torch.tensor([[[0, 0, 1, 1, 1, 2]]])
    logits = F.one_hot(predicted, 3).permute(0, 3, 1, 2) * 60.0
    loss = loss_of(logits, target, cross_entropy=0.0, lovasz=1.0)
    assert loss.item() == pytest.approx(1 - (2 / 3 + 2 / 3) / 2)


def test_the_loss_is_the_weighted_sum():
    """Law: each part times its weight."""
    logits, target = scene()
    parts = {name: loss_of(logits, target, **{"cross_entropy": 0.0, name: 1.0}) for name in ("dice", "lovasz")}
    total = loss_of(logits, target, cross_entropy=0.5, dice=2.0, lovasz=3.0)
    expected = 0.5 * loss_of(logits, target) + 2 * parts["dice"] + 3 * parts["lovasz"]
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_ignored_pixels_change_nothing(config):
    """Law: a map with a wide border of ignored pixels, whatever is predicted there, gives the same loss."""
    logits, target = scene()
    noise = F.pad(logits.detach(), (0, 9, 0, 5), value=3.0) + F.pad(torch.zeros_like(logits), (0, 9, 0, 5), value=1.0)
    padded = F.pad(target, (0, 9, 0, 5), value=255)
    torch.testing.assert_close(loss_of(noise, padded, **config), loss_of(logits, target, **config).detach())


@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_ignored_pixels_alone_have_no_loss_and_no_gradient(config):
    """Law: both are exactly zero, and nothing is NaN."""
    logits, target = scene(ignored=1.1)
    loss = loss_of(logits, target, **config)
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_nothing_is_read_back_from_the_device(config):
    """Law: on ``meta`` there are no values to read."""
    loss = SemanticLoss(CLASSES, SemanticLossConfig(**config)).to("meta")
    assert loss(*(tensor.detach().to("meta") for tensor in scene())).shape == ()


def test_a_perfect_prediction_costs_nothing():
    """Law: the target itself, predicted surely, has no loss; its opposite has much."""
    _, target = scene()
    right = F.one_hot(target.clamp(max=CLASSES - 1), CLASSES).permute(0, 3, 1, 2) * 60.0
    for config in LOSSES:
        assert loss_of(right, target, **config) < 1e-6
        assert loss_of(-right, target, **config) > 0.5


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes():
    """By hand: every class has the same probability."""
    assert loss_of(torch.zeros(1, 9, 2, 2), torch.ones(1, 2, 2, dtype=torch.int64)).item() == pytest.approx(math.log(9))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"cross_entropy": 0.0}, "all losses are switched off"),
        ({"cross_entropy": 0.0, "dice": 1.0, "hardest": 0.5}, "have no effect with cross_entropy=0"),
        ({"cross_entropy": 0.0, "dice": 1.0, "class_weights": (1.0,)}, "have no effect with cross_entropy=0"),
        ({"hardest": 0.0}, "greater than 0"),
        ({"focal": 1.0}, "there is no field 'focal'"),
    ],
)
def test_a_config_without_a_loss_is_refused(config, match):
    """ValidationError that says what is wrong."""
    with pytest.raises(ValidationError, match=match):
        SemanticLossConfig(**config)


def test_class_weights_must_be_as_many_as_classes():
    """ValueError that shows both numbers."""
    with pytest.raises(ValueError, match="4 values, one for each class; got 2"):
        SemanticLoss(CLASSES, SemanticLossConfig(class_weights=(1.0, 2.0)))


TWO_PROCESSES = """
import sys
import torch
import torch.distributed as dist
from vertebra.heads import SemanticLoss, SemanticLossConfig

dist.init_process_group("gloo")
rank = dist.get_rank()
pixels, weight, target, sizes, config = torch.load(sys.argv[1])
pixels, target = (tensor.split(sizes)[rank] for tensor in (pixels, target))
weight.requires_grad_()
loss = SemanticLoss(len(weight), SemanticLossConfig(**config))(torch.einsum("kc,bchw->bkhw", weight, pixels), target)
loss.backward()
for tensor in (loss.detach(), weight.grad):
    dist.all_reduce(tensor)  # as DDP averages gradients, and the engine losses
    tensor /= 2
torch.save((loss.detach(), weight.grad), f"{sys.argv[1]}.{rank}")
dist.destroy_process_group()
"""


@pytest.mark.parametrize("sizes", [[2, 2], [1, 3]])
def test_two_processes_have_the_dice_loss_of_one(sizes, tmp_path):
    """Law: loss and gradient, averaged over the processes, are those of one with all images, whose classes differ."""
    generator = torch.Generator().manual_seed(0)
    pixels, weight = torch.randn(4, 3, 8, 9, generator=generator), torch.randn(CLASSES, 3, generator=generator)
    target = torch.randint(0, 2, (4, 8, 9), generator=generator)
    target[2:] += 1  # the first class is on the first process alone
    target[0, :3] = 255
    config = {"cross_entropy": 0.5, "dice": 1.0}
    torch.save((pixels, weight, target, sizes, config), tmp_path / "case")
    (tmp_path / "script.py").write_text(TWO_PROCESSES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, str(tmp_path / "script.py"), str(tmp_path / "case")], check=True, timeout=100)
    leaf = weight.clone().requires_grad_()
    expected = loss_of(torch.einsum("kc,bchw->bkhw", leaf, pixels), target, **config)
    expected.backward()
    for rank in range(2):
        loss, gradient = torch.load(f"{tmp_path}/case.{rank}")
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(gradient, leaf.grad)
