"""Configs written as Python files: they give the same experiment again."""

import ast

import pytest

from vertebra.configs import list_configs, load_config
from vertebra.engine.recipe.choices import get_field
from vertebra.engine.recipe.source import config_file_source, value_source


@pytest.mark.parametrize("name", list_configs())
def test_written_config_is_the_same_experiment(name, tmp_path):
    """Law: for every config that is included, loaded again from a file; lines are at most 120 columns long."""
    config = load_config(name)
    comments = {"recipe.schedule.steps": "as long as it takes", "model.head": "a comment " * 40}
    path = tmp_path / "written.py"
    path.write_text(config_file_source(config, f"{name}, written.", comments))
    assert load_config(path).model_dump(mode="json") == config.model_dump(mode="json")
    text = path.read_text()
    assert "# as long as it takes\n" in text and max(map(len, text.splitlines())) <= 120
    assert text.startswith(f'"""{name}, written.\n')


def test_only_changed_fields_are_written(tmp_path):
    """By hand: what a config does not set is not in the file."""
    source = value_source(load_config("faster_rcnn_r50_fpn_1x_coco").recipe)
    assert source == "RecipeConfig(optimizer=SGDConfig(lr_batch_size=16), schedule=ScheduleConfig(steps=90000))"


@pytest.mark.parametrize("text", ['"""\nimport os', "back\\slash", "two\nlines", 'a "quoted" name', "é ü 猫"])
def test_any_text_is_written_as_a_value(text, tmp_path):
    """Law: names of classes and files never end a string, a docstring or a comment; nothing of them is run."""
    config = load_config("faster_rcnn_r50_fpn_bccd").replace(train={"dataset": {"class_names": (text, "other")}})
    path = tmp_path / "written.py"
    path.write_text(config_file_source(config, f"About {text}", {"name": f"because {text}"}), encoding="utf-8")
    loaded = load_config(path)
    assert get_field(loaded, "train.dataset.class_names") == (text, "other")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [node for node in tree.body if isinstance(node, ast.Import)] == []
