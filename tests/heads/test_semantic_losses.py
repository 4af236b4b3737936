"""The losses of a map of logits against torch's, slow loops of their definitions, and cases done by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from vertebra.heads import SemanticLoss, SemanticLossConfig

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
    """Logits of two images that learn, and a truth with unknown pixels that lacks the last class."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, 6, 7, generator=generator, dtype=torch.float32) * 2
    truth = torch.randint(0, CLASSES - 1, (2, 6, 7), generator=generator)
    truth[torch.rand(2, 6, 7, generator=generator) < ignored] = 255
    return logits.requires_grad_(), truth


def loss_of(logits, truth, **config):
    return SemanticLoss(logits.shape[1], SemanticLossConfig(**config))(logits, truth)


def assert_same(logits, ours, expected):
    """The same loss and the same gradient."""
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, expected)]
    assert gradients[1].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def known_pixels(logits, truth):
    """The logits and the label of each known pixel."""
    rows = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    return [(row, label) for row, label in zip(rows, truth.flatten().tolist(), strict=True) if label != 255]


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0, 3.0)])
def test_cross_entropy_is_torchs(weights):
    """Oracle: torch's mean, which leaves the ignored pixels out and weighs the others."""
    logits, truth = scene()
    tensor = None if weights is None else torch.tensor(weights)
    expected = F.cross_entropy(logits, truth, tensor, ignore_index=255)
    assert_same(logits, loss_of(logits, truth, class_weights=weights), expected)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0, 3.0)])
@pytest.mark.parametrize("hardest", [0.01, 0.2, 0.75])
def test_hard_pixels_are_the_first_of_a_sort(hardest, weights):
    """Oracle: Python's sort of the pixels' losses; the mean of the first, weighted where classes are."""
    logits, truth = scene()
    shares = weights or (1.0,) * CLASSES
    rows = [
        (-shares[label] * row.log_softmax(dim=0)[label], shares[label]) for row, label in known_pixels(logits, truth)
    ]
    rows.sort(key=lambda row: -row[0].item())
    chosen = rows[: max(1, int(hardest * len(rows)))]
    expected = torch.stack([error for error, _ in chosen]).sum() / sum(share for _, share in chosen)
    assert_same(logits, loss_of(logits, truth, hardest=hardest, class_weights=weights), expected)


def test_hard_pixels_are_detectron2s_where_all_are_known():
    """Oracle: detectron2's formula, the mean of the top k of all pixels; of unknown ones it would count zeros."""
    logits, truth = scene(ignored=0)
    errors = F.cross_entropy(logits, truth, reduction="none").flatten()
    assert_same(logits, loss_of(logits, truth, hardest=0.2), errors.topk(int(0.2 * len(errors))).values.mean())


def test_dice_is_a_slow_loop():
    """Oracle: V-Net's formula class by class, over the classes that are there."""
    logits, truth = scene()
    pixels = known_pixels(logits, truth)
    losses = []
    for label in range(CLASSES - 1):
        shares = [(row.softmax(dim=0)[label], float(own == label)) for row, own in pixels]
        overlap = sum(share * true for share, true in shares)
        losses.append(1 - 2 * overlap / sum(share**2 + true**2 for share, true in shares))
    assert_same(logits, loss_of(logits, truth, cross_entropy=0.0, dice=1.0), torch.stack(losses).mean())


def test_dice_by_hand():
    """Two pixels of the first of two classes, at probabilities 1/2 and 1: 1 - 2 * 1.5 / (1.25 + 2)."""
    logits = torch.tensor([[[[0.0, 50.0]], [[0.0, 0.0]]]])
    loss = loss_of(logits, torch.zeros(1, 1, 2, dtype=torch.int64), cross_entropy=0.0, dice=1.0)
    assert loss.item() == pytest.approx(1 - 3 / 3.25)


