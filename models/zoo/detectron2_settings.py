"""The settings in a config.yaml of detectron2, each of which must be read or known to have no effect."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ...ops import join_first
from ...structures import UsageError

_DUMP = "give the complete config.yaml that detectron2 writes into its output folder (cfg.dump())"

TRAINING_ONLY = (
    "CUDNN_BENCHMARK",
    "DATALOADER.",
    "DATASETS.",
    "FLOAT32_PRECISION",
    "GLOBAL.",
    "INPUT.CROP.",
    "INPUT.MAX_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING",
    "INPUT.RANDOM_FLIP",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_",
    "OUTPUT_DIR",
    "SEED",
    "SOLVER.",
    "TEST.EVAL_PERIOD",
    "TEST.EXPECTED_RESULTS",
    "TEST.PRECISE_BN.",
    "VIS_PERIOD",
)
"""Settings, or the beginnings of their names, that change neither the model nor its predictions nor its losses."""

WITHOUT_EFFECT = (
    "MODEL.ANCHOR_GENERATOR.ANGLES",  # of rotated anchors only
    "MODEL.PANOPTIC_FPN.COMBINE.ENABLED",  # no longer read by detectron2
    "MODEL.RESNETS.DEFORM_MODULATED",  # without deformable stages; otherwise it is read
    "MODEL.RESNETS.DEFORM_NUM_GROUPS",
    "TEST.AUG.",  # except ENABLED, which is required to be false
    "TEST.KEYPOINT_OKS_SIGMAS",  # of the evaluation
)
"""Settings that detectron2 does not read, or that another setting turns off."""

PARTS = (
    "INPUT.MASK_FORMAT",
    "MODEL.FPN.",
    "MODEL.KEYPOINT_ON",
    "MODEL.MASK_ON",
    "MODEL.PANOPTIC_FPN.",
    "MODEL.PROPOSAL_GENERATOR.",
    "MODEL.RETINANET.",
    "MODEL.ROI_BOX_CASCADE_HEAD.",
    "MODEL.ROI_BOX_HEAD.",
    "MODEL.ROI_HEADS.",
    "MODEL.ROI_KEYPOINT_HEAD.",
    "MODEL.ROI_MASK_HEAD.",
    "MODEL.RPN.",
    "MODEL.SEM_SEG_HEAD.",
)
"""Sections of parts that a model may lack. If no setting of a section has been read, the model lacks the part."""

ADDED_LATER = {
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.RETINANET.NORM": "",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 1.0,
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": False,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 1.0,
    "MODEL.RPN.CONV_DIMS": [-1],
}
"""Settings that files of 2019 and 2020 lack, with the value that stands for what detectron2 did then."""


class Settings:
    """The settings of a file by their full name, such as ``MODEL.RESNETS.DEPTH``, and which of them have been read."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self.values = path, values
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """Return the value of a setting, and note that it has been read; raise UsageError if the file lacks it."""
        self._read.add(name)
        if name in self.values:
            return self.values[name]
        if name in ADDED_LATER:
            return ADDED_LATER[name]
        raise self.error(f"there is no {name}", _DUMP)

    def choose(self, name: str, choices: Mapping[Any, Any]) -> Any:
        """Return what stands for the value of a setting; raise UsageError for a value without counterpart."""
        value = self[name]
        if not isinstance(value, str | int | float) or value not in choices:
            known = " or ".join(repr(choice) for choice in choices)
            raise self.error(f"{name} is {value!r}, but only {known} has a counterpart in Vertebra")
        return choices[value]

    def fields(self, section: str, **names: str) -> dict[str, Any]:
        """Return the values of settings of a section by the fields of a config that they stand for."""
        return {field: self[f"{section}.{name}"] for field, name in names.items()}

    def require(self, section: str, **expected: Any) -> None:
        """Check that settings of a section have the only value with a counterpart; raise UsageError otherwise."""
        for name, value in expected.items():
            found = self[f"{section}.{name}"]
            if found != value:
                raise self.error(f"{section}.{name} is {found!r}, but only {value!r} has a counterpart in Vertebra")

    def refuse_unread(self) -> None:
        """Raise UsageError if a setting has not been read and is not known to have no effect on the model."""
        lacking = tuple(part for part in PARTS if not any(name.startswith(part) for name in self._read))
        without_effect = (*TRAINING_ONLY, *WITHOUT_EFFECT, *lacking)
        unknown = [name for name in self.values if name not in self._read and not name.startswith(without_effect)]
        if unknown:
            raise self.error(f"these settings have no counterpart in Vertebra: {join_first(unknown, separator=', ')}")

    def error(self, what: str, fix: str = "") -> UsageError:
        """Return the error for a setting of this file."""
        return UsageError(what, fix, file=self.path)


def read_settings(path: Path) -> Settings:
    """Read the settings of a YAML file; raise UsageError if it cannot be read, or extends another file."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", file=path) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"this is not plain YAML: {' '.join(str(error).split())}", _DUMP, file=path) from None
    if not isinstance(content, dict) or "MODEL" not in content:
        raise UsageError("this is not a config of detectron2: there is no MODEL", _DUMP, file=path)
    if "_BASE_" in content:
        raise UsageError("this config extends another one (_BASE_)", _DUMP, file=path)
    return Settings(path, _flatten(content, ""))


class _StrictLoader(yaml.SafeLoader):
    """A loader of plain values that refuses a key that occurs twice.

    Tuples and pickled nodes of a config, which ``yaml.dump(cfg)`` writes, are read as lists and mappings.
    """


def _read_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Return the mapping of a node; raise an error if a key occurs twice."""
    values = loader.construct_mapping(node, deep=True)
    if len(values) < len(node.value):
        raise yaml.constructor.ConstructorError(None, None, "a key occurs twice", node.start_mark)
    return values


def _read_tuple(loader: _StrictLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


def _read_object(loader: _StrictLoader, name: str, node: yaml.Node) -> dict[Any, Any]:
    """Return the items of a config node, whose class ``name`` is not imported; raise an error for other objects."""
    if not name.endswith(".CfgNode") or not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, f"{name} is not a plain value", node.start_mark)
    return _read_mapping(loader, node).get("dictitems", {})


_PYTHON = "tag:yaml.org,2002:python/"
_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _read_mapping)
_StrictLoader.add_constructor(f"{_PYTHON}tuple", _read_tuple)
_StrictLoader.add_multi_constructor(f"{_PYTHON}object/new:", _read_object)


def _flatten(values: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    """Return the leaves of nested mappings by their full names."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
