"""Floor 2: how good results are: detections in the numbers of COCO and PASCAL VOC, classes of whole images and of
pixels. All results are in COCO's file format."""

from .checks import ResultError, check_results
from .classification import evaluate_classification, to_class_results
from .coco import Engine, evaluate_coco
from .coco_results import to_coco_results
from .confusion import ConfusionMatrix
from .json_files import add_file_to_error, read_ground_truth
from .results import open_results, sort_results, write_results
from .scores import Scores
from .semantic import evaluate_semantic, to_semantic_results
from .table import format_scores
from .voc import evaluate_voc

__all__ = [
    "ConfusionMatrix",
    "Engine",
    "ResultError",
    "Scores",
    "add_file_to_error",
    "check_results",
    "evaluate_classification",
    "evaluate_coco",
    "evaluate_semantic",
    "evaluate_voc",
    "format_scores",
    "open_results",
    "read_ground_truth",
    "sort_results",
    "to_class_results",
    "to_coco_results",
    "to_semantic_results",
    "write_results",
]
