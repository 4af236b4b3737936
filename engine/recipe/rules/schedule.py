"""Rules for the length of a training and its learning rate."""

import math
from collections.abc import Iterable

from ....backbones import BACKBONES, HasParameterLayers
from ....heads import RCNNConfig
from ....structures import UsageError
from ...config import ExperimentConfig
from ...optim.optimizers import AdamWConfig, SGDConfig, scaled_learning_rate
from ..choices import Choice, has_field
from ..facts import DataFacts

BATCH_SIZE = 8
"""Images per step: half of the usual 16, for the memory of one GPU."""
COCO_IMAGES, COCO_EPOCHS = 118_287, 12
"""The number of images and epochs of the 1x schedule."""
EXPONENT = 0.19
"""The exponent with which the number of epochs falls as the number of images grows: VOC's 16,551 images are trained for
17.4 epochs (detectron2's faster_rcnn_R_50_C4 on VOC: 18,000 steps of 16), COCO's 118,287 for 12."""
FEWEST_STEPS = 300
AVERAGED_FROM = 1000
"""The number of steps from which on the weights are averaged."""
AVERAGED_FRACTION = 0.05
"""The fraction of the steps over which they are averaged."""
LARGEST_DECAY = 0.9998
"""The largest decay of the average, that of YOLOX."""
LAYER_DECAY = 0.8
"""The factor from the learning rate of a layer to that of the layer below it."""
WARMUP = 0.1
"""The fraction of the steps that the warm-up takes at most."""
FEW_STEPS = 1000
"""Number of steps below which an R-CNN on a pretrained backbone gets a higher learning rate. Only trainings of 100 and
156 steps were measured (docs/learning.md)."""


def choose_batch_size(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Choose the number of images of a step."""
    size = min(config.recipe.batch_size, BATCH_SIZE)
    yield Choice("recipe.batch_size", size, "as many images of 800 pixels fit on one GPU")


def choose_steps(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Choose the number of steps from the number of images."""
    images = count_samples(facts.train_images, pretrained=config.model.start_from is not None)
    steps = max(FEWEST_STEPS, math.ceil(images / config.recipe.batch_size / 10) * 10)
    epochs = steps * config.recipe.batch_size / facts.train_images
    yield Choice("recipe.schedule.steps", steps, f"{facts.train_images} images are then seen {epochs:.0f} times each")


def count_samples(images: int, pretrained: bool) -> float:
    """Return how many images, with repetitions, a training takes; half as many if the complete model is pretrained."""
    epochs = COCO_EPOCHS * (COCO_IMAGES / images) ** EXPONENT
    return images * epochs * (0.5 if pretrained else 1.0)


def scale_learning_rate(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Scale the learning rate with the batch size: in proportion for SGD (1706.02677), by the square root for AdamW.

    If only its backbone is pretrained, an R-CNN with small batches learns little in fewer than ``FEW_STEPS`` steps at
    the proportional rate, so its rate is scaled by the square root for SGD too. After 100 steps of 4 images of BCCD,
    AP50 was 77.1 at 0.01 and 54.8 at 0.005, the proportional rate; after 156 steps 0.01 and 0.02 did not differ.
    """
    optimizer, batch = config.recipe.optimizer, config.recipe.batch_size
    if optimizer.lr_batch_size is None:
        return
    lr, rule = optimizer.lr, "by the square root of the batch size"
    if isinstance(optimizer, SGDConfig) and _needs_higher_rate(config):
        lr, rule = lr * (optimizer.lr_batch_size / batch) ** 0.5, f"{rule}, as there are fewer than {FEW_STEPS} steps"
    elif isinstance(optimizer, SGDConfig):
        rule = "in proportion to the batch size"
    rate = scaled_learning_rate(optimizer.replace(lr=lr), batch)
    yield Choice("recipe.optimizer.lr", lr, f"the rate scales {rule}: {rate:g} for {batch} images")


def _needs_higher_rate(config: ExperimentConfig) -> bool:
    """Return whether an R-CNN of which only the backbone is pretrained is trained shortly and with small batches."""
    model, recipe = config.model, config.recipe
    from_backbone = model.weights is not None and model.start_from is None and isinstance(model.head, RCNNConfig)
    small = recipe.optimizer.lr_batch_size is not None and recipe.batch_size < recipe.optimizer.lr_batch_size
    return from_backbone and small and recipe.schedule.steps < FEW_STEPS


def choose_decay(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Let the learning rate fall along a cosine instead of at the milestones of 90,000 steps on COCO.

    The trainings on BCCD whose scores :mod:`.losses` states followed a cosine; other decays were not compared with it.
    """
    if config.recipe.schedule.decay == "multistep":
        yield Choice("recipe.schedule.decay", "cosine", "a cosine has no milestones that depend on the length")


def begin_decay_after_warmup(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Let the decay begin at the end of the warm-up, so that the full rate is reached (figures in :mod:`.losses`)."""
    if has_field(config, "recipe.schedule.decay_from") and config.recipe.schedule.decay in ("cosine", "poly"):
        yield Choice("recipe.schedule.decay_from", "warmup", "the full rate is then reached in a short training too")


def lower_rates_below(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Give the lower layers of a pretrained transformer lower rates, if the optimizer is AdamW.

    ViTDet uses a factor of 0.7 to 0.9 per layer, by the size of the ViT (2203.16527 appendix A.2). ResNets are trained
    with one rate, and their first stages are frozen.
    """
    model, optimizer = config.model, config.recipe.optimizer
    is_pretrained = model.weights is not None or model.start_from is not None
    if isinstance(optimizer, AdamWConfig) and is_pretrained and model.backbone.name.startswith("timm/"):
        backbone = BACKBONES.build(model.backbone)
        try:
            layers = backbone.parameter_layers() if isinstance(backbone, HasParameterLayers) else {}
        except UsageError:  # timm does not define the layers of this network
            return
        if layers:
            reason = f"each of the {max(layers.values()) + 1} layers of the backbone learns slower than the one above"
            yield Choice("recipe.optimizer.layer_decay", LAYER_DECAY, reason)


def average_weights(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Evaluate an average of the weights, over a twentieth of the training, if it has a thousand steps or more.

    The scores during the training, by which it may end early, then vary less; at the end of a cosine the average is
    close to the last weights. An average over a fixed number of steps, such as YOLOX's 5,000 (2107.08430), would be
    longer than a short training. After 100 steps an average over 10 of them was no better than the last weights
    (docs/learning.md); nothing longer was measured.
    """
    steps = config.recipe.schedule.steps
    if steps >= AVERAGED_FROM:
        decay = round(min(1 - 1 / (AVERAGED_FRACTION * steps), LARGEST_DECAY), 6)
        yield Choice("recipe.ema_decay", decay, f"an average over {1 / (1 - decay):.0f} steps has steadier scores")


def choose_warmup(facts: DataFacts, config: ExperimentConfig) -> Iterable[Choice]:
    """Limit the warm-up to a tenth of the training."""
    schedule = config.recipe.schedule
    if schedule.decay == "onecycle":
        return
    steps = min(schedule.warmup_steps, math.ceil(schedule.steps * WARMUP))
    yield Choice("recipe.schedule.warmup_steps", steps, f"it takes at most {WARMUP:.0%} of the steps")
