"""Floor 2: how good results are: detections in the numbers and the file format of COCO, classes of whole images."""

from .checks import check_results
from .classification import evaluate_classification, to_class_results
from .coco import Engine, evaluate_coco
from .json_files import read_ground_truth
from .results import read_results, sort_results, to_coco_results, write_results
from .scores import Scores
from .table import format_scores

__all__ = [
    "Engine",
    "Scores",
    "check_results",
    "evaluate_classification",
    "evaluate_coco",
    "format_scores",
    "read_ground_truth",
    "read_results",
    "sort_results",
    "to_class_results",
    "to_coco_results",
    "write_results",
]
