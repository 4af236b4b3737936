"""Floor 2: how good detections are, in the numbers and the file format of COCO."""

from .checks import check_results
from .coco import CocoScores, Engine, evaluate_coco
from .json_files import read_ground_truth
from .results import read_results, sort_results, to_coco_results, write_results
from .table import format_scores

__all__ = [
    "CocoScores",
    "Engine",
    "check_results",
    "evaluate_coco",
    "format_scores",
    "read_ground_truth",
    "read_results",
    "sort_results",
    "to_coco_results",
    "write_results",
]