def test_lovasz_is_its_definition():
    """Oracle: the Lovasz extension in sets: errors from the greatest on, each times what its pixel adds to 1 - IoU."""
    logits, truth = scene()
    pixels = known_pixels(logits, truth)
    losses = []
    for label in range(CLASSES - 1):
        members = {place for place, (_, own) in enumerate(pixels) if own == label}
        shares = [row.softmax(dim=0)[label] for row, _ in pixels]
        errors = [1 - share if place in members else share for place, share in enumerate(shares)]
        mistakes, before, loss = set(), 0.0, torch.zeros(())
        for place in sorted(range(len(pixels)), key=lambda place: -errors[place].item()):
            mistakes.add(place)
            after = len(mistakes) / len(members | mistakes)
            loss = loss + errors[place] * (after - before)
            before = after
        losses.append(loss)
    assert_same(logits, loss_of(logits, truth, cross_entropy=0.0, lovasz=1.0), torch.stack(losses).mean())


def test_lovasz_of_a_sure_prediction_is_one_minus_the_iou():
    """A law of the extension: at the corners it is the set function. Here IoU is 2/3 and 1/2, of the third nothing."""
    truth = torch.tensor([[[0, 0, 1, 0, 1, 255]]])
    predicted = torch.tensor([[[0, 0, 1, 1, 1, 2]]])
    logits = F.one_hot(predicted, 3).permute(0, 3, 1, 2) * 60.0
    loss = loss_of(logits, truth, cross_entropy=0.0, lovasz=1.0)
    assert loss.item() == pytest.approx(1 - (2 / 3 + 2 / 3) / 2)


def test_a_sum_is_the_weighted_sum():
    """A law: each part times its weight."""
    logits, truth = scene()
    parts = {name: loss_of(logits, truth, **{"cross_entropy": 0.0, name: 1.0}) for name in ("dice", "lovasz")}
    total = loss_of(logits, truth, cross_entropy=0.5, dice=2.0, lovasz=3.0)
    expected = 0.5 * loss_of(logits, truth) + 2 * parts["dice"] + 3 * parts["lovasz"]
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_ignored_pixels_change_nothing(config):
    """A law: a map beside a wide border of unknown pixels, whatever is predicted there, gives the same loss."""
    logits, truth = scene()
    noise = F.pad(logits.detach(), (0, 9, 0, 5), value=3.0) + F.pad(torch.zeros_like(logits), (0, 9, 0, 5), value=1.0)
    padded = F.pad(truth, (0, 9, 0, 5), value=255)
    torch.testing.assert_close(loss_of(noise, padded, **config), loss_of(logits, truth, **config).detach())


@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_without_a_known_pixel_loss_and_gradient_are_zero(config):
    """A law: exactly, and nothing is NaN."""
    logits, truth = scene(ignored=1.1)
    loss = loss_of(logits, truth, **config)
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_nothing_is_read_back_from_the_device(config):
    """A law of the design: on ``meta`` there are no values to read."""
    loss = SemanticLoss(CLASSES, SemanticLossConfig(**config)).to("meta")
    assert loss(*(tensor.detach().to("meta") for tensor in scene())).shape == ()


def test_a_perfect_prediction_costs_nothing():
    """A law of all: the truth itself, surely, is no loss; its opposite is much."""
    _, truth = scene()
    right = F.one_hot(truth.clamp(max=CLASSES - 1), CLASSES).permute(0, 3, 1, 2) * 60.0
    for config in LOSSES:
        assert loss_of(right, truth, **config) < 1e-6
        assert loss_of(-right, truth, **config) > 0.5


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes():
    """By hand: every class has the same share."""
    assert loss_of(torch.zeros(1, 9, 2, 2), torch.ones(1, 2, 2, dtype=torch.int64)).item() == pytest.approx(math.log(9))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"cross_entropy": 0.0}, "needs a part"),
        ({"cross_entropy": 0.0, "dice": 1.0, "hardest": 0.5}, "weight 0 here: raise it"),
        ({"cross_entropy": 0.0, "dice": 1.0, "class_weights": (1.0,)}, "weight 0 here: raise it"),
        ({"hardest": 0.0}, "greater than 0"),
        ({"focal": 1.0}, "Extra inputs"),
    ],
)
def test_what_makes_no_loss_is_refused(config, match):
    """ValidationError that says what is wrong."""
    with pytest.raises(ValidationError, match=match):
        SemanticLossConfig(**config)


def test_class_weights_must_be_as_many_as_classes():
    """ValueError that shows both numbers."""
    with pytest.raises(ValueError, match="each of the 4 classes; got 2"):
        SemanticLoss(CLASSES, SemanticLossConfig(class_weights=(1.0, 2.0)))
