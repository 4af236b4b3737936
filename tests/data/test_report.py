"""The policy for bad data, and the report of what validation found."""

import subprocess
import sys

import pytest

from vertebra.data import build_dataset
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import tiny_content, totals_add_up, write_tiny


def test_unknown_bad_data_policy_is_refused(tmp_path):
    """Symptom: the policy "stop" silently skipped bad data in a user's program, where no type checker runs."""
    config = write_tiny(tmp_path)
    program = f"""
from vertebra.data import CocoConfig, DataReport, build_dataset
config = CocoConfig(images={str(config.images)!r}, annotations={str(config.annotations)!r})
for attempt in (lambda: build_dataset(config, "stop"), lambda: DataReport("stop")):
    try:
        attempt()
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "bad data is met with 'error' (stop) or 'skip' (leave it out), got 'stop'\n" * 2


def test_bad_data_policies_error_and_skip(tmp_path):
    """By hand: one bad box; ``error`` raises, ``skip`` counts it."""
    content = tiny_content()
    content["annotations"][0]["bbox"] = [1, 2, -3, 4]
    config = write_tiny(tmp_path, content)
    with pytest.raises(DataError, match="negative-box"):
        build_dataset(config, "error")
    report = build_dataset(config, "skip").report
    assert report.skipped_count("annotations") == 1 and totals_add_up(report)
