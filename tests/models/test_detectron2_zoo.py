"""detectron2's models in the zoo: their names, conventions and tensors, and the reading of a config.yaml.

``recorded/detectron2_config.yaml`` is ``get_cfg()`` of detectron2 (commit 02b5c4e2), merged with the file of BASE below
and written by ``cfg.dump()``. ``recorded/detectron2_zoo.json`` has for each model of the zoo the settings that differ
from that file (except those of solver, loader and training sizes), and the number and a digest of the tensors of
``build_model(cfg)``, or of ``instantiate`` for the models of ``new_baselines``, whose configs are Python files.
"""

import copy
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from vertebra.models.zoo import PublishedModel, find_published, list_published, load_tensors
from vertebra.models.zoo.detectron2_config import published_from_config
from vertebra.models.zoo.detectron2_settings import PARTS, TRAINING_ONLY, WITHOUT_EFFECT
from vertebra.structures import COCO_STUFF, COCO_THINGS, CheckpointError, UsageError

RECORDED = Path(__file__).parent / "recorded"
BASE = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
ZOO = json.loads((RECORDED / "detectron2_zoo.json").read_text())
CONTENT = yaml.safe_load((RECORDED / "detectron2_config.yaml").read_text())
NAMES = [name.removeprefix("detectron2/") for name in list_published("detectron2/*")]
WITH_YAML = [name for name in NAMES if "settings" in ZOO.get(name, {})]
DEEP = re.compile("R_101|X_101")


def architecture(name: str) -> str:
    """Return what determines the tensors of a model: its config and its classes."""
    return f"{find(name).model.model_dump_json()}{find(name).classes}"


def distinct_models() -> list[Any]:
    """Return a name for each of the distinct models, of which the deep ones are marked as slow."""
    names = {architecture(name): name for name in reversed(NAMES)}
    marks = {True: (pytest.mark.slow,), False: ()}
    return [pytest.param(name, marks=marks[DEEP.search(name) is not None]) for name in reversed(names.values())]


def find(name: str) -> PublishedModel:
    return find_published(f"detectron2/{name}")[0]


def set_value(content: dict[str, Any], name: str, value: Any) -> None:
    """Set a setting in nested mappings by its full name."""
    *sections, last = name.split(".")
    for section in sections:
        content = content[section]
    content[last] = value


def write_config(folder: Path, changes: dict[str, Any]) -> Path:
    """Write detectron2's config of BASE with changed settings."""
    content = copy.deepcopy(CONTENT)
    for name, value in changes.items():
        set_value(content, name, value)
    file = folder / "config.yaml"
    file.write_text(json.dumps(content))  # JSON is YAML
    return file


