"""The table of formats of annotations other than COCO's own and VOC's, by name."""

from .csv_boxes import CSV
from .cvat import CVAT
from .label_studio import LABEL_STUDIO
from .labelme import LABELME
from .labels import LabelFormat
from .object_masks import OBJECT_MASKS
from .supervisely import SUPERVISELY
from .via import VIA
from .yolo import YOLO

LABEL_FORMATS: dict[str, LabelFormat] = {
    label_format.name: label_format
    for label_format in (YOLO, LABELME, VIA, CVAT, LABEL_STUDIO, SUPERVISELY, CSV, OBJECT_MASKS)
}
"""A new format is a file in this folder that defines a :class:`LabelFormat`, and an entry."""
