"""Recall@k and verification of embeddings: by hand, against slow loops and other libraries, and for bad results."""

import math
import random

import numpy as np
import pytest
import torch

from vertebra.evaluation import embedding as embedding_module
from vertebra.evaluation import evaluate_embeddings, evaluate_verification, to_embedding_results
from vertebra.evaluation.verification import best_threshold
from vertebra.formats import ImagePair, read_json, write_results
from vertebra.structures import DataError, Embedding

NAMES = ("cat", "dog", "cow")


def row(image_id, *vector: float) -> dict:
    return {"image_id": image_id, "embedding": list(vector)}


def at(image_id, degrees: float, length: float = 1.0) -> dict:
    """Return the results row of a vector in the plane, in this direction."""
    return row(image_id, length * math.cos(math.radians(degrees)), length * math.sin(math.radians(degrees)))


def random_results(count: int, classes: int, seed: int = 0) -> tuple[dict[int, int], list[dict]]:
    """Return the labels and the results of images whose vectors are their class's plus noise, in random order."""
    generator = np.random.default_rng(seed)
    truth = {number: int(generator.integers(classes)) for number in range(count)}
    centers = generator.normal(size=(classes, 6))
    results = [row(number, *(centers[label] + 1.2 * generator.normal(size=6))) for number, label in truth.items()]
    random.Random(seed).shuffle(results)
    return truth, results


def cosine(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True)) / math.hypot(*first) / math.hypot(*second)


def test_results_row_of_an_embedding(tmp_path):
    """Law: the numbers in a results file are short decimals that are read back as the same float32."""
    vector = torch.nn.functional.normalize(torch.randn(64, generator=torch.Generator().manual_seed(0)), dim=0)
    rows = to_embedding_results(Embedding(vector), "a.jpg")
    write_results(tmp_path / "results.json", rows)
    (read,) = read_json(tmp_path / "results.json")
    assert read["image_id"] == "a.jpg" and torch.equal(torch.tensor(read["embedding"]), vector)
    assert max(len(str(number)) for number in read["embedding"]) <= 15


def test_recall_by_hand():
    """By hand: directions 0 (cat), 10 (dog), 12 (dog), 30 (cat) and 90 degrees (cow); lengths do not matter.

    The cat at 0 degrees has both dogs nearer than the other cat, and so has the cat at 30. The dogs are each other's
    nearest. The cow is alone in its class.
    """
    truth = {"a": 0, "b": 1, "c": 1, "d": 0, "e": 2}
    results = [at("e", 90), at("d", 30, 5), at("b", 10, 0.1), at("a", 0), at("c", 12)]
    scores = evaluate_embeddings(truth, results, NAMES)["retrieval"]
    assert scores.summary == {"recall@1": 0.5, "recall@5": 1.0, "recall@10": 1.0}
    assert scores.per_class == {"cat": 0.0, "dog": 1.0, "cow": None}
    assert scores.counts == {"images": 5, "images_without_result": 0, "images_alone_in_their_class": 1}


def test_image_without_result_is_a_miss():
    """By hand: of two cats and two dogs one cat has no result, so neither cat finds the other."""
    truth = {1: 0, 2: 0, 3: 1, 4: 1}
    scores = evaluate_embeddings(truth, [at(1, 0), at(3, 90), at(4, 80)], NAMES)["retrieval"]
    assert scores.summary == {"recall@1": 0.5, "recall@5": 0.5, "recall@10": 0.5}
    assert scores.counts["images_without_result"] == 1


def test_equal_embeddings_of_all_images_score_zero():
    """docs/faults.md row 133. Law: ties are misses, so that a model which says nothing of an image gets no credit."""
    truth = {number: number % 2 for number in range(24)}
    scores = evaluate_embeddings(truth, [at(number, 40) for number in truth], NAMES)
    assert set(scores["retrieval"].summary.values()) == {0.0}


def test_recall_equals_a_slow_loop(monkeypatch):
    """Oracle: a loop over images that sorts all others by cosine, on 300 images; also in blocks of a few images."""
    truth, results = random_results(300, 20)
    vectors = {result["image_id"]: result["embedding"] for result in results}
    hits = {1: 0, 5: 0, 10: 0}
    for query, label in truth.items():
        others = [(cosine(vectors[query], vectors[other]), truth[other]) for other in truth if other != query]
        nearest = [found for _, found in sorted(others, reverse=True)]
        for limit in hits:
            hits[limit] += label in nearest[:limit]
    expected = {f"recall@{limit}": pytest.approx(count / 300) for limit, count in hits.items()}
    names = [str(label) for label in range(20)]
    assert evaluate_embeddings(truth, results, names)["retrieval"].summary == expected
    monkeypatch.setattr(embedding_module, "_BLOCK", 2000)
    assert evaluate_embeddings(truth, results, names)["retrieval"].summary == expected
    assert 0.2 < hits[1] / 300 < 0.9


