"""The ArcFace head: losses against the formulas and another implementation, the margin beyond pi, and laws."""

import math

import pytest
import torch
import torch.nn.functional as F

from vertebra.heads import COSFACE, ArcFaceConfig, ArcFaceHead, add_margin, class_rows_by_tensor
from vertebra.structures import FeatureInfo, Images

PYRAMID = {"c4": FeatureInfo(3, 4)}
COMBINED = ArcFaceConfig(angle_factor=0.9, angular_margin=0.4, cosine_margin=0.15)
CONFIGS = {"arcface": ArcFaceConfig(), "cosface": COSFACE, "combined": COMBINED}
LABELS = [0, 2, 1, 0, 3]


def images_of(count: int) -> Images:
    return Images(torch.zeros(count, 3, 4, 4, dtype=torch.uint8), torch.tensor([[4, 4]] * count))


def head_on_vectors(config: ArcFaceConfig, dtype: torch.dtype = torch.float32) -> ArcFaceHead:
    """Return a head of four classes whose embedding is its input, a single cell of three channels."""
    torch.manual_seed(0)
    head = ArcFaceHead(PYRAMID, 4, config.replace(channels=3, norm="none"))
    torch.nn.init.eye_(head.embed.weight)
    torch.nn.init.zeros_(head.embed.bias)
    return head.to(dtype)


def vectors() -> torch.Tensor:
    """Return five vectors, of which the last is opposite to the center of its class."""
    found = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    found[4] = -head_on_vectors(ArcFaceConfig()).centers.weight[3].detach() * 50 + 0.1
    return found


def loss_of(config: ArcFaceConfig) -> torch.Tensor:
    features = {"c4": vectors()[:, :, None, None]}
    return head_on_vectors(config).loss(features, images_of(5), [torch.tensor(label) for label in LABELS])["loss_class"]


def loss_by_formula(config: ArcFaceConfig) -> float:
    """Return the mean cross-entropy, computed in plain Python from the formulas of the papers."""
    centers, total = head_on_vectors(config).centers.weight.tolist(), 0.0
    for vector, label in zip(vectors().tolist(), LABELS, strict=True):
        cosines = [
            sum(a * b for a, b in zip(vector, center, strict=True)) / math.hypot(*vector) / math.hypot(*center)
            for center in centers
        ]
        angle = math.acos(cosines[label])
        moved = config.angle_factor * angle + config.angular_margin
        shift = math.pi - (math.pi - config.angular_margin) / config.angle_factor
        own = math.cos(moved) if moved <= math.pi else cosines[label] - shift * math.sin(shift)
        logits = [config.scale * cosine for cosine in cosines]
        logits[label] = config.scale * (own - config.cosine_margin)
        largest = max(logits)
        total += largest + math.log(sum(math.exp(logit - largest) for logit in logits)) - logits[label]
    return total / len(LABELS)


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_equals_the_formula_by_hand(name):
    """By hand: 1801.07698 Eq. 3 and 4, and 1801.09414 Eq. 4; for one image, angle plus margin is beyond pi."""
    assert loss_of(CONFIGS[name]).item() == pytest.approx(loss_by_formula(CONFIGS[name]), rel=1e-5)


