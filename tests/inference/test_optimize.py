"""``optimize_for_inference``: the predictions of the plain model, or an error that says what differs.

Models are compiled in new processes, since functions whose shapes are checked do not compile.
"""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._inductor import config

import vertebra
from vertebra.data import build_dataset
from vertebra.engine import train
from vertebra.inference import Predictor, agreement, load_model, optimize_for_inference
from vertebra.inference.agreement import compare_outputs, compute_outputs
from vertebra.inference.compile_parts import missing_compiler
from vertebra.inference.optimize import choose_precision, sample_images
from vertebra.structures import UsageError
from vertebra.tools.cli import main

from ..helpers.runs import read_scores
from ..helpers.tiny import tiny_classifier, tiny_config


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory) -> Path:
    """Return a finished run of a detector with batch norms in its backbone and neck."""
    output = tmp_path_factory.mktemp("optimize") / "run"
    train(tiny_config(shapes), output)
    return output


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    """Compare models on small generated images."""
    monkeypatch.setattr(sys.modules["vertebra.inference.optimize"], "SAMPLE_SIZES", ((64, 96), (96, 64)))


@pytest.fixture
def uncompiled(monkeypatch):
    """Leave out compilation."""
    monkeypatch.setattr(sys.modules["vertebra.inference.optimize"], "compile_frozen", lambda model, say: [])
    monkeypatch.setattr(sys.modules["vertebra.inference.optimize"], "missing_compiler", lambda device: "left out")


def test_optimized_model_predicts_the_same_and_the_original_stays(run, uncompiled, monkeypatch):
    """Law: no norm is left, predictions agree up to rounding, and the given model has not changed."""
    monkeypatch.setattr(agreement, "MIN_SCORE", 0.05)  # the run had four steps
    model, said = load_model(run, "cpu"), []
    before = copy.deepcopy(model.state_dict())
    model.train()
    optimized = optimize_for_inference(model, "fp32", say=said.append)
    assert model.training and not optimized.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in optimized.modules())
    batches = sample_images(model)
    found = compare_outputs(compute_outputs(model.eval(), batches), compute_outputs(optimized, batches))
    assert 0 < found.features < 1e-4 and found.missing == 0 and found.detections > 0
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert said[0] == f"optimized for inference: fp32 (as requested); {norms} norms folded; channels-last"
    assert said[1].startswith("largest differences from the plain model: feature maps ")


def test_model_is_changed_in_place_on_request(run, uncompiled):
    """By hand: the same object, without norms."""
    model = load_model(run, "cpu")
    assert optimize_for_inference(model, "fp32", in_place=True, say=lambda line: None) is model
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_bf16_is_used_in_convolutions_only(run, uncompiled):
    """By hand: feature maps are bfloat16 with errors of about 1 %; boxes, scores and weights are float32."""
    model, said = load_model(run, "cpu"), []
    optimized = optimize_for_inference(model, "bf16", say=said.append)
    batch = sample_images(model)[0]
    assert {level.dtype for level in optimized.features(batch).values()} == {torch.bfloat16}
    (detections,) = optimized.predict(batch)
    assert detections.boxes.dtype == detections.scores.dtype == torch.float32
    assert {parameter.dtype for parameter in optimized.parameters()} == {torch.float32}
    assert said[0].startswith("optimized for inference: bf16 (as requested)")


@pytest.mark.parametrize(
    "name", ["mask_rcnn_semantic_fpn_r10t_shapes", "panoptic_fpn_r10t_shapes", "arcface_r10t_outlines"]
)
def test_models_of_other_tasks_are_optimized(name, uncompiled):
    """Law: several heads, panoptic segments and an embedding agree with the plain model."""
    torch.manual_seed(0)
    said = []
    optimize_for_inference(vertebra.create_model(name), "fp32", say=said.append)
    assert "norms folded" in said[0]


def test_predictions_that_differ_are_an_error(run, monkeypatch):
    """docs/faults.md row 174: exit code 2 with the differences, the bounds and what to do; or accepted."""

    def damage(model, say):
        for parameter in model.head.rpn.parameters():
            parameter.data.neg_()
        for parameter in model.neck.parameters():
            parameter.data.mul_(1.5)
        return []

    monkeypatch.setattr(sys.modules["vertebra.inference.optimize"], "compile_frozen", damage)
    monkeypatch.setattr(sys.modules["vertebra.inference.optimize"], "missing_compiler", lambda device: "left out")
    model = load_model(run, "cpu")
    with pytest.raises(UsageError, match=r"plain model's: features: .* \(at most 0.001\).*: use the plain model, or"):
        optimize_for_inference(model, "fp32", say=lambda line: None)
    with pytest.raises(UsageError, match=r"features: .* \(at most 0.1\).*: use precision='fp32' \(--optimize fp32\)"):
        optimize_for_inference(model, "bf16", say=lambda line: None)
    assert optimize_for_inference(model, "fp32", check=False, say=lambda line: None) is not model


def test_auto_follows_the_device(monkeypatch):
    """By hand: bf16 with AMX or AVX512-BF16, which is named; otherwise fp32, and what was requested in any case."""
    device = torch.device("cpu")
    for amx, avx512, expected in (
        (True, True, ("bf16", "AMX")),
        (False, True, ("bf16", "AVX512-BF16")),
        (False, False, ("fp32", "the cpu has no units for bf16")),
    ):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx512=avx512: avx512)
        assert choose_precision("auto", device) == expected
        assert choose_precision("fp32", device) == ("fp32", "as requested")
        assert choose_precision("bf16", device) == ("bf16", "as requested")
    assert choose_precision("auto", torch.device("mps"))[0] == "fp32"


