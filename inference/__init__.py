"""Layer 6: inference with trained models: reading checkpoints, preprocessing images, predicting and drawing.

Nothing in this folder imports training, metrics or augmentation.
"""

from .agreement import Agreement, AgreementBounds, compare_predictions
from .checkpoint import (
    Checkpoint,
    InferenceConfig,
    checkpoint_paths,
    load_checkpoint_model,
    load_weights,
    open_checkpoint,
)
from .drawing import (
    Picture,
    blend_masks,
    class_color,
    draw_boxes,
    draw_classes,
    draw_keypoints,
    draw_lines,
    draw_panoptic,
    side_by_side,
    write_image,
)
from .export import ExportConfig, Verification, export_model, load_for_prediction
from .numerics import AutoPrecision, Precision, deterministic_kernels, matrix_precision, resolve_precision
from .optimize import OptimizedPrecision, optimize_for_inference
from .predictor import Predictor, predict_originals, to_original
from .preprocessing import Photo, load_photo, preprocess_image
from .trained_model import ExternalModel, ModelFile, RunModel, TrainedModel, load_model, open_model
from .user_code import find_files_beside, import_user_code, run_file

__all__ = [
    "Agreement",
    "AgreementBounds",
    "AutoPrecision",
    "Checkpoint",
    "ExportConfig",
    "ExternalModel",
    "InferenceConfig",
    "ModelFile",
    "OptimizedPrecision",
    "Photo",
    "Picture",
    "Precision",
    "Predictor",
    "RunModel",
    "TrainedModel",
    "Verification",
    "blend_masks",
    "checkpoint_paths",
    "class_color",
    "compare_predictions",
    "deterministic_kernels",
    "draw_boxes",
    "draw_classes",
    "draw_keypoints",
    "draw_lines",
    "draw_panoptic",
    "export_model",
    "find_files_beside",
    "import_user_code",
    "load_checkpoint_model",
    "load_for_prediction",
    "load_model",
    "load_photo",
    "load_weights",
    "matrix_precision",
    "open_checkpoint",
    "open_model",
    "optimize_for_inference",
    "predict_originals",
    "preprocess_image",
    "resolve_precision",
    "run_file",
    "side_by_side",
    "to_original",
    "write_image",
]