def settings_of(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings of a config by their full names."""
    flat = {}
    for name, value in content.items():
        nested = isinstance(value, dict)
        flat |= settings_of(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def shapes_of(published: PublishedModel) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors by detectron2's names, without the counters of batch norms."""
    with torch.device("meta"):
        tensors = published.keys.from_vertebra(published.build().state_dict())
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


@functools.cache
def shapes_in_zoo(name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a model in the zoo."""
    return shapes_of(find(name))


def test_zoo_has_the_recorded_models():
    """Oracle: detectron2's list of published models, from which the recorded ones were made."""
    assert list(ZOO) == NAMES


@pytest.mark.parametrize("name", distinct_models())
def test_tensors_are_detectron2s(name):
    """Oracle: names and shapes of all tensors of detectron2's own model, recorded as a digest."""
    tensors = shapes_in_zoo(name)
    lines = "\n".join(sorted(f"{tensor} {list(shape)}" for tensor, shape in tensors.items()))
    same_model = [other for other in NAMES if architecture(other) == architecture(name)]
    assert {(ZOO[other]["tensors"], ZOO[other]["digest"]) for other in same_model} == {
        (len(tensors), hashlib.sha256(lines.encode()).hexdigest()[:16])
    }


@pytest.mark.parametrize("name", WITH_YAML)
def test_conventions_are_those_of_detectron2s_config(name, tmp_path):
    """Oracle: detectron2's config of the model: architecture, conventions, pixels and sizes are those of the row."""
    described, row = published_from_config(write_config(tmp_path, ZOO[name]["settings"])), find(name)
    assert described.model.model_dump() == row.model.model_dump()
    assert described.preprocessing == row.preprocessing
    assert name.startswith("Cityscapes") or described.classes == row.classes


def test_config_of_an_installed_detectron2_is_the_recorded_one(tmp_path):
    """Oracle: detectron2 itself, if it is installed with the folder ``configs`` of its repository."""
    pytest.importorskip("detectron2.config", reason="detectron2 is not installed")
    from ..helpers.reference_detectron2 import read_config

    changes = {"MODEL.DEVICE": "cuda", "MODEL.WEIGHTS": ""}
    assert yaml.safe_load(read_config(BASE, changes).dump()) == yaml.safe_load(
        write_config(tmp_path, changes).read_text()
    )


def tiny_tensors(name: str) -> dict[str, Tensor]:
    """Return a state dict with detectron2's names, with at most three rows and columns and different values."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand([min(side, 3) for side in shape], generator=generator)
        for name, shape in shapes_in_zoo(name).items()
    }


@pytest.mark.parametrize("name", distinct_models())
def test_round_trip_of_tensors_is_bit_exact(name):
    """Law: every tensor is used once, and the way back restores names and values."""
    keys = find(name).keys
    tensors = tiny_tensors(name)
    converted = keys.to_vertebra(tensors)
    assert len(converted) == len(tensors) + len(keys.added)
    restored = keys.from_vertebra(converted)
    assert restored.keys() == tensors.keys()
    assert all(torch.equal(restored[name], tensor) for name, tensor in tensors.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", distinct_models())
def test_round_trip_through_a_model_is_bit_exact(name):
    """Law: random weights of the full size, loaded into the model and converted back."""
    published = find(name)
    tensors = {name: torch.rand(shape) for name, shape in shapes_in_zoo(name).items()}
    model = published.build()
    load_tensors(model, published, tensors, name)
    restored = published.keys.from_vertebra(model.state_dict())
    assert {name for name in restored if not name.endswith("num_batches_tracked")} == tensors.keys()
    assert all(torch.equal(restored[name], tensor) for name, tensor in tensors.items())


def test_constants_in_old_files_are_left_out():
    """By hand: detectron2's files of 2019 hold the anchors and the pixel normalization too."""
    published = find(BASE)
    tensors = tiny_tensors(BASE)
    old = {"pixel_mean": torch.ones(3, 1, 1), "proposal_generator.anchor_generator.cell_anchors.0": torch.ones(3, 4)}
    assert published.keys.to_vertebra(tensors | old).keys() == published.keys.to_vertebra(tensors).keys()


def test_class_for_all_things_comes_last():
    """By hand: detectron2's first semantic class stands for all things; Vertebra's last one does."""
    published = find("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x")
    bias = torch.arange(54.0)
    converted = published.keys.to_vertebra({"sem_seg_head.predictor.bias": bias})["head.semantic.logits.bias"]
    assert converted.tolist() == [*range(1, 54), 0]
    assert published.classes["semantic"].names[-1] == "things"
    assert published.task == "panoptic"


def test_tensors_of_another_model_are_refused():
    """By hand: a mask branch that a Faster R-CNN lacks, and a missing tensor."""
    published = find("COCO-Detection/faster_rcnn_R_50_FPN_1x")
    with torch.device("meta"):
        model = published.build()
    with pytest.raises(CheckpointError, match=r"head\.mask\.convolutions\.0\.0\.bias is unexpected"):
        load_tensors(model, published, tiny_tensors(BASE), "file")
    with pytest.raises(CheckpointError, match=r"sem_seg_head\.p2\.0\.weight is not a tensor of detectron2's R-CNN"):
        load_tensors(model, published, {"sem_seg_head.p2.0.weight": torch.ones(1)}, "file")


@pytest.mark.parametrize("name", NAMES)
def test_published_weights_are_described(name):
    """By hand: address, license, page and scores in percent of every model."""
    (tag, weights), *others = find(name).weights.items()
    assert others == []
    assert weights.url == (f"https://dl.fbaipublicfiles.com/detectron2/{name}/{tag}/model_final_{weights.md5}.pkl")
    assert tag.isdigit() and len(weights.md5) == 6
    assert weights.license.startswith("CC BY-SA 3.0")
    assert weights.scores and all(20 < score < 80 for score in weights.scores.values())


def test_published_scores_are_those_of_the_model_zoo():
    """Oracle: scores in detectron2's MODEL_ZOO.md, one model of each type."""
    scores = {
        "COCO-Detection/faster_rcnn_R_50_FPN_3x": {"box AP": 40.2},
        "COCO-Detection/retinanet_R_101_FPN_3x": {"box AP": 40.4},
        "COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x": {"box AP": 44.3, "mask AP": 39.5},
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x": {"box AP": 53.6, "keypoint AP": 64.0},
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_3x": {"box AP": 40.0, "mask AP": 36.5, "PQ": 41.5},
        "Cityscapes/mask_rcnn_R_50_FPN": {"mask AP": 36.5},
        "new_baselines/mask_rcnn_R_101_FPN_400ep_LSJ": {"box AP": 48.9, "mask AP": 43.7},
    }
    for name, expected in scores.items():
        (weights,) = find(name).weights.values()
        assert weights.scores == expected


def test_classes_are_cocos():
    """Oracle: torchvision's list of COCO's categories, whose index is the id, and panopticapi's range of stuff ids."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    categories = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert [categories[id_] for id_ in COCO_THINGS.ids] == list(COCO_THINGS.names)
    assert len(COCO_THINGS.ids) == len(COCO_THINGS.names) == 80
    assert len(COCO_STUFF.ids) == len(COCO_STUFF.names) == 53
    assert COCO_STUFF.ids[0] == 92 and COCO_STUFF.ids[-17:] == tuple(range(184, 201))


def test_classes_are_detectron2s():
    """Oracle: detectron2's categories of COCO, if it is installed."""
    meta = pytest.importorskip("detectron2.data.datasets.builtin_meta", reason="detectron2 is not installed")
    for classes, is_thing in ((COCO_THINGS, 1), (COCO_STUFF, 0)):
        categories = [category for category in meta.COCO_CATEGORIES if category["isthing"] == is_thing]
        assert [category["id"] for category in categories] == list(classes.ids)
        assert [category["name"] for category in categories] == list(classes.names)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("PascalVOC-Detection/faster_rcnn_R_50_C4", "box branch contains the last stage of the backbone"),
        ("COCO-Detection/faster_rcnn_R_50_C4_3x", "choose an FPN model"),
        ("COCO-Detection/rpn_R_50_FPN_1x", "regions without classes"),
        ("COCO-Detection/fast_rcnn_R_50_FPN_1x", "a file of proposals"),
        ("new_baselines/mask_rcnn_regnetx_4gf_dds_FPN_100ep_LSJ", "RegNet"),
        ("LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", "names of its classes"),
        ("COCO-Detection/faster_rcnn_R_50_FPN_4x", "did you mean"),
    ],
)
def test_models_that_are_not_covered_are_refused_by_name(name, reason):
    """A model that is not covered is refused with the reason (docs/faults.md row 158)."""
    with pytest.raises(UsageError, match=reason):
        find(name)


