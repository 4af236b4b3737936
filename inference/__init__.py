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
    Color,
    ColoredMask,
    DrawingConfig,
    Picture,
    blend_masks,
    class_color,
    draw_boxes,
    draw_classes,
    draw_keypoints,
    draw_lines,
    draw_panoptic,
    render_text,
    side_by_side,
    write_image,
)
from .export import ExportConfig, Verification, export_model, load_for_prediction
from .interop import to_coco, to_dict, to_pandas, to_supervision
from .numerics import AutoPrecision, Precision, deterministic_kernels, matrix_precision, resolve_precision
from .optimize import OptimizedPrecision, optimize_for_inference
from .predictor import Predictor, predict_originals, to_original
from .preprocessing import Photo, load_photo, preprocess_image
from .sources import SourceFile, Sources, find_sources, is_below, is_video, listed_name, read_input_paths
from .stream import StreamedPrediction, StreamItem, default_workers, stream_batches
from .tiles import TileConfig, detect_in_tiles, segment_in_tiles
from .trained_model import ExternalModel, ModelFile, RunModel, TrainedModel, load_model, open_model
from .user_code import find_files_beside, import_user_code, run_file
from .video import Video, VideoWriter

__all__ = [
    "Agreement",
    "AgreementBounds",
    "AutoPrecision",
    "Checkpoint",
    "Color",
    "ColoredMask",
    "DrawingConfig",
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
    "SourceFile",
    "Sources",
    "StreamItem",
    "StreamedPrediction",
    "TileConfig",
    "TrainedModel",
    "Verification",
    "Video",
    "VideoWriter",
    "blend_masks",
    "checkpoint_paths",
    "class_color",
    "compare_predictions",
    "default_workers",
    "detect_in_tiles",
    "deterministic_kernels",
    "draw_boxes",
    "draw_classes",
    "draw_keypoints",
    "draw_lines",
    "draw_panoptic",
    "export_model",
    "find_files_beside",
    "find_sources",
    "import_user_code",
    "is_below",
    "is_video",
    "listed_name",
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
    "read_input_paths",
    "render_text",
    "resolve_precision",
    "run_file",
    "segment_in_tiles",
    "side_by_side",
    "stream_batches",
    "to_coco",
    "to_dict",
    "to_original",
    "to_pandas",
    "to_supervision",
    "write_image",
]
