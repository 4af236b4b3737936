"""Heads that are described by the settings of detectron2."""

from typing import Any

from ...heads import (
    BoxBranchConfig,
    DenseSelectionConfig,
    HeadConfig,
    KeypointBranchConfig,
    MaskBranchConfig,
    PanopticFPNConfig,
    RCNNConfig,
    RetinaNetConfig,
    RPNConfig,
    SemanticFPNConfig,
)
from ...heads.retinanet import OCTAVE
from ...ops import RoIAlignConfig
from ...structures import COCO_KEYPOINTS, PanopticMergeConfig
from .detectron2_settings import Settings

NORMS = {"": "none", "FrozenBN": "frozen", "BN": "batch", "GN": "group", "SyncBN": "sync", "nnSyncBN": "sync"}
"""Vertebra's names of detectron2's norms."""

_ONES = [1.0, 1.0, 1.0, 1.0]
_LEVELS = {"regions": ("p2", "p3", "p4", "p5"), "rpn": ("p2", "p3", "p4", "p5", "p6")}
_DENSE_LEVELS = ("p3", "p4", "p5", "p6", "p7")
_DEFAULT_SIZES = {
    _LEVELS["rpn"]: ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
    _DENSE_LEVELS: tuple(tuple(32.0 * 2**level * step for step in OCTAVE) for level in range(5)),
}
"""The anchor sizes that Vertebra's heads take for None, by the levels that they read for None."""


def read_head(settings: Settings) -> HeadConfig:
    """Return the config of the head of a model; raise UsageError for a setting without counterpart."""
    architectures = {"GeneralizedRCNN": _rcnn, "PanopticFPN": _panoptic, "RetinaNet": _retinanet}
    return settings.choose("MODEL.META_ARCHITECTURE", architectures)(settings)