SETTINGS = settings_of(CONTENT)
OTHERS = {
    "MODEL.META_ARCHITECTURE": "RetinaNet", "MODEL.BACKBONE.NAME": "build_resnet_backbone", "MODEL.RESNETS.DEPTH": 101,
    "MODEL.RESNETS.NUM_GROUPS": 32, "MODEL.RESNETS.NORM": "GN",
    "MODEL.RESNETS.OUT_FEATURES": ["res3"], "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.RPN.IN_FEATURES": ["p3", "p4", "p5", "p6"], "MODEL.ROI_HEADS.IN_FEATURES": ["p3", "p4"],
    "MODEL.FPN.NORM": "GN", "MODEL.ROI_BOX_HEAD.NORM": "GN", "MODEL.ROI_MASK_HEAD.NORM": "GN",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign", "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
    "INPUT.FORMAT": "RGB", "INPUT.MASK_FORMAT": "bitmask", "MODEL.RESNETS.RES5_DILATION": 2,
}  # fmt: skip
"""Values of settings that have several with a counterpart."""
LACKING = [part for part in PARTS if re.search("RETINANET|PANOPTIC|SEM_SEG|KEYPOINT_HEAD|CASCADE", part)]
"""Parts that the model of BASE lacks."""
UNREAD = ("MODEL.RESNETS.OUT_FEATURES", "MODEL.ROI_BOX_HEAD.CONV_DIM")
"""Settings without effect on it: the FPN names the levels that it reads, and there are no convolutions."""


