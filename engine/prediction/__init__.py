"""Prediction of files: pictures of images and videos, and results that survive a kill and are continued."""

from .options import PredictionOptions
from .output_folder import PredictionFolder, require_unused_output
from .predict_files import PredictionSummary, predict_files

__all__ = [
    "PredictionFolder",
    "PredictionOptions",
    "PredictionSummary",
    "predict_files",
    "require_unused_output",
]
