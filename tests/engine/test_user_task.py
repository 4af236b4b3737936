"""A new kind of prediction in a user's file: the head of docs/extending.md that counts, its task and its metric.

The tools train it, resume it, evaluate it, score its results file and predict with it, in processes that import only
what the command line names.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vertebra.inference import checkpoint_paths, import_user_code
from vertebra.structures import CheckpointError
from vertebra.tools.cli import main

from ..helpers.runs import equal_tensors, eval_scores, newest_weights, read_metrics, read_scores

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"

CONFIG = """
from count import CountConfig
from vertebra.data import CocoConfig, ResizeConfig, TransformConfig
from vertebra.data.transforms import TRANSFORMS
from vertebra.data.transforms.resize import build_resize
from vertebra.backbones import ResNetConfig
from vertebra.engine import AdamWConfig, ExperimentConfig, RecipeConfig, RunConfig, ScheduleConfig, SplitConfig
from vertebra.models import ModelConfig
from vertebra.necks import PassthroughConfig


class MyResizeConfig(ResizeConfig):
    name: str = "my_resize"


@TRANSFORMS.register("my_resize", MyResizeConfig)
def build(seed, config):
    return build_resize(seed, ResizeConfig(short_sides=config.short_sides, long_side=config.long_side))


def split(name, transform):
    data = CocoConfig(images="{shapes}/" + name, annotations="{shapes}/annotations/instances_" + name + ".json")
    return SplitConfig(dataset=data, transform=transform)


