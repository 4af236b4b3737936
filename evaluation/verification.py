"""Verification of pairs of images as same or different: LFW's accuracy over folds, and true accept rates."""

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray

from .scores import FALSE_ACCEPT_RATES, Scores

Similarities = Float[ndarray, " p"]
SameClass = Bool[ndarray, " p"]


def evaluate_verification(similarities: Similarities, same: SameClass, folds: Int64[ndarray, " p"]) -> Scores:
    """Score the similarities of pairs of images; ``same`` is True for pairs of one class.

    ``accuracy`` is the mean over folds of the fraction of correct decisions, with the threshold that is best on the
    other folds (LFW's protocol, UMass Amherst 07-49), and ``accuracy_std`` is the standard deviation over folds; both
    are None for a single fold. ``TAR@f`` is the true accept rate, the fraction of same-class pairs that are accepted,
    at the lowest threshold with a false accept rate of at most f; it is left out if there are fewer than 1/f pairs of
    different classes. A pair whose similarity is NaN counts as a wrong decision.
    """
    accuracies = _accuracy_of_folds(similarities, same, folds)
    summary: dict[str, float | None] = {
        "accuracy": float(np.mean(accuracies)) if accuracies else None,
        "accuracy_std": float(np.std(accuracies)) if accuracies else None,
    }
    summary |= _true_accept_rates(similarities, same)
    counts = {
        "pairs": len(same),
        "folds": len(np.unique(folds)),
        "pairs_without_result": int(np.isnan(similarities).sum()),
    }
    return Scores(summary, {}, counts)


def best_threshold(similarities: Similarities, same: SameClass) -> float:
    """Return the threshold with the most correct decisions; pairs with at least this similarity are accepted.

    It lies halfway between two consecutive similarities. Of several equally good thresholds the highest is returned;
    infinity accepts no pair, and minus infinity accepts all pairs. Without pairs it is infinity.
    """
    if not len(same):
        return float("inf")
    order = np.argsort(-similarities, kind="stable")
    similarities, same = similarities[order], same[order]
    # gains[k]: correct decisions gained by accepting the k most similar pairs, compared with rejecting all pairs.
    gains = np.concatenate([[0], np.cumsum(np.where(same, 1, -1))])
    bounds = np.concatenate([[np.inf], similarities, [-np.inf]])
    gains[bounds[:-1] == bounds[1:]] = -len(same) - 1  # equal similarities are accepted together
    accepted = int(np.argmax(gains))
    return float((bounds[accepted] + bounds[accepted + 1]) / 2)


def _accuracy_of_folds(similarities: Similarities, same: SameClass, folds: Int64[ndarray, " p"]) -> list[float]:
    """Return the accuracy of each fold at the best threshold of the other folds; empty for a single fold."""
    numbers, known = np.unique(folds), ~np.isnan(similarities)
    accuracies = []
    for fold in numbers if len(numbers) > 1 else []:
        others, tested = (folds != fold) & known, folds == fold
        threshold = best_threshold(similarities[others], same[others])
        right = ((similarities >= threshold) == same) & known
        accuracies.append(float(right[tested].mean()))
    return accuracies


def _true_accept_rates(similarities: Similarities, same: SameClass) -> dict[str, float | None]:
    """Return the true accept rates by name, at each false accept rate that amounts to at least one pair."""
    accepted = np.nan_to_num(similarities[same], nan=-np.inf)
    rejected = np.sort(np.nan_to_num(similarities[~same], nan=np.inf))[::-1]
    rates: dict[str, float | None] = {}
    for name, rate in FALSE_ACCEPT_RATES.items():
        false_accepts = len(rejected) // round(1 / rate)
        if false_accepts:
            rates[name] = float((accepted > rejected[false_accepts]).mean()) if len(accepted) else None
    return rates
