"""Checks of the pixels of images: damage, empty pictures, lost gray values, turned files, and copies."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from ....structures import DataError
from ..findings import Finding, Severity
from ..pixels import ImageFacts
from ..splits import ExaminedData, Split

SAME_PICTURE = 5
"""Two images are near-duplicates if at most this number of the 64 bits of their difference hashes differ. Of 203 photos
of COCO and VOC, saved again at half the size with JPEG quality 60, 202 differ by 4 or less from their original; no two
different photos of COCO differ by less than 13, of VOC 13, and of BCCD 12, except for one field of view that was taken
twice (5). Of CamVid's frames, which are a second apart, 94 pairs differ by 5 or less."""
FEW_LEVELS = 64
"""A 16-bit image that keeps fewer gray values when it is scaled to 8 bits has lost most of its contrast."""
LONGEST_RUN = 2000
"""The number of images with equal bits within which near-duplicates are looked for."""

Facts = Mapping[str, Sequence[ImageFacts]]
"""The facts of the images of each split, by its name."""


def check_readable_images(data: ExaminedData, facts: Facts) -> Iterable[Finding]:
    """Find images and class maps that cannot be decoded, which the check of their headers does not notice."""
    for split in data.splits:
        problems: dict[str, list[tuple[int, DataError]]] = {}
        for index, fact in enumerate(facts[split.name]):
            if fact.problem is not None:
                problems.setdefault(fact.problem.case, []).append((index, fact.problem))
        for case, found in problems.items():
            _, first = found[0]
            examples = tuple(split.image_example(index, error.what) for index, error in found[:3])
            yield Finding(
                case, "error", split.name, f"images cannot be read; the first: {first.what}", first.fix or "replace it",
                len(found), len(facts[split.name]), examples, unusable=len(found) == len(facts[split.name]),
            )  # fmt: skip


def check_appearance(data: ExaminedData, facts: Facts) -> Iterable[Finding]:
    """Find images that show nothing, 16-bit images whose gray values are lost, and files that EXIF turns."""
    tests: tuple[tuple[str, str, str, Callable[[ImageFacts], bool]], ...] = (
        ("flat-image", "images have one gray value nearly everywhere", "look at them and remove them", _is_flat),
        (
            "lost-gray-values", f"16-bit images keep fewer than {FEW_LEVELS} gray values when scaled to 8 bits",
            "stretch their range to 0..65535, or save them with 8 bits", _has_lost_levels,
        ),
    )  # fmt: skip
    for split in data.splits:
        for case, what, fix, test in tests:
            yield from _find_images(split, facts[split.name], (case, "warning", what, fix), test)
        turned = (
            "turned-by-exif", "note", "images are turned by their EXIF orientation",
            "look at some of them with their boxes: were they annotated upright?",
        )  # fmt: skip
        yield from _find_images(split, facts[split.name], turned, lambda fact: fact.is_turned)


def _is_flat(fact: ImageFacts) -> bool:
    return fact.is_flat and fact.gray_levels is None  # a 16-bit image may be flat because its values were lost


def _has_lost_levels(fact: ImageFacts) -> bool:
    return fact.gray_levels is not None and fact.gray_levels < FEW_LEVELS


def _find_images(
    split: Split, facts: Sequence[ImageFacts], text: tuple[str, Severity, str, str], test: Callable[[ImageFacts], bool]
) -> Iterable[Finding]:
    """Yield a finding about the images for whose facts ``test`` is true, if there are any."""
    indices = [index for index, fact in enumerate(facts) if test(fact)]
    if indices:
        examples = tuple(split.image_example(index) for index in indices[:3])
        case, severity, what, fix = text
        yield Finding(case, severity, split.name, what, fix, len(indices), len(facts), examples)