@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_loss_and_gradients_equal_pytorch_metric_learnings(name):
    """Oracle: pytorch-metric-learning with the same centers, in float64: losses, and gradients of both inputs."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    config, head = CONFIGS[name], head_on_vectors(CONFIGS[name], torch.float64)
    options = {"margin": math.degrees(config.angular_margin)} if name == "arcface" else {}
    theirs = (losses.ArcFaceLoss if name == "arcface" else losses.CosFaceLoss)(4, 3, scale=config.scale, **options)
    theirs.W.data = head.centers.weight.detach().T.clone()
    labels, inputs = torch.tensor(LABELS), [vectors().double().requires_grad_() for _ in range(2)]
    embeddings = F.normalize(inputs[0])
    cosines = F.linear(embeddings, F.normalize(head.centers.weight))
    loss = F.cross_entropy(config.scale * add_margin(cosines, labels, config), labels)
    expected = theirs(inputs[1], labels)
    for value in (loss, expected):
        value.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(head.centers.weight.grad, theirs.W.grad.T)


@pytest.mark.parametrize(
    "change",
    [
        {"angle_factor": 1.1},
        {"angular_margin": 0.51},
        {"cosine_margin": 0.01},
        {"scale": 30.0},
        {"beyond_pi": "easy"},
        {"beyond_pi": "cosine"},
    ],
    ids=str,
)
def test_every_convention_changes_the_loss(change):
    """Control: the comparison with the formula fails if a single field is changed."""
    expected = loss_by_formula(ArcFaceConfig())
    assert abs(loss_of(ArcFaceConfig(**change)).item() - expected) > 1e-3 * expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("linear", math.cos(3.0) - 0.5 * math.sin(0.5)),
        ("easy", math.cos(3.0)),
        ("cosine", math.cos(3.5)),
    ],
)
def test_margin_beyond_pi(rule, expected):
    """By hand: an angle of 3.0 plus the margin of 0.5 is beyond pi. At 2.0 only ``easy`` adds no margin, since the
    angle is above pi / 2; at 1.5 all rules add it."""
    angles = (3.0, 2.0, 1.5)
    cosines = torch.tensor([[math.cos(angle), 0.3] for angle in angles])
    moved = add_margin(cosines, torch.zeros(3, dtype=torch.int64), ArcFaceConfig(beyond_pi=rule))
    own = [expected, math.cos(2.0) if rule == "easy" else math.cos(2.5), math.cos(2.0)]
    torch.testing.assert_close(moved, torch.tensor([[value, 0.3] for value in own]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("factor", "margin"), [(1.0, 0.5), (0.9, 0.4), (1.35, 0.0), (1.0, 1.2)])
def test_linear_rule_keeps_the_logit_falling(factor, margin):
    """Law: a larger angle to the true center gives a smaller logit, except with ``cosine`` beyond pi."""
    cosines = torch.linspace(0, math.pi, 500, dtype=torch.float64)[1:-1].cos()[:, None]
    config = ArcFaceConfig(angle_factor=factor, angular_margin=margin)
    zeros = torch.zeros(len(cosines), dtype=torch.int64)
    steps = {
        rule: add_margin(cosines, zeros, config.replace(beyond_pi=rule)).diff(dim=0) for rule in ("linear", "cosine")
    }
    assert (steps["linear"] < 0).all() and (steps["cosine"] > 0).any()


@pytest.mark.parametrize("cosine", [1.0, -1.0])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradient_is_finite_where_embedding_and_center_coincide(name, cosine):
    """Law: the gradient of the loss is finite there, although the derivative of the arc cosine is not."""
    cosines = torch.tensor([[cosine, 0.5]], requires_grad=True)
    add_margin(cosines, torch.tensor([0]), CONFIGS[name]).sum().backward()
    assert cosines.grad is not None and cosines.grad.isfinite().all()


def test_embedding_needs_no_label_and_has_unit_length():
    """Law: predictions are the vectors of ``forward``, of length 1, whatever the centers are."""
    features = {"c4": torch.randn(2, 3, 1, 1)}
    head = ArcFaceHead(PYRAMID, 4, ArcFaceConfig(channels=8)).eval()
    before = head(features, images_of(2))
    torch.nn.init.constant_(head.centers.weight, torch.nan)
    predicted = head.predict(features, images_of(2))
    torch.testing.assert_close(torch.stack([embedding.vector for embedding in predicted]), before)
    torch.testing.assert_close(before.norm(dim=1), torch.ones(2))


def test_padding_does_not_change_the_embedding():
    """Law: features in the padding, which depend on the other images of the batch, do not change the embedding."""
    head = ArcFaceHead(PYRAMID, 4, ArcFaceConfig(channels=8)).eval()
    images = Images(torch.zeros(1, 3, 8, 16, dtype=torch.uint8), torch.tensor([[8, 7]]))
    features = {"c4": torch.randn(1, 3, 2, 4)}
    before = head(features, images)
    features["c4"][..., 2:] = 1e3
    torch.testing.assert_close(head(features, images), before)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_exported_program_equals_the_head(norm):
    """Oracle: torch.export of the head without labels, for other images than the program was traced with."""
    head = ArcFaceHead(PYRAMID, 4, ArcFaceConfig(channels=8, norm=norm)).eval()

    class Embedder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, level: torch.Tensor, pixels: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
            return self.head({"c4": level}, Images(pixels, sizes))

    images = images_of(3)
    program = torch.export.export(Embedder(), (torch.randn(3, 3, 1, 1), images.pixels, images.sizes)).module()
    level = torch.randn(3, 3, 1, 1)
    torch.testing.assert_close(program(level, images.pixels, images.sizes), head({"c4": level}, images))


def test_cosines_are_exact_under_autocast():
    """Law: in half precision features, the embeddings and the loss are float32 and differ by the features' rounding."""
    head = ArcFaceHead(PYRAMID, 4, ArcFaceConfig(channels=8, norm="none"))
    features, targets = {"c4": vectors()[:, :, None, None]}, [torch.tensor(label) for label in LABELS]
    exact = head.loss(features, images_of(5), targets)["loss_class"]
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = head(features, images_of(5))
        assert embeddings.dtype == torch.float32
        expected = F.linear(embeddings.double(), F.normalize(head.centers.weight.double()))
        torch.testing.assert_close(head._cosines(embeddings).double(), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(head.loss(features, images_of(5), targets)["loss_class"], exact, rtol=0.05, atol=0)


def test_no_value_is_read_back_from_the_device():
    """Law: loss and prediction run on ``meta`` tensors, which have no values."""
    with torch.device("meta"):
        head = ArcFaceHead(PYRAMID, 4, ArcFaceConfig(channels=8))
        features = {"c4": torch.zeros(2, 3, 1, 1)}
        images = Images(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.int64))
        loss = head.loss(features, images, [torch.tensor(0), torch.tensor(1)])
        predictions = head.predict(features, images)
    assert loss["loss_class"].shape == () and loss["target_angle"].shape == (2,) and len(predictions[1]) == 8


