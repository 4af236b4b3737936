"""torchvision's Faster R-CNN as a reference: a small one with random weights that detect something, and Vertebra's
model with the same weights."""

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

import vertebra
from vertebra.heads import TORCHVISION, RCNNConfig, RCNNHead
from vertebra.models import Model, from_torchvision_detector
from vertebra.necks import FPN, FPNConfig
from vertebra.structures import Images

NUM_CLASSES = 7  # without the background
WIDTH = 64  # of the fully connected layers; torchvision's own 1024 tests no more
PROPOSALS = 300


def replace_in_branch(config: RCNNConfig, branch: str, **values) -> RCNNConfig:
    """Return the config with fields of a branch changed."""
    return config.replace(**{branch: getattr(config, branch).replace(**values)})


CONVENTIONS = replace_in_branch(TORCHVISION, "rpn", post_nms=(PROPOSALS, PROPOSALS))


def torchvision_detector(seed: int = 0) -> FasterRCNN:
    """Return a ResNet-18-FPN Faster R-CNN that does not resize, with random weights scaled to give many detections."""
    torch.manual_seed(seed)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    box_head = TwoMLPHead(256 * 7 * 7, WIDTH)
    predictor = FastRCNNPredictor(WIDTH, NUM_CLASSES + 1)
    model = FasterRCNN(
        backbone,
        box_head=box_head,
        box_predictor=predictor,
        box_score_thresh=0.0,
        rpn_post_nms_top_n_train=PROPOSALS,
        rpn_post_nms_top_n_test=PROPOSALS,
    )
    model.transform.resize = lambda image, target=None: (image, target)
    with torch.no_grad():
        model.rpn.head.cls_logits.weight.mul_(30)
        model.rpn.head.bbox_pred.weight.mul_(10)
        model.roi_heads.box_predictor.cls_score.weight.mul_(30)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(10)
    return model.eval()


def vertebra_detector(peer: FasterRCNN, config: RCNNConfig = CONVENTIONS) -> Model:
    """Return Vertebra's detector with the weights of torchvision's, under the conventions of a config."""
    backbone = vertebra.create_backbone("resnet18", norm="frozen")
    neck = FPN(backbone.feature_info, FPNConfig(extra="pool"))
    config = replace_in_branch(config, "box", fc=(WIDTH, WIDTH))
    model = Model(backbone, neck, RCNNHead(neck.feature_info, NUM_CLASSES, config))
    model.load_state_dict(from_torchvision_detector(peer.state_dict()))
    return model.eval()


def random_images(sizes: list[tuple[int, int]], seed: int = 0) -> tuple[list[Tensor], Images]:
    """Return the same smooth random images as torchvision takes them (0..1) and as Vertebra does."""
    generator = torch.Generator().manual_seed(seed)
    pixels = []
    for height, width in sizes:
        coarse = torch.rand(1, 3, 8, 8, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        pixels.append((smooth * 255).to(torch.uint8))
    return [image / 255 for image in pixels], Images.from_list(pixels)


def torchvision_features(
    peer: FasterRCNN, images: list[Tensor]
) -> tuple[dict[str, Tensor], torchvision.models.detection.image_list.ImageList]:
    """Return the features that torchvision's heads get, with Vertebra's names of levels."""
    with torch.no_grad():
        image_list, _ = peer.transform(images)
        features = peer.backbone(image_list.tensors)
    return dict(zip(("p2", "p3", "p4", "p5", "p6"), features.values(), strict=True)), image_list