def another_value(name: str, value: Any) -> Any:
    """Return another value of a setting, of the same type."""
    if name in OTHERS:
        return OTHERS[name]
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1 if abs(value) >= 1 else value + 0.25
        case list():
            return [another_value("", item) for item in value] or ["other"]
        case str():
            return "Other"
    return 1


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_mapped_or_refused_or_without_effect(name, tmp_path):
    """Law: another value of any setting changes the model, or is refused by name, or is known to have no effect."""
    unchanged = find(BASE)
    without_effect = name.startswith((*TRAINING_ONLY, *WITHOUT_EFFECT, *LACKING)) or name in UNREAD
    without_effect &= name not in ("TEST.AUG.ENABLED", "DATASETS.TRAIN")  # refused; decides on the names of classes
    file = write_config(tmp_path, {name: another_value(name, SETTINGS[name])})
    try:
        described = published_from_config(file)
    except (UsageError, ValueError) as error:
        assert not without_effect
        assert "counterpart" not in str(error) or re.search(r"[A-Z_]+\.[A-Z_]+|VERSION", str(error))
        return  # refused, by the config of the part if it is a value that no model can have
    changed = (described.model, described.preprocessing, described.classes) != (
        unchanged.model,
        unchanged.preprocessing,
        unchanged.classes,
    )
    assert changed != without_effect


@pytest.mark.parametrize("ratio", [0, 2])
def test_sampling_ratio_is_not_changed(ratio, tmp_path):
    """By hand: 0 stands for one sample per cell of the feature map in both libraries, and 2 for two per bin."""
    branches = ("BOX", "MASK")
    changes = {f"MODEL.ROI_{branch}_HEAD.POOLER_SAMPLING_RATIO": ratio for branch in branches}
    head: Any = published_from_config(write_config(tmp_path, changes)).model.head
    assert head.box.pool.sampling_ratio == head.mask.pool.sampling_ratio == ratio


def test_files_of_2019_lack_settings(tmp_path):
    """By hand: settings that detectron2 has added later stand for what it did before."""
    content = copy.deepcopy(CONTENT)
    del content["MODEL"]["RPN"]["CONV_DIMS"], content["MODEL"]["ROI_BOX_HEAD"]["USE_FED_LOSS"]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    assert published_from_config(file).model == find(BASE).model
    del content["MODEL"]["RESNETS"]["STRIDE_IN_1X1"]
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=r"there is no MODEL\.RESNETS\.STRIDE_IN_1X1: give the complete config\.yaml"):
        published_from_config(file)


