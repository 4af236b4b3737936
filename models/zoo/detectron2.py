"""detectron2's model zoo; the files and scores are those of its ``model_zoo.py`` and ``MODEL_ZOO.md``.

The defaults of Vertebra's heads are detectron2's conventions; the configs below change what a model has of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from ...backbones import ResNetConfig
from ...heads import (
    CASCADE,
    BoxBranchConfig,
    DenseSelectionConfig,
    HeadConfig,
    KeypointBranchConfig,
    MaskBranchConfig,
    PanopticFPNConfig,
    RCNNConfig,
    RetinaNetConfig,
    RPNConfig,
)
from ...necks import FPNConfig, PassthroughConfig
from ...ops import RoIAlignConfig
from ...structures import (
    COCO_SKELETON,
    COCO_STUFF,
    COCO_THINGS,
    DETECTRON2_INPUT,
    DETECTRON2_INPUT_WITH_STD,
    Classes,
    InputConfig,
    PartConfig,
    ShortSideResize,
    UsageError,
    panoptic_classes,
)
from ..build import ModelConfig
from ..keys.detectron2 import key_map
from .published import PublishedModel, PublishedWeights

_URL = "https://dl.fbaipublicfiles.com/detectron2"
_PAGE = "https://github.com/facebookresearch/detectron2/blob/main/MODEL_ZOO.md"


@dataclass(frozen=True, slots=True)
class _Pyramid:
    """The parts below a head: pixels, backbone and neck."""

    input: InputConfig
    backbone: ResNetConfig
    neck: PartConfig

    def with_norm(self, norm: Literal["group", "sync"], **changes: Any) -> "_Pyramid":
        """Return the pyramid with a norm in the backbone and the FPN, and other changes of the backbone."""
        return replace(self, backbone=self.backbone.replace(norm=norm, **changes), neck=self.neck.replace(norm=norm))


# ``caffe``: MSRA's networks have the stride in the first 1x1 convolution of a bottleneck (``STRIDE_IN_1X1``).
_R50 = ResNetConfig(name="resnet50", style="caffe", norm="frozen", freeze_at=2)
_R101 = _R50.replace(name="resnet101")
_DILATED = {"levels": ("c5",), "output_stride": 16}
_RETINANET_NECK = FPNConfig(levels=("c3", "c4", "c5"), extra="conv_from_input")

R50 = _Pyramid(DETECTRON2_INPUT, _R50, FPNConfig())
R101 = _Pyramid(DETECTRON2_INPUT, _R101, FPNConfig())
X101 = _Pyramid(
    DETECTRON2_INPUT_WITH_STD, ResNetConfig(name="resnext101_32x8d", norm="frozen", freeze_at=2), FPNConfig()
)
R50_DC5 = _Pyramid(DETECTRON2_INPUT, _R50.replace(**_DILATED), PassthroughConfig())
R101_DC5 = _Pyramid(DETECTRON2_INPUT, _R101.replace(**_DILATED), PassthroughConfig())
R50_P3 = replace(R50, neck=_RETINANET_NECK)
R101_P3 = replace(R101, neck=_RETINANET_NECK)
R50_GN = R50.with_norm("group", style="pytorch")
R50_SYNC = R50.with_norm("sync")
R50_GN_3X = R50.with_norm("group", style="pytorch", freeze_at=0)
R50_GN_9X = replace(R50_GN_3X, input=DETECTRON2_INPUT_WITH_STD)
R50_SYNC_9X = replace(R50.with_norm("sync", style="pytorch", freeze_at=0), input=DETECTRON2_INPUT_WITH_STD)
R50_LSJ = R50.with_norm("sync", freeze_at=0)
R101_LSJ = R101.with_norm("sync", freeze_at=0)

_C5_RPN = RPNConfig(
    levels=("c5",), anchor_sizes=((32, 64, 128, 256, 512),), pre_nms=(12_000, 6_000), post_nms=(2000, 1000)
)
_MASKS = MaskBranchConfig(truth="polygons")
_POOL_1 = RoIAlignConfig(sampling_ratio=2, aligned=False)  # the first Detectron's


def _normed_heads(norm: Literal["group", "sync"]) -> RCNNConfig:
    """Return Mask R-CNN with norms in its branches, and with four convolutions and one layer in the box branch."""
    box = BoxBranchConfig(convolutions=(256, 256, 256, 256), norm=norm, fc=(1024,))
    return RCNNConfig(box=box, mask=_MASKS.replace(norm=norm))


BOXES = RCNNConfig()
BOXES_DC5 = RCNNConfig(rpn=_C5_RPN, box=BoxBranchConfig(levels=("c5",)))
BOXES_1 = RCNNConfig(rpn=RPNConfig(beta=0.1111), box=BoxBranchConfig(beta=1.0, pool=_POOL_1))
MASKS = RCNNConfig(mask=_MASKS)
MASKS_DC5 = BOXES_DC5.replace(mask=_MASKS.replace(levels=("c5",)))
MASKS_1 = BOXES_1.replace(mask=_MASKS.replace(pool=_POOL_1.replace(size=14)))
MASKS_GN = _normed_heads("group")
MASKS_SYNC = _normed_heads("sync")
MASKS_LSJ = MASKS_SYNC.replace(rpn={"convolutions": 2})
CASCADE_MASKS = CASCADE.replace(rpn={"post_nms": (2000, 1000)}, mask=_MASKS)
KEYPOINTS = RCNNConfig(
    rpn=RPNConfig(post_nms=(1500, 1000)), box=BoxBranchConfig(beta=0.5), keypoint=KeypointBranchConfig()
)
KEYPOINTS_1 = KEYPOINTS.replace(
    rpn={"beta": 0.1111},
    box={"beta": 1.0, "pool": _POOL_1},
    keypoint={"pool": _POOL_1.replace(size=14)},
)
PANOPTIC = PanopticFPNConfig()
RETINANET = RetinaNetConfig(selection=DenseSelectionConfig(clip="after"))

_ROWS = (
    # name, pyramid, head, model id / digits of the MD5 digest, box AP, mask or keypoint AP, PQ
    ("COCO-Detection/faster_rcnn_R_50_DC5_1x", R50_DC5, BOXES_DC5, "137847829/51d356", 37.3),
    ("COCO-Detection/faster_rcnn_R_50_FPN_1x", R50, BOXES, "137257794/b275ba", 37.9),
    ("COCO-Detection/faster_rcnn_R_50_DC5_3x", R50_DC5, BOXES_DC5, "137849425/68d202", 39.0),
    ("COCO-Detection/faster_rcnn_R_50_FPN_3x", R50, BOXES, "137849458/280758", 40.2),
    ("COCO-Detection/faster_rcnn_R_101_DC5_3x", R101_DC5, BOXES_DC5, "138204841/3e0943", 40.6),
    ("COCO-Detection/faster_rcnn_R_101_FPN_3x", R101, BOXES, "137851257/f6e8b1", 42.0),
    ("COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x", X101, BOXES, "139173657/68b088", 43.0),
    ("COCO-Detection/retinanet_R_50_FPN_1x", R50_P3, RETINANET, "190397773/bfca0b", 37.4),
    ("COCO-Detection/retinanet_R_50_FPN_3x", R50_P3, RETINANET, "190397829/5bd44e", 38.7),
    ("COCO-Detection/retinanet_R_101_FPN_3x", R101_P3, RETINANET, "190397697/971ab9", 40.4),
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x", R50_DC5, MASKS_DC5, "137260150/4f86c3", 38.3, 34.2),
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", R50, MASKS, "137260431/a54504", 38.6, 35.2),
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x", R50_DC5, MASKS_DC5, "137849551/84107b", 40.0, 35.9),
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x", R50, MASKS, "137849600/f10217", 41.0, 37.2),
    ("COCO-InstanceSegmentation/mask_rcnn_R_101_DC5_3x", R101_DC5, MASKS_DC5, "138363294/0464b7", 41.9, 37.3),
    ("COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x", R101, MASKS, "138205316/a3ec72", 42.9, 38.6),
    ("COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x", X101, MASKS, "139653917/2d9806", 44.3, 39.5),
    ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x", R50, KEYPOINTS, "137261548/04e291", 53.6, 64.0),
    ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x", R50, KEYPOINTS, "137849621/a6e10b", 55.4, 65.5),
    ("COCO-Keypoints/keypoint_rcnn_R_101_FPN_3x", R101, KEYPOINTS, "138363331/997cc7", 56.4, 66.1),
    ("COCO-Keypoints/keypoint_rcnn_X_101_32x8d_FPN_3x", X101, KEYPOINTS, "139686956/5ad38f", 57.3, 66.0),
    ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x", R50, PANOPTIC, "139514544/dbfeb4", 37.6, 34.7, 39.4),
    ("COCO-PanopticSegmentation/panoptic_fpn_R_50_3x", R50, PANOPTIC, "139514569/c10459", 40.0, 36.5, 41.5),
    ("COCO-PanopticSegmentation/panoptic_fpn_R_101_3x", R101, PANOPTIC, "139514519/cafdb1", 42.4, 38.5, 43.0),
    ("Cityscapes/mask_rcnn_R_50_FPN", R50, MASKS, "142423278/af9cf5", None, 36.5),
    ("Misc/cascade_mask_rcnn_R_50_FPN_1x", R50, CASCADE_MASKS, "138602847/e9d89b", 42.1, 36.4),
    ("Misc/cascade_mask_rcnn_R_50_FPN_3x", R50, CASCADE_MASKS, "144998488/480dd8", 44.3, 38.5),
    ("Misc/mask_rcnn_R_50_FPN_3x_gn", R50_GN, MASKS_GN, "138602888/dc5d9e", 42.6, 38.6),
    ("Misc/mask_rcnn_R_50_FPN_3x_syncbn", R50_SYNC, MASKS_SYNC, "169527823/3b3c51", 41.9, 37.8),
    ("Misc/scratch_mask_rcnn_R_50_FPN_3x_gn", R50_GN_3X, MASKS_GN, "138602908/01ca85", 39.9, 36.6),
    ("Misc/scratch_mask_rcnn_R_50_FPN_9x_gn", R50_GN_9X, MASKS_GN, "183808979/da7b4c", 43.7, 39.6),
    ("Misc/scratch_mask_rcnn_R_50_FPN_9x_syncbn", R50_SYNC_9X, MASKS_SYNC, "184226666/5ce33e", 43.6, 39.3),
    ("Detectron1-Comparisons/faster_rcnn_R_50_FPN_noaug_1x", R50, BOXES_1, "137781054/7ab50c", 36.9),
    ("Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x", R50, MASKS_1, "137781281/62ca52", 37.8, 34.9),
    ("Detectron1-Comparisons/keypoint_rcnn_R_50_FPN_1x", R50, KEYPOINTS_1, "137781195/cce136", 53.1, 64.2),
    ("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ", R50_LSJ, MASKS_LSJ, "42047764/bb69de", 44.6, 40.3),
    ("new_baselines/mask_rcnn_R_50_FPN_200ep_LSJ", R50_LSJ, MASKS_LSJ, "42047638/89a8d3", 46.3, 41.7),
    ("new_baselines/mask_rcnn_R_50_FPN_400ep_LSJ", R50_LSJ, MASKS_LSJ, "42019571/14d201", 47.4, 42.5),
    ("new_baselines/mask_rcnn_R_101_FPN_100ep_LSJ", R101_LSJ, MASKS_LSJ, "42025812/4f7b58", 46.4, 41.6),
    ("new_baselines/mask_rcnn_R_101_FPN_200ep_LSJ", R101_LSJ, MASKS_LSJ, "42131867/0bb7ae", 48.0, 43.1),
    ("new_baselines/mask_rcnn_R_101_FPN_400ep_LSJ", R101_LSJ, MASKS_LSJ, "42073830/f96b26", 48.9, 43.7),
)  # fmt: skip

NAMES = tuple(row[0] for row in _ROWS)
NOT_COVERED = "its C4, RegNet, RPN, Fast R-CNN, LVIS and deformable models are not covered"

_REASONS = {
    "C4": "its box branch contains the last stage of the backbone, which Vertebra's R-CNN cannot: choose an FPN model",
    "regnet": "RegNet is not one of Vertebra's own backbones",
    "dconv": "its deformable convolutions have no modulation, but Vertebra's have (DCNv2)",
    "/rpn_": "it proposes regions without classes",
    "/fast_rcnn": "it needs a file of proposals",
    "LVIS": "the names of its classes are not part of Vertebra",
}
"""The reasons why models of the zoo are not covered, by a part of their names."""

_CITYSCAPES = Classes(
    ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"), (24, 25, 26, 27, 28, 31, 32, 33)
)


@cache
def find(entry: str) -> PublishedModel | None:
    """Return a model by its name in detectron2's zoo, such as ``COCO-Detection/faster_rcnn_R_50_FPN_3x``.

    Returns None for an unknown name. Raises UsageError with the reason if the model is not covered.
    """
    for part, reason in _REASONS.items():
        if part in entry:
            raise UsageError(f"detectron2/{entry} is not covered: {reason}")
    for name, pyramid, head, file, *scores in _ROWS:
        if name == entry:
            return _describe(name, pyramid, head, _weights(name, file, head, scores))
    return None


def _describe(
    name: str, pyramid: _Pyramid, head: HeadConfig, weights: Mapping[str, PublishedWeights]
) -> PublishedModel:
    model = ModelConfig(input=pyramid.input, backbone=pyramid.backbone, neck=pyramid.neck, head=head)
    cityscapes = name.startswith("Cityscapes")
    return PublishedModel(
        f"detectron2/{name}",
        model,
        classes={"detection": _CITYSCAPES} if cityscapes else coco_classes(head),
        preprocessing=ShortSideResize(short_side=1024 if cityscapes else 800, long_side=2048 if cityscapes else 1333),
        keys=key_map(model),
        weights=weights,
    )


def coco_classes(head: HeadConfig) -> dict[str, Classes]:
    """Return the classes by task of a model that was trained on COCO."""
    if isinstance(head, PanopticFPNConfig):
        return panoptic_classes(COCO_THINGS, COCO_STUFF, "one")
    if isinstance(head, RCNNConfig) and head.keypoint is not None:
        return {"detection": Classes(COCO_THINGS.names[:1], COCO_THINGS.ids[:1], skeleton=COCO_SKELETON)}
    return {"detection": COCO_THINGS}


def _weights(name: str, file: str, head: HeadConfig, scores: Sequence[float | None]) -> dict[str, PublishedWeights]:
    """Return the published weights of a model by their tag, which is detectron2's model id."""
    model_id, _, md5 = file.partition("/")
    metrics = ["box AP", "mask AP", "PQ"]
    if isinstance(head, RCNNConfig) and head.keypoint is not None:
        metrics[1] = "keypoint AP"
    data = "Cityscapes" if name.startswith("Cityscapes") else "COCO"
    return {
        model_id: PublishedWeights(
            url=f"{_URL}/{name}/{model_id}/model_final_{md5}.pkl",
            scores={metric: score for metric, score in zip(metrics, scores, strict=False) if score is not None},
            license=f"CC BY-SA 3.0 (detectron2); trained on {data}, whose images have their owners' licenses",
            page=_PAGE,
            md5=md5,
        )
    }
