"""PASCAL VOC's AP: a published example, the development kit's loops, COCO's AP50, and cases by hand."""

import random

import pytest

from vertebra.evaluation import evaluate_coco, evaluate_voc, format_scores
from vertebra.formats import sort_results
from vertebra.structures import DataError

# The worked example of github.com/rafaelpadilla/Object-Detection-Metrics: 7 images, 15 objects, 24 detections
# (x, y, width, height; a score before). It counts a box from x to x + width as width + 1 pixels wide, as VOC does.
OBJECTS = {
    1: [(25, 16, 38, 56), (129, 123, 41, 62)],
    2: [(123, 11, 43, 55), (38, 132, 59, 45)],
    3: [(16, 14, 35, 48), (123, 30, 49, 44), (99, 139, 47, 47)],
    4: [(53, 42, 40, 52), (154, 43, 31, 34)],
    5: [(59, 31, 44, 51), (48, 128, 34, 52)],
    6: [(36, 89, 52, 76), (62, 58, 44, 67)],
    7: [(28, 31, 55, 63), (58, 67, 50, 58)],
}
FOUND = {
    1: [(0.88, 5, 67, 31, 48), (0.70, 119, 111, 40, 67), (0.80, 124, 9, 49, 67)],
    2: [(0.71, 64, 111, 64, 58), (0.54, 26, 140, 60, 47), (0.74, 19, 18, 43, 35)],
    3: [
        (0.18, 109, 15, 77, 39), (0.67, 86, 63, 46, 45), (0.38, 160, 62, 36, 53),
        (0.91, 105, 131, 47, 47), (0.44, 18, 148, 40, 44),
    ],
    4: [(0.35, 83, 28, 28, 26), (0.78, 28, 68, 42, 67), (0.45, 87, 89, 25, 39), (0.14, 10, 155, 60, 26)],
    5: [(0.62, 50, 38, 28, 46), (0.44, 95, 11, 53, 28), (0.95, 29, 131, 72, 29), (0.23, 29, 163, 72, 29)],
    6: [(0.45, 43, 48, 74, 38), (0.84, 17, 155, 29, 35), (0.43, 95, 110, 25, 42)],
    7: [(0.48, 16, 20, 101, 88), (0.95, 33, 116, 37, 49)],
}  # fmt: skip