def test_classes_without_names_are_numbered(tmp_path):
    """By hand: a model of other data with five classes."""
    file = write_config(tmp_path, {"MODEL.ROI_HEADS.NUM_CLASSES": 5, "DATASETS.TRAIN": ["mine"]})
    classes = published_from_config(file).classes["detection"]
    assert classes.names == ("class 1", "class 2", "class 3", "class 4", "class 5")
    assert classes.ids == (1, 2, 3, 4, 5)


def test_modulated_deformable_convolutions_are_read(tmp_path):
    """By hand: DCNv2 has a counterpart, deformable convolutions without modulation have none."""
    changes = {"MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, True, True], "MODEL.RESNETS.DEFORM_MODULATED": True}
    published = published_from_config(write_config(tmp_path, changes))
    assert "backbone.bottom_up.res4.0.conv2_offset.weight" in shapes_of(published)
    with pytest.raises(UsageError, match="DEFORM_MODULATED is False"):
        published_from_config(write_config(tmp_path, {**changes, "MODEL.RESNETS.DEFORM_MODULATED": False}))


def test_pickled_nodes_are_read_as_mappings(tmp_path):
    """By hand: what ``yaml.dump(cfg)`` writes, with a tuple; the class of a node is not imported."""
    node = "!!python/object/new:missing.CfgNode"
    state = "state: {__immutable__: true, __deprecated_keys__: !!set {}}"
    sections = {name: json.dumps(section) for name, section in CONTENT.items() if name != "MODEL"}
    model = {name: json.dumps(value) for name, value in CONTENT["MODEL"].items()}
    model["PIXEL_STD"] = f"!!python/tuple {model['PIXEL_STD']}"
    sections["MODEL"] = (
        f"{node} {{dictitems: {{{', '.join(f'{key}: {text}' for key, text in model.items())}}}, {state}}}"
    )
    file = tmp_path / "config.yaml"
    file.write_text(
        f"{node}\ndictitems: {{{', '.join(f'{key}: {text}' for key, text in sections.items())}}}\n{state}\n"
    )
    assert published_from_config(file).model == find(BASE).model


INVALID = {
    "_BASE_: ../Base-RCNN-FPN.yaml\nMODEL: {}": r"extends another one \(_BASE_\): give the complete config",
    "MODEL: !!python/object/apply:os.system ['touch {canary}']": "not plain YAML",
    'MODEL: !!python/object/apply:eval [\'open("{canary}", "w")\']': "not plain YAML",
    "MODEL: {RESNETS: {DEPTH: 50, DEPTH: 101}}": "a key occurs twice",
    "MODEL: !!python/object/new:os.system ['touch {canary}']": "os.system is not a plain value",
    "MODEL: !!python/object/new:os.system {dictitems: {a: 1}}": "os.system is not a plain value",
    "MODEL: !!python/name:os.system": "not plain YAML",
    "MODEL: [": "not plain YAML",
    "model = 1": "not a config of detectron2",
    "- 1": "not a config of detectron2",
    "\x00": "not plain YAML",
}


@pytest.mark.parametrize("text", INVALID)
def test_invalid_configs_are_refused(text, tmp_path):
    """Configs that extend others, name Python objects or repeat a key are refused (docs/faults.md row 157)."""
    file, canary = tmp_path / "config.yaml", tmp_path / "canary"
    file.write_text(text.replace("{canary}", str(canary)))
    with pytest.raises(UsageError, match=INVALID[text]):
        published_from_config(file)
    assert not canary.exists()


def test_missing_config_is_refused(tmp_path):
    """By hand: the message names the file."""
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read: No such file"):
        published_from_config(tmp_path / "none.yaml")


def test_unknown_setting_is_refused(tmp_path):
    """A setting that a project has added is refused by its name (docs/faults.md row 157)."""
    file = write_config(tmp_path, {"MODEL.MY_HEAD": 1})
    with pytest.raises(UsageError, match=r"these settings have no counterpart in Vertebra: MODEL\.MY_HEAD"):
        published_from_config(file)
