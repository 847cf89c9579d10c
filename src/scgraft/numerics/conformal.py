"""Probabilities and prediction sets that mean what they say: temperature, reliability, split-conformal sets.

Sets: split conformal prediction (Vovk, Gammerman and Shafer 2005) with one minus the probability of a class as its
nonconformity (Sadinle, Lei and Wasserman 2019, doi:10.1080/01621459.2017.1395341), within each class where it has
enough calibration cells (Mondrian; Vovk 2012, arXiv:1209.2673). Temperature: Guo et al. 2017 (arXiv:1706.04599), and
with a bias for each class, here written as a weight: Alexandari, Kundaje and Shrikumar 2020 (arXiv:1901.06852).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CLASS_CELLS = 30
BINS = 10
CERTAIN = 0.01  # a nonconformity below this is none
LEAST = 1e-6  # of a true class's probability: a single cell must not decide whether weights are proven
WEIGHT_RIDGE = 10.0  # chosen by benchmarks/quality.py (docs/trust.md)


def sharpen(matrix: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, C) raised to 1 / temperature and normalised; rows without any mass become uniform."""
    with np.errstate(divide="ignore"):
        logged = np.log(np.maximum(matrix.astype(np.float64), 0.0)) / temperature
    best = logged.max(axis=1, keepdims=True, initial=-np.inf)
    powered = np.exp(logged - np.where(np.isfinite(best), best, 0.0))
    total = powered.sum(axis=1, keepdims=True)
    uniform = np.full_like(powered, 1.0 / max(matrix.shape[1], 1))
    return np.divide(powered, total, out=uniform, where=total > 0).astype(np.float32)


