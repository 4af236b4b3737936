"""``recipe.compile``: the dense parts of a model are compiled, and compute the same numbers.

Models are compiled in a new process, since functions whose shapes are checked do not compile.
"""

import subprocess
import sys

import pytest

from vertebra.heads import HEADS, MaskBranchConfig, RCNNConfig
from vertebra.structures import FeatureInfo
from vertebra.tools.compat_trial import num_classes_of

from ..helpers.tiny import tiny_config

SAME_STEPS = """
import copy, json, sys, torch
from vertebra.data import build_dataset, build_transform, collate
from vertebra.engine import TrainingState, parse_config, train_step
from vertebra.models import build_model
config = parse_config(json.loads(sys.argv[1]))
data = build_dataset(config.train.dataset)
torch.manual_seed(0)
model = build_model(config.model, data.class_names).train()
transform = build_transform(config.train.transform)
batches = [
    collate([transform(data.read(index), epoch, index) for index in range(2)], model.size_divisor) for epoch in range(3)
]
def steps(config):
    state = TrainingState.create(copy.deepcopy(model), config)
    numbers = [train_step(state, [batch], config, step) for step, batch in enumerate(batches, 1)]
    return state.model, numbers
plain, expected = steps(config)
compiled, numbers = steps(config.replace(recipe={"compile": True}))
for step, reference in zip(numbers, expected, strict=True):
    for name, value in reference.items():
        torch.testing.assert_close(step[name], value, rtol=1e-3, atol=1e-5, msg=name)
assert list(compiled.state_dict()) == list(plain.state_dict())
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 4, "backbone, neck, RPN and box branch"
print("same")
"""


@pytest.mark.parametrize("name", [name for name in HEADS if name != "multi_head"])
def test_dense_parts_cover_all_parameters_of_a_head(name):
    """Law: a head has no parameters outside its dense parts."""
    coarsest = {"c": 16, "p": 64}
    levels = {f"{kind}{n}": FeatureInfo(16, min(2**n, coarsest[kind])) for kind in coarsest for n in range(2, 7)}
    config = RCNNConfig(mask=MaskBranchConfig()) if name == "rcnn" else HEADS[name].config(name=name)
    head = HEADS.build(config, levels, num_classes_of(config))
    dense_parts = map(head.get_submodule, head.dense_parts)
    assert set(head.parameters()) == {parameter for part in dense_parts for parameter in part.parameters()}


@pytest.mark.slow
def test_compiled_steps_equal_eager_steps(shapes):
    """Law: the same losses and gradient norms for three batches of different sizes, and the same names of weights."""
    done = subprocess.run(
        [sys.executable, "-c", SAME_STEPS, tiny_config(shapes).model_dump_json()], capture_output=True, text=True
    )
    assert done.stdout.split() == ["same"], done.stderr