def test_recall_at_1_equals_pytorch_metric_learnings():
    """Oracle: pytorch-metric-learning's precision at 1, on vectors of unit length."""
    calculators = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.inference import CustomKNN

    truth, results = random_results(400, 30)
    calculator = calculators.AccuracyCalculator(("precision_at_1",), knn_func=CustomKNN(CosineSimilarity()))
    vectors = torch.tensor([result["embedding"] for result in results])
    labels = torch.tensor([truth[result["image_id"]] for result in results])
    expected = calculator.get_accuracy(vectors, labels)["precision_at_1"]
    scores = evaluate_embeddings(truth, results, [str(label) for label in range(30)])
    assert scores["retrieval"].summary["recall@1"] == pytest.approx(expected)


SIMILARITIES = np.array([0.9, 0.8, 0.44, 0.3, 0.95, 0.6, 0.65, 0.2, 0.85, 0.5, 0.4, 0.1])
SAME = np.array([True, True, False, False] * 3)
FOLDS = np.repeat([0, 1, 2], 4)


def test_verification_by_hand():
    """By hand: three folds of two pairs of one class and two of two classes.

    Fold 0 has 0.9, 0.8 | 0.44, 0.3, fold 1 has 0.95, 0.6 | 0.65, 0.2, and fold 2 has 0.85, 0.5 | 0.4, 0.1. Without fold
    0 seven of eight decisions are right at 0.45, between 0.4 and 0.5, which decides all of fold 0. Without fold 1 all
    are right at 0.47, which accepts the 0.65 of fold 1. Without fold 2 seven are right at 0.52 and at 0.725: the higher
    one is taken, and rejects the 0.5 of fold 2.
    """
    scores = evaluate_verification(SIMILARITIES, SAME, FOLDS)
    assert scores.summary["accuracy"] == pytest.approx((1 + 0.75 + 0.75) / 3)
    assert scores.summary["accuracy_std"] == pytest.approx(np.std([1, 0.75, 0.75]))
    assert scores.counts == {"pairs": 12, "folds": 3, "pairs_without_result": 0}
    assert list(scores.summary) == ["accuracy", "accuracy_std"]  # a tenth of six pairs is less than one


def test_best_threshold_by_hand():
    """By hand: halfway between neighbors; infinity if rejecting all pairs is best; equal ones are not separated."""
    assert best_threshold(np.zeros(0), np.zeros(0, bool)) == math.inf
    assert best_threshold(np.array([0.9, 0.5, 0.1]), np.array([True, True, False])) == pytest.approx(0.3)
    assert best_threshold(np.array([0.9, 0.5]), np.array([False, False])) == math.inf
    assert best_threshold(np.array([0.9, 0.5]), np.array([True, True])) == -math.inf
    tied = best_threshold(np.array([0.5, 0.5, 0.5, 0.2]), np.array([True, False, True, False]))
    assert tied == pytest.approx(0.35)


def test_true_accept_rate_by_hand():
    """By hand: at most two of twenty pairs of two classes may be accepted, those of 0.19 and 0.18, so 0.17 must not be.

    Of the five pairs of one class, 0.18 and more are accepted; 0.17 is not, since its equal would be.
    """
    similarities = np.array([0.5, 0.18, 0.175, 0.17, 0.01, *(number / 100 for number in range(20))])
    same = np.array([True] * 5 + [False] * 20)
    scores = evaluate_verification(similarities, same, np.zeros(25, np.int64))
    assert scores.summary == {"accuracy": None, "accuracy_std": None, "TAR@1e-1": 0.6}


def test_pair_without_result_is_wrong():
    """docs/faults.md row 135. By hand: two pairs with a similarity of NaN, one of the same class and one of different
    classes, count as wrong decisions and do not change the threshold."""
    similarities = np.concatenate([SIMILARITIES, [np.nan, np.nan]])
    scores = evaluate_verification(similarities, np.append(SAME, [True, False]), np.append(FOLDS, [0, 0]))
    assert scores.summary["accuracy"] == pytest.approx((4 / 6 + 0.75 + 0.75) / 3)
    assert scores.counts["pairs_without_result"] == 2


def test_folds_without_results_are_scored():
    """docs/faults.md rows 124, 135. By hand: all pairs are wrong without results; with results of one fold alone, its
    threshold comes from no pair and accepts none."""
    nothing = np.full(len(SAME), np.nan)
    assert evaluate_verification(nothing, SAME, FOLDS).summary["accuracy"] == 0
    first = FOLDS < 1
    scores = evaluate_verification(np.where(first, SIMILARITIES, np.nan), SAME, FOLDS)
    assert scores.summary["accuracy"] == pytest.approx((~SAME[first]).mean() / len(set(FOLDS)))


