"""The COCO detection metric as slow loops over boxes or bitmaps, written from its definition (cocodataset.org)."""

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}


def size_of(entry: dict) -> float:
    """Return the area of an entry's mask (a bitmap) if it has one, otherwise of its box."""
    return float(entry["mask"].sum()) if "mask" in entry else entry["bbox"][2] * entry["bbox"][3]


def common_area(first: dict, second: dict) -> float:
    """Return the area of the intersection of two masks or boxes."""
    if "mask" in first:
        return float((first["mask"] & second["mask"]).sum())
    (x, y, w, h), (u, v, a, b) = first["bbox"], second["bbox"]
    return max(min(x + w, u + a) - max(x, u), 0) * max(min(y + h, v + b) - max(y, v), 0)


def overlap_of(detection: dict, truth: dict) -> float:
    """Return the intersection over union; if the ground truth is a crowd, the intersection over the detection's
    area."""
    common = common_area(detection, truth)
    own = size_of(detection)
    return common / (own if truth["iscrowd"] else own + size_of(truth) - common)


def match_image(detections: list[dict], truths: list[dict], threshold: float, area: tuple) -> tuple[list, int]:
    """Return (score, is true positive) of each detection that counts, best first, and the number of objects to find."""
    low, high = area
    ignored = [truth["iscrowd"] or not low <= truth["area"] <= high for truth in truths]
    free = set(range(len(truths)))
    outcome = []
    for detection in sorted(detections, key=lambda entry: -entry["score"]):
        near = {
            place: overlap_of(detection, truth)
            for place, truth in enumerate(truths)
            if place in free or truth["iscrowd"]
        }
        near = {place: overlap for place, overlap in near.items() if overlap >= threshold - 1e-12}
        wanted = {place: overlap for place, overlap in near.items() if not ignored[place]} or near
        if wanted:
            chosen = max(wanted, key=lambda place: (wanted[place], place))
            free.discard(chosen)
            if not ignored[chosen]:
                outcome.append((detection["score"], True))
        elif low <= size_of(detection) <= high:
            outcome.append((detection["score"], False))
    return outcome, ignored.count(False)


def class_scores(images: list[tuple], threshold: float, area: tuple, limit: int) -> tuple[float, float] | None:
    """Return (average precision, recall) of a class, from (detections, objects) of each image; None without objects."""
    outcomes, total = [], 0
    for detections, truths in images:
        best = sorted(detections, key=lambda entry: -entry["score"])[:limit]
        outcome, count = match_image(best, truths, threshold, area)
        outcomes += outcome
        total += count
    if not total:
        return None
    hits = np.cumsum([hit for _, hit in sorted(outcomes, key=lambda pair: -pair[0])])
    precisions = [hit / rank for rank, hit in enumerate(hits, start=1)]
    average = 0.0
    for point in np.linspace(0, 1, 101):
        reached = [precision for precision, hit in zip(precisions, hits, strict=True) if hit / total >= point]
        average += max(reached, default=0.0) / 101
    return average, (hits[-1] / total if len(hits) else 0.0)


def slow_summary(truth: dict, results: list[dict]) -> dict[str, float | None]:
    """Return COCO's twelve numbers. Of equal scores the one that is first in ``results`` ranks first."""

    def mean(place: int, thresholds=THRESHOLDS, size: str = "", limit: int = 100) -> float | None:
        scores = [
            class_scores(
                [
                    tuple(
                        [e for e in entries if e["image_id"] == image["id"] and e["category_id"] == category["id"]]
                        for entries in (results, truth["annotations"])
                    )
                    for image in truth["images"]
                ],
                threshold, AREAS[size], limit,
            )
            for category in truth["categories"]
            for threshold in thresholds
        ]  # fmt: skip
        measured = [score[place] for score in scores if score is not None]
        return float(np.mean(measured)) if measured else None

    summary = {"AP": mean(0), "AP50": mean(0, THRESHOLDS[:1]), "AP75": mean(0, THRESHOLDS[5:6])}
    summary |= {f"AP{size}": mean(0, size=size) for size in "sml"}
    summary |= {f"AR{limit}": mean(1, limit=limit) for limit in (1, 10, 100)}
    return summary | {f"AR{size}": mean(1, size=size) for size in "sml"}