def cross_entropy(score: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of every row, (n,), and its gradient (n, C) by the scores (n, C), which are overwritten.

    `true` are the codes of the true classes, (n,).
    """
    rows = np.arange(len(true))
    score -= score.max(axis=1, keepdims=True)
    share = np.exp(score)
    total = share.sum(axis=1, keepdims=True)
    entropy = np.log(total[:, 0]) - score[rows, true]
    share /= total
    share[rows, true] -= 1
    return entropy, share


def fit_class_weights(matrix: np.ndarray, true: np.ndarray) -> np.ndarray:
    """What the probability of every class is to be multiplied by, (C,) float32, before it is normalised; 1 without cells.

    Parameters
    ----------
    matrix
        Probabilities of held-out cells, (m, C).
    true
        Codes of their classes, (m,).

    Notes
    -----
    A class that draws the cells of others is called less, one that is missed more. Minimises the cross-entropy, in which a
    class counts as the square root of its cells (between accuracy, where it counts as all of them, and balanced accuracy,
    where all classes count alike), plus a ridge on the logarithms, so that few cells change little. Of a class that no
    held-out cell has, nothing is known but that cells of others may be called so: it is left out, and keeps the weight 1.
    """
    from scipy.optimize import minimize

    weights = np.ones(matrix.shape[1], np.float32)
    if not len(true):
        return weights
    seen, place, number = np.unique(true, return_inverse=True, return_counts=True)
    logged = np.log(np.maximum(matrix[:, seen].astype(np.float64), 1e-12))
    importance = 1 / np.sqrt(number[place])
    importance *= len(true) / importance.sum()

    def loss(bias: np.ndarray) -> tuple[float, np.ndarray]:
        entropy, gradient = cross_entropy(logged + bias, place)
        value = float(importance @ entropy + WEIGHT_RIDGE * (bias @ bias) / 2)
        return value, importance @ gradient + WEIGHT_RIDGE * bias

    weights[seen] = np.exp(minimize(loss, np.zeros(len(seen)), jac=True, method="L-BFGS-B").x)
    return weights


def proven_class_weights(folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Weights of the classes (C,) from all folds where weights from the others served each fold better; else ones.

    Parameters
    ----------
    folds
        Probabilities (m, C) and classes (m,) of the cells that were held out together.

    Notes
    -----
    Better is a higher mean log-probability of the true classes. What held-out batches teach must hold for other batches.
    Cells generated from a model often teach what is wrong with the model's cells, and are then not listened to.
    """
    gain = np.zeros(0)
    for i, (matrix, true) in enumerate(folds):
        others = [fold for j, fold in enumerate(folds) if j != i]
        if not len(true) or not others:
            continue
        weights = fit_class_weights(*(np.concatenate(part) for part in zip(*others, strict=True)))
        before, after = (sharpen(m, 1.0)[np.arange(len(true)), true] for m in (matrix, matrix * weights))
        gain = np.append(gain, np.log(np.maximum(after, LEAST)) - np.log(np.maximum(before, LEAST)))
    if not len(gain) or gain.mean() <= 0:
        return np.ones(folds[0][0].shape[1], np.float32)
    return fit_class_weights(*(np.concatenate(part) for part in zip(*folds, strict=True)))


def fit_temperature(matrix: np.ndarray, true: np.ndarray) -> float:
    """Temperature with the best mean log-probability of the true classes; 1 without cells.

    Searched between 0.5 and 5: a few held-out cells that are all right must not make every doubt disappear.
    """
    if not len(true):
        return 1.0
    grid = np.exp(np.linspace(np.log(0.5), np.log(5.0), 41))
    rows = np.arange(len(true))
    floored = 0.995 * matrix + 0.005 / matrix.shape[1]  # a vote of zero must not decide alone
    losses = [-np.log(sharpen(floored, t)[rows, true] + 1e-12).mean() for t in grid]
    return float(grid[int(np.argmin(losses))])


def reliability(probability: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Rows (mean probability, share right, cells) over ten equal bins of probability; empty bins are left out."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows = [(probability[place == b].mean(), right[place == b].mean(), (place == b).sum()) for b in np.unique(place)]
    return np.array(rows, np.float64).reshape(-1, 3)


def expected_error(table: np.ndarray) -> float:
    """Expected calibration error: mean gap between probability and share right, weighted by cells; 0 without cells."""
    cells = table[:, 2].sum()
    return float((np.abs(table[:, 0] - table[:, 1]) * table[:, 2]).sum() / cells) if cells else 0.0


def conformal_pvalues(
    matrix: np.ndarray,
    scores: np.ndarray,
    score_class: np.ndarray,
    *,
    least: int = CLASS_CELLS,
    batches: float = np.inf,
) -> np.ndarray:
    """Conformal p-value of every class for every cell, (n, C): the class is in the set where it exceeds alpha.

    Parameters
    ----------
    matrix
        Probabilities (n, C).
    scores, score_class
        Nonconformity of the calibration cells (m,), and codes of their classes.
    least
        A class with fewer calibration cells is compared with those of all classes.
    batches
        How many batches the calibration cells come from, each held out as a query is a new one: every p-value is multiplied by
        1 + 1 / batches, as few batches say little of how batches differ. Infinite where the cells themselves are exchangeable.

    Notes
    -----
    Nonconformities below 0.01 are ties: where held-out cells are all but certain, a probability of 0.99 is no reason against
    a class. A function of the score is a score, so that the sets keep their rate; they are never smaller.
    """
    scores = np.maximum(scores.astype(np.float64), CERTAIN)
    score = np.maximum(1.0 - matrix.astype(np.float64), CERTAIN)
    pooled, widened = np.sort(scores), 1 + 1 / batches
    out = np.ones(matrix.shape, np.float32)
    for c in range(matrix.shape[1]):
        own = np.sort(scores[score_class == c])
        reference = own if len(own) >= least else pooled
        worse = len(reference) - np.searchsorted(reference, score[:, c] - 1e-9, side="left")
        out[:, c] = np.minimum(widened * (1 + worse) / (len(reference) + 1), 1.0)
    return out


def threshold_at(null: np.ndarray, rate: float) -> float:
    """Smallest threshold that at most a share `rate` of exchangeable scores exceeds; infinite with too few of them."""
    rank = int(np.ceil((1 - rate) * (len(null) + 1)))
    return float(np.sort(null)[rank - 1]) if rank <= len(null) else float("inf")
