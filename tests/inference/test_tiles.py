"""Prediction in tiles: objects and classes at the seams, against the prediction of the whole image."""

import weakref
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import nms

from vertebra.engine import train
from vertebra.inference import Predictor, TileConfig, detect_in_tiles, segment_in_tiles
from vertebra.ops import label_map, paste_masks, resize_maps
from vertebra.structures import Detections, RoIMasks, SemanticLogits, UsageError

from ..helpers.tiny import tiny_classifier, tiny_config

GRID = 56
TILES = TileConfig(size=128, overlap=0.25, whole_image=False, batch_size=3)


def detect_blobs(photos: Sequence[np.ndarray]) -> list[Detections]:
    """Detect connected blobs of red (label 0) and green (label 1), with exact boxes and masks.

    It is equivariant to translation, and like a detector it sees only the part of a blob that is in the image.
    """
    return [_detect_blobs(photo) for photo in photos]


def _detect_blobs(photo: np.ndarray) -> Detections:
    boxes, labels, scores, grids = [], [], [], []
    for label in (0, 1):
        count, components, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(photo[..., label]))
        for number in range(1, count):
            left, top, width, height = stats[number, :4].tolist()
            mask = components[top : top + height, left : left + width] == number
            boxes.append([left, top, left + width, top + height])
            labels.append(label)
            scores.append(int(photo[top : top + height, left : left + width, 2][mask].max()) / 255)
            grids.append(resize_maps(torch.from_numpy(mask)[None, None].float(), (GRID, GRID))[0, 0])
    masks = RoIMasks(torch.stack(grids) if grids else torch.zeros(0, GRID, GRID), photo.shape[:2])
    found = Detections(
        torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(labels).long(), torch.tensor(scores), masks
    )
    return found[found.scores.argsort(descending=True, stable=True)]