def random_pairs(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rounded similarities, so that there are ties, and the classes and folds of pairs in random order."""
    generator = np.random.default_rng(3)
    same = generator.random(count) < 0.4
    return np.round(generator.normal(0.4 * same, 0.3), 2), same, generator.integers(0, 10, count)


def test_verification_equals_a_slow_loop():
    """Oracle: loops over all thresholds, for the accuracy of ten folds and for the true accept rates, on 2,000 pairs
    with ties."""
    similarities, same, folds = random_pairs(2000)
    accuracies = []
    for fold in range(10):
        others = folds != fold
        values = np.unique(similarities[others])
        candidates = [values[0] - 1, *((values[1:] + values[:-1]) / 2), values[-1] + 1]
        right = [((similarities[others] >= candidate) == same[others]).sum() for candidate in candidates]
        best = max(candidate for candidate, count in zip(candidates, right, strict=True) if count == max(right))
        accuracies.append(((similarities[~others] >= best) == same[~others]).mean())
    scores = evaluate_verification(similarities, same, folds)
    assert scores.summary["accuracy"] == pytest.approx(np.mean(accuracies))
    assert scores.summary["accuracy_std"] == pytest.approx(np.std(accuracies))
    assert [name for name in scores.summary if name.startswith("TAR")] == ["TAR@1e-1", "TAR@1e-2", "TAR@1e-3"]
    for name, rate in (("TAR@1e-1", 0.1), ("TAR@1e-2", 0.01), ("TAR@1e-3", 0.001)):
        rates = [((similarities[~same] >= t).mean(), (similarities[same] >= t).mean()) for t in np.unique(similarities)]
        assert scores.summary[name] == pytest.approx(max(accepted for false, accepted in rates if false <= rate))


def test_true_accept_rates_equal_scikit_learns():
    """Oracle: scikit-learn's ROC curve with every threshold."""
    metrics = pytest.importorskip("sklearn.metrics")
    similarities, same, folds = random_pairs(2000)
    false, accepted, _ = metrics.roc_curve(same, similarities, drop_intermediate=False)
    scores = evaluate_verification(similarities, same, folds)
    for name, rate in (("TAR@1e-1", 0.1), ("TAR@1e-2", 0.01), ("TAR@1e-3", 0.001)):
        assert scores.summary[name] == pytest.approx(accepted[false <= rate].max())


def test_pairs_are_compared_by_cosine():
    """By hand: angles of 10, 20, 70 and 80 degrees in two folds; the vectors' lengths do not matter."""
    results = [at("a", 0, 3), at("b", 10), at("c", 70, 0.1), at("d", 90)]
    pairs = [
        ImagePair(first, second, same, fold)
        for first, second, same, fold in (
            ("a", "b", True, 0),
            ("b", "d", False, 0),
            ("c", "d", True, 1),
            ("c", "a", False, 1),
        )
    ]
    scores = evaluate_embeddings({"a": 0, "b": 0, "c": 1, "d": 1}, results, NAMES, pairs)
    assert list(scores) == ["retrieval", "verification"]
    assert scores["verification"].summary == {"accuracy": 1.0, "accuracy_std": 0.0}


def test_no_results_and_no_images():
    """docs/faults.md rows 124, 125. By hand: no embeddings score 0, no images score null."""
    empty = {"recall@1": None, "recall@5": None, "recall@10": None}
    assert evaluate_embeddings({}, [], NAMES)["retrieval"].summary == empty
    assert set(evaluate_embeddings({1: 0, 2: 0}, [], NAMES)["retrieval"].summary.values()) == {0.0}


# name: (results, case, pattern of the message)
BAD = {
    "no embedding": ([{"image_id": 1}], "bad-results", "entry 0 has no embedding"),
    "unknown image": ([row(9, 1)], "unknown-image", "entry 0 is about image 9"),
    "twice": ([row(1, 1), row(1, 1)], "duplicate-result", "entry 1 is the second result of its image"),
    "not a list": ([{"image_id": 1, "embedding": 0.5}], "bad-embedding", "0.5, which is not a list of numbers"),
    "empty": ([row(1)], "bad-embedding", r"\[\], which is not a list of numbers"),
    "text": ([{"image_id": 1, "embedding": [0.5, "1"]}], "bad-embedding", "not a list of numbers"),
    "truth value": ([{"image_id": 1, "embedding": [True, 1]}], "bad-embedding", "not a list of numbers"),
    "NaN": ([row(1, 0.5, math.nan)], "bad-embedding", "not finite"),
    "infinite": ([row(1, 0.5, -math.inf)], "bad-embedding", "not finite"),
    "huge": ([row(1, 0.5, -1e200)], "bad-embedding", r"beyond 2\^63"),
    "beyond floats": ([row(1, 10**400, 0.5)], "bad-embedding", r"beyond 2\^63"),
    "another length": (
        [row(1, 1, 0), row(2, 1)],
        "bad-embedding",
        "entry 1 has an embedding of 1 numbers, but the first",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_results_row_is_refused(name):
    """docs/faults.md rows 126, 128, 129, 131. By hand: exit code 3, naming the entry."""
    results, case, message = BAD[name]
    with pytest.raises(DataError, match=message) as caught:
        evaluate_embeddings({1: 0, 2: 1}, results, NAMES)
    assert caught.value.exit_code == 3 and caught.value.case == case
