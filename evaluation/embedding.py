"""Embeddings: results rows, recall@k of image retrieval, and the similarities of image pairs for verification."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from ..formats import ImagePair
from ..formats.checks import Problem
from ..formats.results import check_image_results
from ..structures import Embedding
from .scores import Scores
from .verification import evaluate_verification

RECALLS = {"recall@1": 1, "recall@5": 5, "recall@10": 10}
_BLOCK = 2**23
"""The number of similarities that are computed at a time, which take 64 MB."""

MAX_VALUE = 2**63
"""The exclusive upper bound of the values of embeddings, which keeps their lengths finite."""
_NOT_FOUND = 2**62
"""The rank of an image that has no result, or of whose class no other image has one."""

Vectors = Float[ndarray, "n d"]


def to_embedding_results(embedding: Embedding, image_id: int | str) -> list[dict[str, Any]]:
    """Return the results rows of one image: a single row with its vector.

    Each number is the shortest decimal that is read back as the same float32, which halves the size of the file.
    """
    vector = embedding.vector.detach().float().cpu().numpy()
    return [{"image_id": image_id, "embedding": [float(number) for number in vector.astype(str).tolist()]}]


def evaluate_embeddings(
    ground_truth: Mapping[Any, int],
    results: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    pairs: Sequence[ImagePair] = (),
) -> dict[str, Scores]:
    """Score embeddings, compared by cosine similarity; return ``retrieval`` and, if there are pairs, ``verification``.

    ``ground_truth`` maps image ids to labels; the classes need not be those of the training data. ``retrieval`` is
    recall@k, and ``verification`` is described in :func:`evaluate_verification`. Raises ResultError for an invalid
    result.
    """
    _check_results(results, ground_truth)
    rows = {result["image_id"]: row for row, result in enumerate(results)}
    vectors = _unit_vectors(results)
    scores = {"retrieval": _evaluate_retrieval(ground_truth, rows, vectors, class_names)}
    if pairs:
        similarities = np.full(len(pairs), np.nan)
        for index, pair in enumerate(pairs):
            if pair.first in rows and pair.second in rows:
                similarities[index] = vectors[rows[pair.first]] @ vectors[rows[pair.second]]
        same, folds = np.array([pair.same for pair in pairs]), np.array([pair.fold for pair in pairs])
        scores["verification"] = evaluate_verification(similarities, same, folds)
    return scores


def _evaluate_retrieval(
    ground_truth: Mapping[Any, int], rows: Mapping[Any, int], vectors: Vectors, class_names: Sequence[str]
) -> Scores:
    """Return recall@k: the fraction of images with an image of their class among their k nearest others (1511.06452).

    Images that are alone in their class are not scored, but are still neighbors of others. An image without a result
    counts as a miss. Equally similar images are ranked with those of other classes first, so that a model that gives
    all images the same embedding scores 0.
    """
    labels = np.array([*ground_truth.values()], np.int64)
    rank_of_row = _ranks(vectors, np.array([ground_truth[image_id] for image_id in rows], np.int64))
    ranks = np.full(len(labels), _NOT_FOUND)
    for index, image_id in enumerate(ground_truth):
        if image_id in rows:
            ranks[index] = rank_of_row[rows[image_id]]
    scored = np.bincount(labels, minlength=len(class_names))[labels] > 1
    ranks, labels = ranks[scored], labels[scored]
    counts = {
        "images": len(ground_truth),
        "images_without_result": len(ground_truth) - len(rows),
        "images_alone_in_their_class": len(ground_truth) - len(ranks),
    }
    return Scores(
        {name: _fraction_below(ranks, limit) for name, limit in RECALLS.items()},
        {name: _fraction_below(ranks[labels == label], 1) for label, name in enumerate(class_names)},
        counts,
    )


def _ranks(vectors: Vectors, labels: Int64[ndarray, " n"]) -> Int64[ndarray, " n"]:
    """Return the rank, counted from 0, of the nearest vector of the same class, for each vector.

    This is the number of vectors of other classes that are at least as similar, or ``_NOT_FOUND`` if no other vector
    has the class.
    """
    ranks, block = np.full(len(labels), _NOT_FOUND), max(1, _BLOCK // max(len(labels), 1))
    for start in range(0, len(labels), block):
        queries = np.arange(start, min(start + block, len(labels)))
        similarities, same = vectors[queries] @ vectors.T, labels[queries, None] == labels
        matches = same.copy()
        matches[np.arange(len(queries)), queries] = False
        nearest = np.where(matches, similarities, -np.inf).max(axis=1)
        nearer = ((similarities >= nearest[:, None]) & ~same).sum(axis=1)
        ranks[queries] = np.where(matches.any(axis=1), nearer, _NOT_FOUND)
    return ranks


def _fraction_below(ranks: Int64[ndarray, " n"], limit: int) -> float | None:
    return float((ranks < limit).mean()) if ranks.size else None


def _unit_vectors(results: Sequence[dict[str, Any]]) -> Vectors:
    """Return the vectors of the results, scaled to unit length; a vector of zeros stays as it is."""
    if not results:
        return np.zeros((0, 1))
    vectors = np.array([result["embedding"] for result in results], np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _check_results(results: Sequence[dict[str, Any]], ground_truth: Mapping[Any, int]) -> None:
    """Raise ResultError naming the image and the index of the first invalid result."""
    length: int | None = None

    def problem(result: dict[str, Any]) -> Problem | None:
        nonlocal length
        vector = result["embedding"]
        types = set(map(type, vector)) if isinstance(vector, list) else set()
        if not types or bool in types or not all(issubclass(found, int | float) for found in types):
            return Problem("bad-embedding", f"has the embedding {vector!r:.80}, which is not a list of numbers")
        if not all(abs(number) < MAX_VALUE for number in vector):  # False for NaN
            what = f"has the embedding {vector!r:.80}, which has a value that is not finite or beyond 2^63"
            return Problem("bad-embedding", what)
        length = length or len(vector)
        if len(vector) != length:
            return Problem(
                "bad-embedding", f"has an embedding of {len(vector)} numbers, but the first entry has {length}"
            )
        return None

    check_image_results(results, ground_truth, ("embedding",), problem)
