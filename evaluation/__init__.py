"""Evaluation: metrics of detections, classifications, embeddings, semantic and panoptic segmentations (layer 2).

Results are in COCO's file format.
"""

from .classification import evaluate_classification, to_class_results
from .coco import Engine, evaluate_coco, to_coco_results
from .coco_inputs import Task as CocoTask
from .confusion import ConfusionMatrix
from .embedding import evaluate_embeddings, to_embedding_results
from .panoptic import evaluate_panoptic, from_panoptic_result, to_panoptic_results
from .scores import Scores, format_scores, scores_as_json
from .semantic import evaluate_semantic, to_semantic_results
from .verification import evaluate_verification
from .voc import evaluate_voc

__all__ = [
    "CocoTask",
    "ConfusionMatrix",
    "Engine",
    "Scores",
    "evaluate_classification",
    "evaluate_coco",
    "evaluate_embeddings",
    "evaluate_panoptic",
    "evaluate_semantic",
    "evaluate_verification",
    "evaluate_voc",
    "format_scores",
    "from_panoptic_result",
    "scores_as_json",
    "to_class_results",
    "to_coco_results",
    "to_embedding_results",
    "to_panoptic_results",
    "to_semantic_results",
]