def draw_blobs(seed: int, size: tuple[int, int], longest: int) -> np.ndarray:
    """Return an image of rectangles and ellipses that do not touch; each has its own score, in blue."""
    generator, image = np.random.default_rng(seed), np.zeros((*size, 3), np.uint8)
    taken = np.zeros(size, np.uint8)
    for number in range(400):
        height, width = generator.integers(6, longest if number < 40 else 40, 2).tolist()
        top, left = (
            int(generator.integers(0, side - extent)) for side, extent in zip(size, (height, width), strict=True)
        )
        around = (slice(max(0, top - 3), top + height + 3), slice(max(0, left - 3), left + width + 3))
        if taken[around].any():
            continue
        taken[around] = 1
        color = [255, 0] if number % 2 else [0, 255]
        if max(height, width) > 60 or number % 3:
            image[top : top + height, left : left + width] = [*color, 50 + number % 200]
        else:
            center, axes = (left + width // 2, top + height // 2), (width // 2 - 1, height // 2 - 1)
            cv2.ellipse(image, center, axes, 0, 0, 360, [*color, 50 + number % 200], cv2.FILLED)
    return image


def as_rows(found: Detections) -> list[tuple]:
    """Return the detections as sorted tuples."""
    return sorted(zip(found.labels.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_objects_at_seams_are_found_once_and_whole(seed):
    """docs/faults.md row 191. Law: of blobs of which many cross borders of tiles, some of them several, the detections
    are exactly those of the whole image, and the masks agree where an object was cut."""
    image = draw_blobs(seed, (500, 613), longest=300)
    found, (expected,) = detect_in_tiles(detect_blobs, image, TILES), detect_blobs([image])
    assert as_rows(found) == as_rows(expected) and len(found) > 50
    assert (found.scores.diff() <= 0).all()
    order, other = (
        sorted(range(len(found)), key=lambda row: boxes[row])
        for boxes in (found.boxes.tolist(), expected.boxes.tolist())
    )
    masks, truth = paste_masks(found.masks, found.boxes)[order], paste_masks(expected.masks, expected.boxes)[other]
    iou = (masks & truth).sum(dim=(1, 2)) / (masks | truth).sum(dim=(1, 2))
    assert iou.min() > 0.9 and masks.shape[1:] == image.shape[:2]


def test_unmerged_tiles_have_doubles():
    """Control: the tiles together have more detections than the image, and tiles that do not overlap leave objects in
    parts, unless the whole image is a view too."""
    image, counts = draw_blobs(0, (500, 613), longest=300), []

    def predict(photos: Sequence[np.ndarray]) -> list[Detections]:
        found = detect_blobs(photos)
        counts.extend(map(len, found))
        return found

    expected = as_rows(detect_blobs([image])[0])
    detect_in_tiles(predict, image, TILES)
    assert sum(counts) > 1.5 * len(expected)
    for whole_image in (False, True):
        config = TILES.replace(overlap=0.0, whole_image=whole_image)
        assert (as_rows(detect_in_tiles(detect_blobs, image, config)) == expected) is whole_image


def detect_squares(photos: Sequence[np.ndarray]) -> list[Detections]:
    """Detect squares of 24 pixels by a convolution of stride 4: a translation by 4 pixels translates its result."""
    found = []
    for photo in photos:
        pixels = torch.from_numpy(np.ascontiguousarray(photo[..., 0])).float()[None, None] / 255
        scores = F.conv2d(pixels, torch.full((1, 1, 24, 24), 1 / 576), stride=4)[0, 0]
        rows, columns = (scores > 0.5).nonzero(as_tuple=True)
        boxes = torch.stack([columns, rows, columns + 6, rows + 6], dim=1).float() * 4
        values = scores[rows, columns]
        kept = nms(boxes, values, 0.2)
        found.append(Detections(boxes[kept], torch.zeros(len(kept)).long(), values[kept]))
    return found


def test_convolutional_detector_gives_the_same_in_tiles():
    """Law: a dense detector whose stride divides the distance of the tiles has the same boxes and scores, bit for bit,
    although near a border it sees the best position in one of the tiles only."""
    generator = np.random.default_rng(3)
    image = np.zeros((400, 700, 3), np.uint8)
    for top in range(10, 340, 60):
        for left in range(10, 650, 60):
            y, x = top + int(generator.integers(0, 25)), left + int(generator.integers(0, 25))
            image[y : y + 24, x : x + 24] = generator.integers(150, 256, (24, 24, 1))
    (expected,) = detect_squares([image])
    for size, overlap in ((128, 0.25), (160, 0.3)):
        config = TileConfig(size=size, overlap=overlap, whole_image=False)
        assert config.stride % 4 == 0
        assert as_rows(detect_in_tiles(detect_squares, image, config)) == as_rows(expected)
    assert len(expected) > 60


def test_detections_of_one_tile_are_never_merged():
    """By hand: two overlapping detections of a class in one tile are kept, and one of another tile joins the nearest;
    keypoints move with their tile."""

    def predict(photos):
        boxes = {True: [[70.0, 10.0, 100.0, 40.0], [70.0, 10.0, 98.0, 38.0]], False: [[6.0, 10.0, 36.0, 40.0]]}
        found = []
        for photo in photos:
            here = torch.tensor(boxes[bool(photo[0, 0, 0])])
            points = torch.cat([here[:, :2], torch.ones(len(here), 1)], dim=1)[:, None]
            found.append(
                Detections(here, torch.zeros(len(here)).long(), torch.tensor([0.9, 0.8])[: len(here)], None, points)
            )
        return found

    image = np.zeros((128, 192, 3), np.uint8)
    image[0, 0] = 1
    found = detect_in_tiles(predict, image, TileConfig(size=128, overlap=0.5, whole_image=False))
    assert found.boxes.tolist() == [[70, 10, 100, 40], [70, 10, 98, 38]]
    assert found.keypoints[:, 0, :2].tolist() == [[70, 10], [70, 10]]
    shifted = detect_in_tiles(lambda photos: predict([image[64:]] * len(photos)), image, TILES)
    assert shifted.keypoints[:, 0, 0].tolist() == shifted.boxes[:, 0].tolist()


def test_image_without_objects_has_no_detections():
    """By hand: with masks of the size of the image."""
    found = detect_in_tiles(detect_blobs, np.zeros((300, 300, 3), np.uint8), TILES)
    assert len(found) == 0 and found.masks.size == (300, 300)


def logits_of_pixels(photos: Sequence[np.ndarray]) -> list[SemanticLogits]:
    """Return the channels of the pixels as the logits of three classes."""
    return [SemanticLogits.from_pixels(torch.from_numpy(photo).permute(2, 0, 1).float()) for photo in photos]


@pytest.mark.parametrize("size", [(300, 389), (128, 500), (129, 128), (60, 400)])
def test_class_map_of_pixelwise_logits_is_the_whole_image_s(size):
    """Law: logits that depend on one pixel are the same in every tile; blending changes nothing."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = segment_in_tiles(logits_of_pixels, image, TILES)
    channels = image.transpose(2, 0, 1).astype(int)
    top_two = np.sort(channels, axis=0)[-2:]
    clear = top_two[1] > top_two[0]  # sums of weighted logits are rounded
    np.testing.assert_array_equal(found.numpy()[clear], channels.argmax(axis=0)[clear])


def test_class_map_of_a_strided_network_agrees_with_the_whole_image():
    """Oracle: ``label_map`` of the whole image, for a network of stride 8 that sees tiles at half their size."""
    image = cv2.resize(np.random.default_rng(1).integers(0, 256, (12, 15, 3), dtype=np.uint8), (600, 480))

    def predict(photos: Sequence[np.ndarray]) -> list[SemanticLogits]:
        found = []
        for photo in photos:
            small = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            pixels = torch.from_numpy(small).permute(2, 0, 1).float()[None]
            size = (small.shape[0], small.shape[1])
            padded = tuple(-(-side // 8) * 8 for side in size)
            grid = F.avg_pool2d(F.pad(pixels, (0, padded[1] - size[1], 0, padded[0] - size[0])), 8)[0]
            found.append(SemanticLogits.from_grid(grid, padded, size))
        return found

    expected = label_map(predict([image])[0], image.shape[:2])
    found = segment_in_tiles(predict, image, TILES)
    assert (found == expected).float().mean() > 0.99
    config = TILES.replace(size=800)
    assert torch.equal(segment_in_tiles(predict, image, config), expected)


def test_seams_of_class_maps_are_blended():
    """By hand: two tiles that disagree about everything meet in the middle of their overlap."""

    def predict(photos):
        return [
            SemanticLogits.from_pixels(torch.eye(2)[int(photo[0, 0, 0])][:, None, None].expand(-1, *photo.shape[:2]))
            for photo in photos
        ]

    image = np.ones((100, 160, 3), np.uint8)
    image[:, 0] = 0
    found = segment_in_tiles(predict, image, TileConfig(size=100, overlap=0.4))
    assert (found[:, :80] == 0).all() and (found[:, 80:] == 1).all()


def test_logits_of_two_rows_of_tiles_are_kept():
    """By hand: when a row of tiles is predicted, the logits of all rows but the one before it are gone."""
    alive: list[weakref.ref] = []

    def predict(photos):
        assert sum(reference() is not None for reference in alive) <= 2 * 5
        found = logits_of_pixels(photos)
        alive.extend(weakref.ref(logits.windows[0].grid) for logits in found)
        return found

    segment_in_tiles(predict, np.zeros((1184, 512, 3), np.uint8), TILES)
    assert len(alive) == 12 * 5


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """Return a finished run of a detector."""
    output = tmp_path_factory.mktemp("tiles") / "run"
    train(tiny_config(shapes), output)
    return output


def test_predictor_predicts_large_photos_in_tiles(run):
    """Law: a photo that fits into a tile has the plain prediction; tiles far apart have that of their part, moved."""
    predictor = Predictor(run, "cpu")
    photo = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    plain = predictor(photo)
    predictor.use_tiles(TileConfig(size=96, overlap=0, whole_image=False, match_threshold=1, cover_threshold=1))
    wide = np.concatenate([photo, photo], axis=1)
    alone, pair = predictor([photo, wide])
    torch.testing.assert_close(alone.boxes, plain.boxes)
    assert len(pair) == 2 * len(plain) > 0
    expected = sorted(torch.cat([plain.boxes, plain.boxes + torch.tensor([96.0, 0, 96, 0])]).tolist())
    torch.testing.assert_close(torch.tensor(sorted(pair.boxes.tolist())), torch.tensor(expected))


def test_classifier_cannot_predict_in_tiles(tmp_path):
    """By hand: UsageError."""
    train(tiny_classifier(), tmp_path / "run")
    with pytest.raises(UsageError, match="a model for classification cannot predict an image in tiles"):
        Predictor(tmp_path / "run", "cpu").use_tiles()
