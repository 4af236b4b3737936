"""Layer 1: reading, checking and writing of image, annotation and results files, as plain values.

Importing this folder or reading an image does not import the libraries that only RLE masks or training need.
"""

from .checks import KnownIds, Problem
from .class_maps import check_class_map, read_class_map, write_class_map
from .coco import read_ground_truth
from .detection_rows import detection_rows
from .detections import check_results
from .images import IMAGE_SUFFIXES, check_image, image_size, read_image, read_reduced_image
from .json_files import RepeatedKeyError, add_file_to_error, read_json, require_unique_keys, write_json, write_text
from .json_lines import JsonLinesWriter, encode_json_line, read_json_lines, read_lines_at
from .label_formats import LABEL_FORMATS
from .labels import LabelFormat, LabelRequest
from .pairs import ImagePair, read_pairs
from .panoptic import (
    MAX_SEGMENT_ID,
    read_segment_ids,
    write_panoptic_json,
    write_segments,
)
from .results import (
    ResultError,
    open_results,
    require_same_images,
    sort_results,
    write_json_list,
    write_results,
    write_vectors,
)
from .rle import decode_mask, encode_mask, encode_patch, encode_segmentation, rle_problem, size_problem
from .segmentations import segmentation_problem
from .voc import (
    VocAnnotation,
    VocCorners,
    VocObject,
    read_class_names,
    read_voc_annotation,
    read_voc_list,
    read_voc_object_names,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "LABEL_FORMATS",
    "MAX_SEGMENT_ID",
    "ImagePair",
    "JsonLinesWriter",
    "KnownIds",
    "LabelFormat",
    "LabelRequest",
    "Problem",
    "RepeatedKeyError",
    "ResultError",
    "VocAnnotation",
    "VocCorners",
    "VocObject",
    "add_file_to_error",
    "check_class_map",
    "check_image",
    "check_results",
    "decode_mask",
    "detection_rows",
    "encode_json_line",
    "encode_mask",
    "encode_patch",
    "encode_segmentation",
    "image_size",
    "open_results",
    "read_class_map",
    "read_class_names",
    "read_ground_truth",
    "read_image",
    "read_json",
    "read_json_lines",
    "read_lines_at",
    "read_pairs",
    "read_reduced_image",
    "read_segment_ids",
    "read_voc_annotation",
    "read_voc_list",
    "read_voc_object_names",
    "require_same_images",
    "require_unique_keys",
    "rle_problem",
    "segmentation_problem",
    "size_problem",
    "sort_results",
    "write_class_map",
    "write_json",
    "write_json_list",
    "write_panoptic_json",
    "write_results",
    "write_segments",
    "write_text",
    "write_vectors",
]