def test_missing_compiler_is_reported_and_the_model_works(run):
    """docs/faults.md row 175: one line with what to install; everything else is done."""
    said = []
    with config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert "install g++ or clang++" in (missing_compiler(torch.device("cpu")) or "")
        optimize_for_inference(load_model(run, "cpu"), "fp32", say=said.append)
    assert said[0].startswith("nothing is compiled: there is no C++ compiler; install g++")
    assert said[1].endswith("norms folded; channels-last")


FAILING_COMPILER = """
import sys, torch, vertebra
def fail(graph, inputs):
    raise RuntimeError("no code today")
compiler = torch.compile
torch.compile = lambda forward, dynamic: compiler(forward, backend=fail)
vertebra.optimize_for_inference(vertebra.load_model(sys.argv[1], "cpu"), "fp32")
"""


@pytest.mark.slow
def test_part_that_cannot_be_compiled_is_reported_and_works(run):
    """docs/faults.md row 175: a compiler that fails; the lines name the parts."""
    done = subprocess.run([sys.executable, "-c", FAILING_COMPILER, str(run)], capture_output=True, text=True)
    reported = [line for line in done.stdout.splitlines() if " is not compiled: " in line and "no code today" in line]
    assert [line.partition(" ")[0] for line in reported] == ["backbone", "neck", "head.rpn"]
    assert done.returncode == 0 and "largest differences from the plain model" in done.stdout


def test_predictor_is_optimized_on_photos(run, shapes, uncompiled):
    """Law: predictions agree up to rounding; photos of any accepted type."""
    dataset = build_dataset(tiny_config(shapes).val.dataset)
    photos = [dataset.read(index).image for index in range(2)]
    plain, fast, said = Predictor(run, "cpu"), Predictor(run, "cpu"), []
    fast.optimize("fp32", photos, say=said.append)
    assert len(said) == 2
    for one, other in zip(plain(photos), fast(photos), strict=True):
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)


def test_optimize_option_of_predict_and_eval(run, shapes, tmp_path, capsys, uncompiled):
    """Law: eval gives the scores of the plain model; both print the differences; without a value it is auto."""
    scores = tmp_path / "scores.json"
    assert main(["eval", str(run), "--device", "cpu", "--optimize", "fp32", "--json", str(scores)]) == 0
    assert "largest differences from the plain model" in capsys.readouterr().err
    expected, found = read_scores(run / "eval.json")["bbox"], read_scores(scores)["bbox"]
    assert found == pytest.approx(expected, abs=0.02)
    photo = shapes / "val" / sorted(path.name for path in (shapes / "val").iterdir())[0]
    assert (
        main(["predict", str(run), str(photo), "--device", "cpu", "--output", str(tmp_path / "out"), "--optimize"]) == 0
    )
    printed = capsys.readouterr().out
    assert "optimized for inference: " in printed and "largest differences" in printed
    assert main(["eval", "--data", "quickstart", "--results", "x.json", "--optimize", "fp32"]) == 2
    assert "--optimize has no effect with --results" in capsys.readouterr().err


TWENTY_SIZES = """
import json, sys, torch, vertebra
from torch._dynamo.utils import counters
from vertebra.structures import Images
model = vertebra.load_model(sys.argv[1], "cpu")
fast = vertebra.optimize_for_inference(model, sys.argv[2], say=lambda line: print(line, file=sys.stderr))
compiled = counters["stats"]["unique_graphs"]
for number in range(20):
    pixels = torch.randint(0, 256, (3, 64 + 9 * number, 130 - 3 * number), dtype=torch.uint8)
    images = Images.from_list([pixels], 32)
    scores = [network.predict(images)[0].scores[:5] for network in (model, fast)]
    torch.testing.assert_close(*scores, rtol=1e-3 if sys.argv[2] == "fp32" else 0.1, atol=1e-4)
cache = {name: counters["inductor"][f"fxgraph_cache_{name}"] for name in ("hit", "miss")}
print(json.dumps({"first": compiled, "all": counters["stats"]["unique_graphs"], **cache}))
"""


def count_compilations(run: Path, precision: str, cache: Path) -> dict[str, int]:
    """Optimize a run's model in a new process, predict images of twenty sizes, and return how often was compiled."""
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", TWENTY_SIZES, str(run), precision],
        capture_output=True,
        text=True,
        env=environment | {"VERTEBRA_CACHE": str(cache)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_twenty_sizes_are_few_compilations_and_none_in_a_second_process(run, tmp_path):
    """Law: the code is compiled for any size, but differs for very small maps; a later process finds it."""
    first = count_compilations(run, "fp32", tmp_path)
    assert first["first"] >= 3 and first["all"] <= 2 * first["first"] + 3
    second = count_compilations(run, "fp32", tmp_path)
    assert second["miss"] == 0 and second["hit"] == first["hit"] + first["miss"] > 0


@pytest.mark.slow
def test_compiled_bf16_predicts_what_the_plain_model_does(run, tmp_path):
    """Law: scores agree within the precision."""
    assert count_compilations(run, "bf16", tmp_path)["first"] >= 3


def test_classifier_is_optimized(uncompiled, tmp_path):
    """Law: scores of a class agree."""
    train(tiny_classifier(), tmp_path / "run")
    predictor, said = Predictor(tmp_path / "run", "cpu"), []
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    expected = predictor(photo)
    predictor.optimize("fp32", [photo], say=said.append)
    torch.testing.assert_close(predictor(photo).scores, expected.scores, rtol=1e-4, atol=1e-5)
