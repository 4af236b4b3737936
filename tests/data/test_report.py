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
    assert done.stdout.count("the policy for bad data must be 'error' (stop), 'skip' (leave it out") == 2
    assert done.stdout.count("got 'stop'") == 2


def test_bad_data_policies_error_and_skip(tmp_path):
    """By hand: one bad box; ``error`` raises, ``skip`` counts it."""
    content = tiny_content()
    content["annotations"][0]["bbox"] = [1, 2, -3, 4]
    config = write_tiny(tmp_path, content)
    with pytest.raises(DataError, match="negative-box"):
        build_dataset(config, "error")
    report = build_dataset(config, "skip").report
    assert report.skipped_count("annotations") == 1 and totals_add_up(report)


def test_fault_of_most_data_is_an_error_unless_any_number_may_be_skipped(tmp_path):
    """docs/faults.md row 176. By hand: four of six boxes and then three of four images are unusable."""
    content = tiny_content()
    for annotation in content["annotations"][:4]:
        annotation["bbox"] = [1, 2, -3, 4]
    config = write_tiny(tmp_path, content)
    with pytest.raises(DataError, match=r"ann_id=1: .*\(4 of 6 annotations have this fault\): correct it$"):
        build_dataset(config, "error")
    with pytest.raises(DataError, match=r"negative-box: .*\(4 of 6 annotations .*or pass --bad-data=skip-any to use"):
        build_dataset(config, "skip")
    report = build_dataset(config, "skip-any").report
    assert report.used("annotations") == 2 and totals_add_up(report)
    for number in (11, 12, 13):
        (config.images / f"{number}.png").unlink()
    with pytest.raises(DataError, match=r"missing-image: .*image_id=11: .*\(3 of 4 images have this fault\)"):
        build_dataset(config, "skip")
    assert len(build_dataset(config, "skip-any")) == 1


def test_fault_of_a_few_is_counted_and_may_be_skipped(tmp_path):
    """docs/faults.md row 176. By hand: two of six boxes, of two kinds; the message counts those of the commonest."""
    content = tiny_content()
    content["annotations"][0]["bbox"] = [1, 2, 3, 0]
    content["annotations"][1]["bbox"] = content["annotations"][2]["bbox"] = [1, 2, -3, 4]
    config = write_tiny(tmp_path, content)
    with pytest.raises(
        DataError, match=r"ann_id=2: .*\(2 of 6 annotations have this fault\): correct it, or pass --bad-data=skip$"
    ):
        build_dataset(config, "error")
    assert build_dataset(config, "skip").report.skipped_count("annotations") == 3