def read_levels(settings: Settings, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """Return the levels in a setting by Vertebra's names; None if they are the ``default`` of Vertebra's part."""
    levels = tuple(level.replace("res", "c") for level in settings[name])
    return None if levels == default else levels


def _rcnn(settings: Settings) -> RCNNConfig:
    """Return the head of an R-CNN."""
    names = {"StandardROIHeads": False, "CascadeROIHeads": True}
    if settings["MODEL.ROI_HEADS.NAME"] == "Res5ROIHeads":
        raise settings.error(
            "MODEL.ROI_HEADS.NAME is 'Res5ROIHeads' (C4), whose box branch contains the last stage of the backbone",
            "use a model with an FPN",
        )
    is_cascade = settings.choose("MODEL.ROI_HEADS.NAME", names)
    box = _box(settings)
    first, *later = _stages(settings, box) if is_cascade else [box]
    return RCNNConfig(
        rpn=_rpn(settings),
        box=first,
        cascade=tuple(later),
        mask=_mask(settings) if settings["MODEL.MASK_ON"] else None,
        keypoint=_keypoint(settings) if settings["MODEL.KEYPOINT_ON"] else None,
        branch_boxes="refined" if settings["MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES"] else "proposals",
    )


def _anchors(settings: Settings, name: str, default: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a head for its levels and anchors; ``name`` is the setting of its levels."""
    section = "MODEL.ANCHOR_GENERATOR"
    settings.require(section, NAME="DefaultAnchorGenerator", OFFSET=0.0)
    levels = read_levels(settings, name, default)
    sizes, ratios = settings[f"{section}.SIZES"], settings[f"{section}.ASPECT_RATIOS"]
    if any(other != ratios[0] for other in ratios):
        raise settings.error(f"{section}.ASPECT_RATIOS differ between levels, which has no counterpart in Vertebra")
    if len(sizes) == 1:
        sizes = sizes * len(levels or default)
    anchor_sizes = tuple(tuple(float(size) for size in level) for level in sizes)
    if levels is None and anchor_sizes == _DEFAULT_SIZES[default]:
        anchor_sizes = None
    return {"levels": levels, "anchor_sizes": anchor_sizes, "anchor_ratios": tuple(ratios[0])}


def _rpn(settings: Settings) -> RPNConfig:
    """Return the region proposal network."""
    section = "MODEL.RPN"
    settings.require("MODEL.PROPOSAL_GENERATOR", NAME="RPN")
    settings.require(section, HEAD_NAME="StandardRPNHead", BOUNDARY_THRESH=-1, IOU_LABELS=[0, -1, 1], LOSS_WEIGHT=1.0)
    settings.require(section, BBOX_REG_LOSS_TYPE="smooth_l1", BBOX_REG_LOSS_WEIGHT=1.0, BBOX_REG_WEIGHTS=_ONES)
    convolutions = len(settings[f"{section}.CONV_DIMS"])
    settings.require(section, CONV_DIMS=[-1] * convolutions)
    fields = settings.fields(
        section,
        match_thresholds="IOU_THRESHOLDS",
        samples="BATCH_SIZE_PER_IMAGE",
        positive_fraction="POSITIVE_FRACTION",
        beta="SMOOTH_L1_BETA",
        nms_threshold="NMS_THRESH",
    )
    counts = {
        f"{step.lower()}_nms": [settings[f"{section}.{step}_NMS_TOPK_{phase}"] for phase in ("TRAIN", "TEST")]
        for step in ("PRE", "POST")
    }
    anchors = _anchors(settings, f"{section}.IN_FEATURES", _LEVELS["rpn"])
    min_size = settings["MODEL.PROPOSAL_GENERATOR.MIN_SIZE"]
    return RPNConfig(convolutions=convolutions, min_size=min_size, **fields, **counts, **anchors)


def _region_fields(settings: Settings, section: str) -> dict[str, Any]:
    """Return the fields of a branch for its levels and its RoIAlign.

    A sampling ratio of 0 stands for one sample per cell of the feature map, in detectron2 as in Vertebra.
    """
    pool = settings.fields(section, size="POOLER_RESOLUTION", sampling_ratio="POOLER_SAMPLING_RATIO")
    aligned = settings.choose(f"{section}.POOLER_TYPE", {"ROIAlignV2": True, "ROIAlign": False})
    levels = read_levels(settings, "MODEL.ROI_HEADS.IN_FEATURES", _LEVELS["regions"])
    return {"levels": levels, "pool": RoIAlignConfig(aligned=aligned, **pool)}


def _convolution_fields(settings: Settings, section: str) -> dict[str, Any]:
    """Return the fields of a branch for its convolutions and their norms."""
    channels, count = settings[f"{section}.CONV_DIM"], settings[f"{section}.NUM_CONV"]
    return {"convolutions": (channels,) * count, "norm": settings.choose(f"{section}.NORM", NORMS)}


def _box(settings: Settings) -> BoxBranchConfig:
    """Return the box branch."""
    section, regions = "MODEL.ROI_BOX_HEAD", "MODEL.ROI_HEADS"
    settings.require(regions, IOU_LABELS=[0, 1], PROPOSAL_APPEND_GT=True)
    settings.require(section, NAME="FastRCNNConvFCHead", BBOX_REG_LOSS_TYPE="smooth_l1", BBOX_REG_LOSS_WEIGHT=1.0)
    settings.require(section, USE_FED_LOSS=False, USE_SIGMOID_CE=False)
    (match_threshold,) = settings[f"{regions}.IOU_THRESHOLDS"]
    fields = settings.fields(
        section, class_agnostic="CLS_AGNOSTIC_BBOX_REG", box_weights="BBOX_REG_WEIGHTS", beta="SMOOTH_L1_BETA"
    )
    fields |= settings.fields(
        regions,
        samples="BATCH_SIZE_PER_IMAGE",
        positive_fraction="POSITIVE_FRACTION",
        score_threshold="SCORE_THRESH_TEST",
        nms_threshold="NMS_THRESH_TEST",
    )
    return BoxBranchConfig(
        match_threshold=match_threshold,
        fc=(settings[f"{section}.FC_DIM"],) * settings[f"{section}.NUM_FC"],
        max_detections=settings["TEST.DETECTIONS_PER_IMAGE"],
        **fields,
        **_region_fields(settings, section),
        **_convolution_fields(settings, section),
    )


def _stages(settings: Settings, box: BoxBranchConfig) -> list[BoxBranchConfig]:
    """Return the box branches of a cascade."""
    section = "MODEL.ROI_BOX_CASCADE_HEAD"
    settings.require("MODEL.ROI_BOX_HEAD", CLS_AGNOSTIC_BBOX_REG=True)
    stages = zip(settings[f"{section}.IOUS"], settings[f"{section}.BBOX_REG_WEIGHTS"], strict=True)
    return [box.replace(match_threshold=threshold, box_weights=weights) for threshold, weights in stages]


def _mask(settings: Settings) -> MaskBranchConfig:
    """Return the mask branch. Panoptic FPN has bitmaps as masks in Vertebra, whatever the format of the file."""
    section = "MODEL.ROI_MASK_HEAD"
    settings.require(section, NAME="MaskRCNNConvUpsampleHead")
    truth = settings.choose("INPUT.MASK_FORMAT", {"polygon": "polygons", "bitmask": "sharp"})
    if settings["MODEL.META_ARCHITECTURE"] == "PanopticFPN":
        truth = "sharp"
    fields = _region_fields(settings, section) | _convolution_fields(settings, section)
    return MaskBranchConfig(truth=truth, class_agnostic=settings[f"{section}.CLS_AGNOSTIC_MASK"], **fields)


def _keypoint(settings: Settings) -> KeypointBranchConfig:
    """Return the keypoint branch, for COCO's keypoints."""
    section = "MODEL.ROI_KEYPOINT_HEAD"
    settings.require(section, NAME="KRCNNConvDeconvUpsampleHead", NUM_KEYPOINTS=len(COCO_KEYPOINTS))
    by_labeled = settings[f"{section}.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS"]
    fields = settings.fields(section, convolutions="CONV_DIMS", loss_weight="LOSS_WEIGHT")
    fields |= _region_fields(settings, section)
    return KeypointBranchConfig(normalizer="labeled" if by_labeled else "fixed", **fields)


def _panoptic(settings: Settings) -> PanopticFPNConfig:
    """Return the head of a Panoptic FPN."""
    section, semantic = "MODEL.PANOPTIC_FPN", "MODEL.SEM_SEG_HEAD"
    settings.require(semantic, NAME="SemSegFPNHead", IGNORE_VALUE=255, COMMON_STRIDE=4)
    merge = settings.fields(
        f"{section}.COMBINE",
        score_threshold="INSTANCES_CONFIDENCE_THRESH",
        overlap_threshold="OVERLAP_THRESH",
        stuff_area="STUFF_AREA_LIMIT",
    )
    return PanopticFPNConfig(
        instances=_rcnn(settings),
        semantic=SemanticFPNConfig(
            norm=settings.choose(f"{semantic}.NORM", NORMS),
            **settings.fields(semantic, levels="IN_FEATURES", channels="CONVS_DIM"),
        ),
        instance_weight=settings[f"{section}.INSTANCE_LOSS_WEIGHT"],
        semantic_weight=settings[f"{semantic}.LOSS_WEIGHT"],
        merge=PanopticMergeConfig(**merge),
    )


def _retinanet(settings: Settings) -> RetinaNetConfig:
    """Return the head of a RetinaNet."""
    section = "MODEL.RETINANET"
    settings.require(section, IOU_LABELS=[0, -1, 1], PRIOR_PROB=0.01, BBOX_REG_WEIGHTS=_ONES)
    fields = settings.fields(
        section,
        convolutions="NUM_CONVS",
        match_thresholds="IOU_THRESHOLDS",
        focal_alpha="FOCAL_LOSS_ALPHA",
        focal_gamma="FOCAL_LOSS_GAMMA",
        beta="SMOOTH_L1_LOSS_BETA",
    )
    selection = settings.fields(
        section,
        score_threshold="SCORE_THRESH_TEST",
        max_candidates="TOPK_CANDIDATES_TEST",
        nms_threshold="NMS_THRESH_TEST",
    )
    return RetinaNetConfig(
        norm=settings.choose(f"{section}.NORM", {"": "none", "GN": "group"}),
        box_loss=settings.choose(f"{section}.BBOX_REG_LOSS_TYPE", {"smooth_l1": "smooth_l1", "giou": "giou"}),
        selection=DenseSelectionConfig(clip="after", max_detections=settings["TEST.DETECTIONS_PER_IMAGE"], **selection),
        **fields,
        **_anchors(settings, f"{section}.IN_FEATURES", _DENSE_LEVELS),
    )