def problem(objects: dict, found: dict) -> tuple[dict, list[dict]]:
    """Return ground truth and results of one class, from (box, difficult) and (score, box) of each image."""
    truth = {
        "images": [{"id": image} for image in objects],
        "annotations": [
            {"id": number, "image_id": image, "category_id": 1, "bbox": list(box), "difficult": int(difficult)}
            | {"iscrowd": int(difficult)}
            for number, (image, (box, difficult)) in enumerate(
                [(image, each) for image, own in objects.items() for each in own], start=1
            )
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    results = [
        {"image_id": image, "category_id": 1, "bbox": list(box), "score": score}
        for image, own in found.items()
        for score, box in own
    ]
    return truth, results


@pytest.mark.parametrize(
    ("rule", "published", "exact"),
    [
        ("area", 0.2456, 1 / 15 + 2 / 3 / 15 + 3 / 7 * 4 / 15 + 7 / 23 / 15),
        ("11-point", 0.2684, (1 + 2 / 3 + 3 / 7 * 3) / 11),
    ],
)
def test_published_example(rule, published, exact):
    """Oracle: Object-Detection-Metrics: 24.56 % as area, 26.84 % at eleven points, both at IoU 0.3; its sums, whose
    factors it cuts after four digits, are written as fractions."""
    truth, results = problem(
        {image: [((x, y, w + 1, h + 1), False) for x, y, w, h in own] for image, own in OBJECTS.items()},
        {image: [(score, (x, y, w + 1, h + 1)) for score, x, y, w, h in own] for image, own in FOUND.items()},
    )
    scores = evaluate_voc(truth, results, rule, iou=0.3)
    assert scores.summary == {"AP30": pytest.approx(exact, abs=1e-12)} and exact == pytest.approx(published, abs=1e-4)


def kit_average_precision(objects: dict, found: dict, rule: str) -> float:
    """Return AP by the development kit's loops, over pixels counted from 1.

    ``objects`` of each image are (x1, y1, x2, y2, difficult), ``found`` is (image, score, x1, y1, x2, y2), in the order
    of the results.
    """
    positives = sum(not thing[4] for own in objects.values() for thing in own)
    taken = set()
    marks = []
    for image, _, *box in sorted(found, key=lambda entry: -entry[1]):
        best, best_overlap = None, -1.0
        for place, (x1, y1, x2, y2, difficult) in enumerate(objects.get(image, [])):
            width = min(box[2], x2) - max(box[0], x1) + 1
            height = min(box[3], y2) - max(box[1], y1) + 1
            if width > 0 and height > 0:
                both = (box[2] - box[0] + 1) * (box[3] - box[1] + 1) + (x2 - x1 + 1) * (y2 - y1 + 1)
                overlap = width * height / (both - width * height)
                if overlap > best_overlap:
                    best, best_overlap = (image, place, difficult), overlap
        if best is None or best_overlap < 0.5:
            marks.append("miss")
        elif not best[2]:
            marks.append("miss" if best in taken else "hit")
            taken.add(best)
        else:
            marks.append("nothing")
    curve = []
    hits = misses = 0
    for mark in marks:
        hits, misses = hits + (mark == "hit"), misses + (mark == "miss")
        if hits + misses:
            curve.append((hits, hits / (hits + misses)))
    if rule == "11-point":
        points = [[precision for count, precision in curve if 10 * count >= point * positives] for point in range(11)]
        return sum(max(own, default=0.0) for own in points) / 11
    area = 0.0
    for count in range(1, positives + 1):
        area += max((precision for reached, precision in curve if reached >= count), default=0.0) / positives
    return area


@pytest.mark.parametrize("rule", ["area", "11-point"])
@pytest.mark.parametrize("seed", range(12))
def test_ap_equals_the_development_kits_loops(seed, rule):
    """docs/faults.md row 90. Oracle: loops written from VOCevaldet.m and VOCap.m, with their + 1, on scenes with
    difficult objects, equal scores, several detections per object, and overlaps of exactly a half."""
    generator = random.Random(seed)

    def pixels() -> tuple[int, int, int, int]:
        x, y = generator.randrange(1, 60), generator.randrange(1, 60)
        return x, y, x + generator.choice([0, 9, 19, 40]), y + generator.choice([0, 9, 19, 40])

    objects = {
        image: [(*pixels(), generator.random() < 0.25) for _ in range(generator.randrange(8))] for image in range(12)
    }
    near = [(image, thing[:4]) for image, own in objects.items() for thing in own for _ in range(2)]
    near = [(image, (x1, y1, max(x1, x2 + generator.choice([0, -10, 3])), y2)) for image, (x1, y1, x2, y2) in near]
    near += [(generator.randrange(12), pixels()) for _ in range(30)]
    found = [(image, generator.randrange(1, 12) / 12, *box) for image, box in near]
    generator.shuffle(found)

    def continuous(x1, y1, x2, y2) -> list[float]:
        return [x1 - 1.0, y1 - 1.0, x2 - x1 + 1.0, y2 - y1 + 1.0]

    truth, _ = problem({image: [(continuous(*box), hard) for *box, hard in own] for image, own in objects.items()}, {})
    results = [
        {"image_id": image, "category_id": 1, "bbox": continuous(*box), "score": score} for image, score, *box in found
    ]
    unique = list({(each["image_id"], each["score"], *each["bbox"]): each for each in results}.values())
    found = [
        (each["image_id"], each["score"], x + 1, y + 1, x + w, y + h)
        for each in unique
        for x, y, w, h in [each["bbox"]]
    ]
    expected = kit_average_precision(objects, found, rule)
    assert evaluate_voc(truth, unique, rule).summary["AP50"] == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1


def test_ap_at_eleven_points_and_as_area():
    """By hand: four objects; ranked true, false, true, false: recall 1/4 at precision 1, 2/4 at 2/3. The area is 1/4
    + 1/4 x 2/3; of eleven points 0, 0.1, 0.2 have 1, and 0.3, 0.4, 0.5 have 2/3."""
    boxes = [(0, 0, 10, 10), (20, 0, 10, 10), (40, 0, 10, 10), (60, 0, 10, 10)]
    found = [(0.9, boxes[0]), (0.8, (0, 50, 10, 10)), (0.7, boxes[1]), (0.6, (50, 50, 10, 10))]
    truth, results = problem({1: [(box, False) for box in boxes]}, {1: found})
    assert evaluate_voc(truth, results, "area").summary == {"AP50": pytest.approx((1 + 2 / 3) / 4)}
    assert evaluate_voc(truth, results, "11-point").summary == {"AP50": pytest.approx((3 + 3 * 2 / 3) / 11)}


@pytest.mark.parametrize("reached", range(1, 11))
def test_recall_equal_to_a_point_counts_for_it(reached):
    """By hand: with ten objects every true positive is a point of recall. Sums of 0.1 in floats would lose 0.3, 0.6
    and 0.7."""
    boxes = [(20 * place, 0, 10, 10) for place in range(10)]
    truth, results = problem({1: [(box, False) for box in boxes]}, {1: [(0.5, box) for box in boxes[:reached]]})
    assert evaluate_voc(truth, results, "11-point").summary == {"AP50": pytest.approx((reached + 1) / 11)}


def test_detection_is_matched_to_its_best_object_even_if_found_or_difficult():
    """By hand, as in the kit: the second detection overlaps another object by more than a half, but the found one
    more, so it is false; a detection whose best object is difficult is ignored."""
    objects = [((0, 0, 10, 10), False), ((3, 0, 10, 10), False), ((50, 0, 10, 10), True), ((53, 0, 10, 10), False)]
    found = [(0.9, (0, 0, 10, 10)), (0.8, (1, 0, 10, 10)), (0.7, (51, 0, 10, 10))]
    scores = evaluate_voc(*problem({1: objects}, {1: found}))
    assert scores.summary == {"AP50": pytest.approx(1 / 3)}
    assert scores.counts == {"images": 1, "images_without_detections": 0, "detections": 3, "difficult_objects": 1}


def test_area_ap_is_close_to_cocos_ap50():
    """Oracle: hotcoco: COCO averages the monotonic curve at 101 points of recall, VOC takes the area below it, so
    they differ by at most 1/101. Objects are far apart here; where they overlap, COCO matches the best one that is
    not found yet."""
    generator = random.Random(3)
    differences = []
    for _ in range(8):
        objects = {
            image: [((70 * place, 70 * image, 60, 60), False) for place in range(5)]
            for image in range(generator.randrange(2, 7))
        }
        found = {
            image: [(generator.random(), (x + generator.choice([0, 5, 40]), y, w, h)) for (x, y, w, h), _ in own]
            for image, own in objects.items()
        }
        truth, results = problem(objects, found)
        coco, voc = evaluate_coco(truth, results).summary["AP50"], evaluate_voc(truth, results).summary["AP50"]
        differences.append(coco - voc)
    assert max(map(abs, differences)) <= 1 / 101 + 1e-9
    assert any(differences)


def test_no_detections_and_no_ground_truth():
    """docs/faults.md rows 124, 125. By hand: no detections score 0, no objects score null, and difficult objects
    alone count as none."""
    box = (0, 0, 10, 10)
    assert evaluate_voc(*problem({1: [(box, False)]}, {})).summary == {"AP50": 0.0}
    for objects in ({1: []}, {1: [(box, True)]}):
        scores = evaluate_voc(*problem(objects, {1: [(0.5, box)]}))
        assert scores.summary == {"AP50": None} and scores.per_class == {"cat": None}


def test_mean_is_over_classes_with_objects():
    """By hand: one class found, one missed, one without objects but with a false positive."""
    truth, results = problem({"a": [((0, 0, 10, 10), False)], "b": []}, {"a": [(0.5, (0, 0, 10, 10))]})
    truth["categories"] += [{"id": 5, "name": "dog"}, {"id": 9, "name": "cow"}]
    truth["annotations"].append(truth["annotations"][0] | {"id": 2, "category_id": 5})
    results.append(results[0] | {"category_id": 9, "image_id": "b"})
    scores = evaluate_voc(truth, results)
    assert scores.per_class == {"cat": 1.0, "dog": 0.0, "cow": None} and scores.summary == {"AP50": 0.5}
    assert format_scores(scores).splitlines()[1] == "AP50    0.5000  IoU 0.50"


def test_order_of_results_does_not_matter():
    """docs/faults.md row 133. Law: shuffled results, some with equal scores, give the same digits once they are
    sorted."""
    truth, results = problem(
        {image: [(box, False) for box in own] for image, own in OBJECTS.items()},
        {image: [(round(score), tuple(box)) for score, *box in own] for image, own in FOUND.items()},
    )
    expected = evaluate_voc(truth, sort_results(results), iou=0.3)
    for seed in range(5):
        shuffled = random.Random(seed).sample(results, len(results))
        assert evaluate_voc(truth, sort_results(shuffled), iou=0.3) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "bad-score: image_id=1: entry 1 has the score nan"),
        ({"bbox": [0, 0, -1, 5]}, "bad-box: .*entry 1 .*negative"),
        ({"image_id": 9}, "unknown-image: .*entry 1 is about image 9"),
        ({"category_id": 2}, "unknown-category: .*entry 1 is about category 2"),
        ({}, "duplicate-result: .*entry 1 is the same as entry 0"),
    ],
)
def test_bad_result_is_refused(change, message):
    """docs/faults.md rows 126, 127, 129, 131. By hand: exit code 3, naming the entry."""
    truth, results = problem({1: [((0, 0, 10, 10), False)]}, {1: [(0.5, (0, 0, 10, 10))]})
    with pytest.raises(DataError, match=message) as caught:
        evaluate_voc(truth, [*results, results[0] | change])
    assert caught.value.exit_code == 3