def check_copies(data: ExaminedData, facts: Facts) -> Iterable[Finding]:
    """Find images that are in the data twice, as the same file or nearly the same picture, within and across splits."""
    places = [(split, index) for split in data.splits for index in range(len(facts[split.name]))]
    listed = [facts[split.name][index] for split, index in places]
    of_split = np.array([data.splits.index(split) for split, _ in places], np.int64)
    exact = _equal_pairs([fact.digest for fact in listed])
    near = near_pairs([fact.fingerprint for fact in listed])
    if len(near) and len(exact):
        code = near[:, 0] * len(listed) + near[:, 1]
        near = near[~np.isin(code, exact[:, 0] * len(listed) + exact[:, 1])]
    for pairs, is_exact in ((exact, True), (near, False)):
        across = of_split[pairs[:, 0]] != of_split[pairs[:, 1]] if len(pairs) else np.zeros(0, bool)
        for number, split in enumerate(data.splits):
            inside = pairs[~across & (of_split[pairs[:, 0]] == number)] if len(pairs) else pairs
            yield from _describe_copies(inside, places, split.name, len(facts[split.name]), is_exact, False)
        names = " and ".join(split.name for split in data.splits)
        yield from _describe_copies(pairs[across], places, names, len(places), is_exact, True)


def _describe_copies(
    pairs: Int64[ndarray, "k 2"],
    places: Sequence[tuple[Split, int]],
    name: str,
    total: int,
    is_exact: bool,
    across: bool,
) -> Iterable[Finding]:
    """Yield the finding about pairs of copies, if there are any; the second image of a pair is the copy."""
    if not len(pairs):
        return
    originals = {copy: original for original, copy in reversed(pairs.tolist())}
    examples = []
    for copy in sorted(originals)[:3]:
        (split, index), (other, original) = places[copy], places[originals[copy]]
        relation = "a copy of" if is_exact else "looks like"
        examples.append(split.image_example(index, f"{relation} {other.dataset.file_name(original) or original}"))
    if is_exact and across:
        text = ("leaked-image", "error", "images are also in another split", "remove them from the training data")
    elif is_exact:
        text = ("repeated-image", "warning", "images are copies of others", "keep one, with all its objects")
    elif across:
        text = (
            "near-duplicate-across-splits", "warning", "images look like one of another split",
            "frames of one video, or copies? Put a video into one split; otherwise scores are too high",
        )  # fmt: skip
    else:
        text = (
            "near-duplicate",
            "note",
            "images look like another one",
            "frames of one video? Few teach as much as many",
        )
    case, severity, what, fix = text
    yield Finding(case, severity, name, what, fix, len(originals), total, tuple(examples))


def _equal_pairs(digests: Sequence[bytes]) -> Int64[ndarray, "k 2"]:
    """Return the pairs (first, later) of indices with the same digest; empty digests are not compared."""
    first: dict[bytes, int] = {}
    pairs = [
        (first[digest], index)
        for index, digest in enumerate(digests)
        if digest and first.setdefault(digest, index) != index
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


def near_pairs(fingerprints: Sequence[int | None], distance: int = SAME_PICTURE) -> Int64[ndarray, "k 2"]:
    """Return the pairs of indices (i, j), i < j, whose 64-bit hashes differ in at most ``distance`` bits.

    Two such hashes agree in one of ``distance + 1`` bands of bits, so only hashes with an equal band are compared, and
    of these only those that are at most ``LONGEST_RUN`` apart in the order of the band.
    """
    known = np.array([index for index, value in enumerate(fingerprints) if value is not None], np.int64)
    hashes = np.array([value for value in fingerprints if value is not None], np.uint64)
    edges = np.linspace(0, 64, distance + 2).astype(int).tolist()
    found = [np.zeros((0, 2), np.int64)]
    for low, high in itertools.pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
        order = np.argsort(band, kind="stable")
        active = np.arange(len(order))
        for step in range(1, LONGEST_RUN):
            active = active[active + step < len(order)]
            active = active[band[order[active]] == band[order[active + step]]]
            if not len(active):
                break
            first, second = order[active], order[active + step]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
            found.append(np.sort(np.stack([known[first[close]], known[second[close]]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)
