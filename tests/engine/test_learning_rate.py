"""``lr_batch_size``: scaling the learning rate with the batch size."""

import io

import pytest
from rich.console import Console

from vertebra.engine import AdamWConfig, ScheduleConfig, SGDConfig, train

from ..helpers.runs import read_metrics
from ..helpers.tiny import tiny_classifier


@pytest.mark.parametrize(
    ("optimizer", "rate", "line"),
    [
        (
            SGDConfig(lr=0.01, lr_batch_size=16),
            0.0025,
            "0.0025 for batch size 4: 0.01 for batch size 16, scaled in proportion to",
        ),
        (
            AdamWConfig(lr=1e-3, lr_batch_size=16),
            5e-4,
            "0.0005 for batch size 4: 0.001 for batch size 16, scaled by the square",
        ),
        (SGDConfig(lr=0.01), 0.01, "0.01, not scaled with the batch size"),
    ],
    ids=["sgd", "adamw", "as it is"],
)
def test_learning_rate_follows_the_batch_size(optimizer, rate, line, tmp_path):
    """By hand: a quarter of the batch gives a quarter of SGD's rate and half of AdamW's; the log says so."""
    printed = io.StringIO()
    steps = ScheduleConfig(steps=1, decay="none", warmup_steps=0)
    config = tiny_classifier(recipe={"batch_size": 4, "schedule": steps, "optimizer": optimizer})
    train(config, tmp_path / "run", console=Console(file=printed))
    assert next(
        record["lr"] for record in read_metrics(tmp_path / "run") if record["group"] == "train"
    ) == pytest.approx(rate)
    assert f"learning rate {line}" in printed.getvalue()
