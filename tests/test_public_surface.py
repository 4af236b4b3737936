"""``vertebra.NAME``: lazy at run time, known to type checkers, documented, and enough for a user's script."""

import ast
import inspect
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

import vertebra
from vertebra.inference import load_model
from vertebra.structures import UsageError

from .helpers.runs import read_scores
from .helpers.tiny import tiny_classifier, tiny_config

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A trained classifier, by the public name."""
    output = tmp_path_factory.mktemp("public") / "run"
    scores = vertebra.train(tiny_classifier(), output)
    assert scores == json.loads((output / "eval.json").read_text())
    return output


def test_a_type_checker_sees_every_public_name():
    """Law: the imports under ``TYPE_CHECKING`` bring exactly the names of ``__all__``, each the one that is had."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    origins = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {*origins, "__version__"} == set(vertebra.__all__)
    for name, (module, original) in origins.items():
        folder = __import__(f"vertebra.{module}", fromlist=[original])
        assert getattr(vertebra, name) is getattr(folder, original), name


def test_the_package_says_that_it_is_typed():
    """PEP 561: the marker is there, and goes into the wheel."""
    assert (ROOT / "py.typed").exists()
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in setuptools["package-data"]["vertebra"]


def test_every_public_function_and_class_is_documented():
    """A law of help(): a docstring whose first line is a sentence."""
    for name in vertebra.__all__:
        thing = getattr(vertebra, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert thing.__doc__ and thing.__doc__.splitlines()[0].strip(), name


def test_one_version_is_stated():
    """Law: in the package and in its metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == vertebra.__version__


def test_models_are_listed_by_the_names_that_build_them():
    """Law: what is listed can be created, here of the cheapest; a pattern chooses."""
    assert "quickstart" in vertebra.list_models()
    assert vertebra.list_models("fcn*") == ["fcn_r50_voc12aug"]
    model = vertebra.create_model("plain_vs_residual_plain20", num_classes=3)
    assert model.class_names == {"classification": ("class 0", "class 1", "class 2")}
    assert vertebra.load_config("plain_vs_residual_plain20").name == "plain_vs_residual_plain20"


def test_evaluating_a_run_gives_the_numbers_that_training_ended_with(run):
    """Law: of its folder, of its checkpoint, and of its model with its config."""
    expected = read_scores(run / "eval.json")
    expected.pop("images")
    config = tiny_classifier()
    assert vertebra.evaluate(run) == expected
    assert vertebra.evaluate(run / "checkpoints" / "best", config) == expected
    assert vertebra.evaluate(load_model(run, device="cpu"), config) == expected


def test_evaluating_goes_by_the_config_that_is_given(run):
    """By hand: other validation images give other numbers of them; the model stays the run's."""
    config = tiny_classifier(val={"dataset": {"count": 2}})
    scores = vertebra.evaluate(run, config)
    assert set(scores) == {"classification", "per_class"}
    assert scores["classification"] == vertebra.evaluate(load_model(run, device="cpu"), config)["classification"]


def test_evaluating_what_does_not_fit_is_refused(run, shapes):
    """By hand: a UsageError for a model without a config, and for data of another task."""
    with pytest.raises(UsageError, match="needs a config, which names the data"):
        vertebra.evaluate(load_model(run, device="cpu"))
    with pytest.raises(UsageError):
        vertebra.evaluate(run, tiny_config(shapes))


def test_class_names_come_by_task_always(run, shapes):
    """Law: of a model from a run, by name or from parts, a mapping from each task to its names."""
    backbone = vertebra.create_backbone("resnet10t", levels=("c2", "c3", "c4", "c5"))
    neck = vertebra.FPN(backbone.feature_info)
    head = vertebra.RCNNHead(neck.feature_info, 2)
    assert vertebra.Model(backbone, neck, head, class_names=["cat", "dog"]).class_names == {"detection": ("cat", "dog")}
    assert vertebra.Model(backbone, neck, head).class_names == {}
    for model in (vertebra.load_model(run), vertebra.create_model("deeplabv3plus_r50_camvid")):
        assert isinstance(model.class_names, Mapping)
        assert all(isinstance(names, tuple) for names in model.class_names.values())


SNIPPET = """
import vertebra

backbone = vertebra.create_backbone("resnet18")
channels: int = backbone.feature_info["c4"].channels
model: vertebra.Model = vertebra.create_model("quickstart")
names: tuple[str, ...] = model.class_names["detection"]
predictor = vertebra.Predictor("runs/quickstart", device="auto")
config = vertebra.load_config("quickstart").replace(recipe={"batch_size": 4})
results: dict[str, object] = vertebra.train(config, "runs/mine", device="auto")
scores = vertebra.evaluate("runs/mine", device="auto")["bbox"]
models: list[str] = vertebra.list_models("mask*")
"""


@pytest.mark.slow
def test_a_users_script_passes_a_type_checker(tmp_path):
    """pyright's word, on a script outside the project; a mistake in it is found, so names are not unknown to it."""
    pytest.importorskip("pyright")
    (tmp_path / "vertebra").symlink_to(ROOT)  # an editable install is no path that a type checker follows
    (tmp_path / "script.py").write_text(SNIPPET)
    (tmp_path / "mistake.py").write_text(SNIPPET + "vertebra.create_model(3.5)\nvertebra.list_modells()\n")
    outputs = {}
    for name in ("script.py", "mistake.py"):
        command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, name]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        outputs[name] = [
            problem["message"]
            for problem in json.loads(result.stdout)["generalDiagnostics"]
            if problem["severity"] == "error"
        ]
    assert outputs["script.py"] == []
    assert len(outputs["mistake.py"]) == 2