CONFIG = ExperimentConfig(
    name="count",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet10t", levels=("c2", "c3", "c4")), neck=PassthroughConfig(), head=CountConfig()
    ),
    train=split("train", MyResizeConfig(short_sides=(64,), long_side=96)),
    val=split("val", ResizeConfig(short_sides=(64,), long_side=96)),
    recipe=RecipeConfig(
        batch_size=2, optimizer=AdamWConfig(lr=1e-3), schedule=ScheduleConfig(steps=4, warmup_steps=2)
    ),
    run=RunConfig(checkpoint_every=2, log_every=1, loader={"workers": 0}),
)
"""


@pytest.fixture(scope="session")  # a process can import the user's file once
def project(shapes, tmp_path_factory) -> Path:
    """Return a user's folder: the page's ``count.py``, a config that imports it, and a finished run."""
    folder = tmp_path_factory.mktemp("project")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (block,) = (block for block in blocks if "class CountHead" in block)
    (folder / "count.py").write_text(block.partition("\n\nbase = ")[0] + "\n")
    (folder / "config.py").write_text(CONFIG.replace("{shapes}", str(shapes)))
    command = ["train", str(folder / "config.py"), "--output", str(folder / "run"), "--device", "cpu"]
    assert main([*command, "--set", "evaluation.every=2"]) == 0
    return folder


def run_tools(*commands: list[str]) -> tuple[list[int], str, str]:
    """Run commands in one new process, without the user's files; return exit codes, stdout and stderr."""
    script = "import json, sys; from vertebra.tools.cli import main; "
    script += "print('codes', json.dumps([main(command) for command in json.loads(sys.argv[1])]))"
    command = [sys.executable, "-c", script, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    output, _, codes = done.stdout.rpartition("codes ")
    return json.loads(codes), output, done.stderr


def test_user_task_is_trained_and_scored_by_its_metric(project):
    """By hand: the mean of the errors in the results file; the best checkpoint is the one with the lowest error."""
    scores = read_scores(project / "run" / "eval.json")
    truth = json.loads((project / "run" / "config.json").read_text())["val"]["dataset"]["annotations"]
    annotations = json.loads(Path(truth).read_text())["annotations"]
    rows = json.loads((project / "run" / "results.json").read_text())
    errors = [abs(row["count"] - sum(a["image_id"] == row["image_id"] for a in annotations)) for row in rows]
    assert scores["counting"] == {"MAE": pytest.approx(sum(errors) / len(errors))} and len(rows) == 4
    evaluated = {line["step"]: line["MAE"] for line in read_metrics(project / "run") if line["group"] == "val"}
    best = (project / "run" / "checkpoints" / "best").resolve().name
    assert best == f"step-{min(evaluated, key=evaluated.__getitem__):07d}"


def test_user_task_resumes_exactly(project, tmp_path):
    """Law: a run that lost its last checkpoint ends with the weights and the log of an uninterrupted one."""
    broken = shutil.copytree(project / "run", tmp_path / "run", symlinks=True)
    shutil.rmtree(checkpoint_paths(broken / "checkpoints")[-1])
    command = ["train", str(project / "config.py"), "--output", str(broken), "--resume", "--device", "cpu"]
    assert main([*command, "--set", "evaluation.every=2"]) == 0
    assert equal_tensors(newest_weights(broken), newest_weights(project / "run"))
    assert read_metrics(broken) == read_metrics(project / "run")


def test_results_file_of_a_user_task_gives_the_same_scores(project, tmp_path):
    """Law: to the last digit, with the run or with its config, although the data set is one for detection."""
    for source in ([str(project / "run")], ["--data", str(project / "config.py")]):
        arguments = [*source, "--results", str(project / "run" / "results.json")]
        assert eval_scores(arguments, tmp_path) == read_scores(project / "run" / "eval.json")


def test_run_with_a_user_head_needs_import_options(project, tmp_path):
    """By hand, in a new process: ``describe`` works; ``eval`` is refused with the options to add; with them it gives
    the same scores.

    The user's training transform is not needed to predict.
    """
    run, again, out = project / "run", tmp_path / "again.json", tmp_path / "out"
    photos = json.loads((run / "config.json").read_text())["val"]["dataset"]["images"]
    head, transform = (["--import", str(run / "code" / name)] for name in ("count.py", "config.py"))
    codes, output, errors = run_tools(
        ["describe", str(run)],
        ["eval", str(run)],
        ["predict", str(run), photos, "--output", str(out), *head],
        ["eval", str(run), *head, *transform, "--device", "cpu", "--json", str(again)],
    )
    assert codes == [0, 4, 0, 0], errors
    assert "passthrough + count" in output and "custom parts are defined in config.py, count.py" in output
    assert errors.count("error: ") == 1 and "there is no head named 'count'" in errors
    assert f"add {' '.join(transform)} {' '.join(head)} (imports= in Python)" in errors
    assert " objects" in output and len(list(out.glob("*.png"))) == 4
    assert len(json.loads((out / "results.json").read_text())) == 4
    assert read_scores(again) == read_scores(run / "eval.json")


def test_no_code_runs_from_a_run_folder_unless_named(project, tmp_path):
    """docs/faults.md row 96. Law: no command runs the copied modules of a run folder unless it names them. The
    copies would leave a file."""
    run, mark = shutil.copytree(project / "run", tmp_path / "run", symlinks=True), tmp_path / "mark"
    for file in (run / "code").iterdir():
        file.write_text(f"open({str(mark)!r}, 'a').write('x')\n" + file.read_text())
    predict = ["predict", str(run), str(project), "--output", str(tmp_path / "found")]
    export = ["export-backbone", str(run), str(tmp_path / "out.safetensors")]
    codes, _, _ = run_tools(["eval", str(run)], ["describe", str(run)], export, predict)
    assert codes == [4, 0, 4, 4] and not mark.exists()
    run_tools([*export, "--import", str(run / "code" / "count.py")])
    assert mark.read_text() == "x"  # the control


SCRIPT = """
import sys
import numpy, vertebra
run, module = sys.argv[1:]
try:
    vertebra.load_model(run)
except Exception as error:
    print(type(error).__name__)
vertebra.load_model(run, "cpu", imports=[module])
print(type(vertebra.Predictor(run, "cpu", imports=[module])(numpy.zeros((50, 70, 3), numpy.uint8))).__name__)
"""


def test_python_functions_take_user_modules(project):
    """By hand: ``imports=`` of ``load_model`` and ``Predictor``; a prediction that is a float is returned unchanged."""
    script = [sys.executable, "-c", SCRIPT, str(project / "run"), str(project / "count.py")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == [CheckpointError.__name__, "float"], done.stderr


def test_user_modules_are_copied_to_the_run_folder(project):
    """By hand: the config file, which defines a transform, and the head's file, which it imports."""
    copied = {path.name for path in (project / "run" / "code").iterdir()}
    assert copied == {"config.py", "count.py"}
    state = json.loads((checkpoint_paths(project / "run" / "checkpoints")[-1] / "state.json").read_text())
    assert state["user_modules"] == {"config": "config.py", "count": "count.py"}


def test_copy_of_an_imported_module_is_not_run_again(project):
    """Law: a file with the same content in another folder is the module that is loaded, so no name is registered
    twice."""
    original = import_user_code(project / "count.py")
    assert import_user_code(project / "run" / "code" / "count.py") is original