def test_metric_is_the_angle_to_the_true_center():
    """By hand: of two images, one at its center and one at a right angle to it."""
    head = head_on_vectors(ArcFaceConfig())
    head.centers.weight.data[:2] = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    features = {"c4": torch.tensor([[0.0, 5.0, 0.0], [4.0, 0.0, 0.0]])[:, :, None, None]}
    metric = head.loss(features, images_of(2), [torch.tensor(0), torch.tensor(1)])["target_angle"]
    assert metric.tolist() == pytest.approx([0, 90], abs=0.03) and not metric.requires_grad


def test_centers_have_a_row_for_each_class():
    """By hand: the centers are the only tensor with rows per class, so that ``start_from`` copies them by name."""
    rows = class_rows_by_tensor(ArcFaceHead(PYRAMID, 4))
    assert list(rows) == ["centers.weight"] and rows["centers.weight"][0] == "classification"


def test_missing_level_and_classes_are_refused():
    """By hand: ValueError with what was given."""
    with pytest.raises(ValueError, match=r"the ArcFace head reads levels \('c5',\), but the input has \('c4',\)"):
        ArcFaceHead(PYRAMID, 4, ArcFaceConfig(levels=("c5",)))
    with pytest.raises(ValueError, match="got num_classes=0"):
        ArcFaceHead(PYRAMID, 0)
