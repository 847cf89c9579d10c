"""Probabilities and prediction sets that mean what they say: temperature, reliability, split-conformal sets.

Sets: split conformal prediction (Vovk, Gammerman and Shafer 2005) with one minus the probability of a class as its
nonconformity (Sadinle, Lei and Wasserman 2019, doi:10.1080/01621459.2017.1395341), within each class where it has
enough calibration cells (Mondrian; Vovk 2012, arXiv:1209.2673). Temperature: Guo et al. 2017 (arXiv:1706.04599), and
with a bias for each class, here written as a weight: Alexandari, Kundaje and Shrikumar 2020 (arXiv:1901.06852).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CLASS_CELLS = 30  # with 30 cells the smallest p-value within a class is 1/31, below the usual alpha of 5 and 10 %
BINS = 10  # the usual number of bins of a reliability diagram (Guo et al. 2017 use 15 for far more cells)
CERTAIN = 0.01  # nonconformities below this count as this; chosen by benchmarks/trust.py (docs/trust-evidence.md)
TIE = 1e-6  # ten roundings of float32: probabilities that were computed apart are equal up to these
LEAST = 1e-6  # floor of a true class's probability: a single cell must not decide whether weights transfer
WEIGHT_RIDGE = 10.0  # chosen by benchmarks/quality.py (docs/trust-evidence.md)


def sharpen(matrix: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, C) raised to the power 1 / temperature and normalised; rows that are all zero become uniform."""
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
    """Weights of the classes (C,) float32: each probability is multiplied by the weight of its class, then normalised.

    A classifier calls some classes too often and others too rarely. A weight below 1 makes a class rarer, one above 1 makes
    it more frequent. Without cells all weights are 1.

    Parameters
    ----------
    matrix
        Probabilities of held-out cells, (m, C).
    true
        Codes of their classes, (m,).

    Notes
    -----
    The weights minimise ::

        sum over cells i of  u[i] * -log p[i, true class]  +  10 / 2 * sum over classes c of  log(weight[c])^2

    where ``p`` are the weighted and normalised probabilities and ``u[i]`` is one over the square root of the number of cells
    in the class of cell ``i``, scaled so that all ``u`` sum to the number of cells. So a class counts as the square root of
    its cells: between accuracy (a class counts as all of its cells) and balanced accuracy (all classes count the same). The
    second term keeps weights near 1 where there are few cells.

    A class that no held-out cell has is left out and keeps the weight 1: how often it is missed cannot be measured.
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
    """Weights of the classes (C,) float32, kept only if they transfer between held-out batches; all 1 if they do not.

    Weights are first learnt from all folds but one and tried on the fold that was left out, for each fold in turn. If the
    mean log-probability of the true classes rises over all these trials, the weights transfer, and weights from all folds
    are returned. If it does not rise, or if there is a single fold, the weights are dropped: every class gets 1.

    Parameters
    ----------
    folds
        For each fold, the probabilities (m, C) and the codes of the true classes (m,) of the cells that were held out
        together.

    Notes
    -----
    A query is one more batch that the weights have not seen, so weights that help only the batches they were learnt from are
    of no use. This happens most with references without counts, whose held-out cells are generated by the model and share
    the model's errors.
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
    """The temperature that gives the true classes the highest mean log-probability; 1 without cells.

    It is searched between 0.5 and 5. A smaller one would turn every probability into 0 or 1 as soon as the few held-out
    cells happen to be all right.
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
        Number B of held-out batches that the calibration cells come from. Few batches say little about how much batches
        differ, so every p-value is multiplied by (B + 1) / B: the sets are larger, as if alpha * B / (B + 1) had been asked
        for. That is a heuristic (:func:`coverage_across`). Infinite where the cells themselves are exchangeable.

    Notes
    -----
    ::

        p[i, c] = (B + 1) / B * (1 + number of calibration cells of class c that fit it no better than cell i) / (m_c + 1)

    where ``m_c`` is the number of calibration cells of class ``c``, and "fit" is the nonconformity 1 - probability of ``c``.

    Nonconformities below 0.01 count as 0.01. Where held-out cells are almost certain of their class, a probability of 0.99
    would otherwise be the worst of all and exclude the class. The sets become larger by this, never smaller.
    """
    scores = np.maximum(scores.astype(np.float64), CERTAIN)
    score = np.maximum(1.0 - matrix.astype(np.float64), CERTAIN)
    pooled, widened = np.sort(scores), 1 + 1 / batches
    out = np.ones(matrix.shape, np.float32)
    for c in range(matrix.shape[1]):
        own = np.sort(scores[score_class == c])
        reference = own if len(own) >= least else pooled
        worse = len(reference) - np.searchsorted(reference, score[:, c] - TIE, side="left")
        out[:, c] = np.minimum(widened * (1 + worse) / (len(reference) + 1), 1.0)
    return out


# alpha: the error rate of scgraft.labels.transfer.ALPHA.
def coverage_across(groups: Sequence[tuple[np.ndarray, np.ndarray]], *, alpha: float = 0.1) -> tuple[float, ...]:
    """Share of the true classes in the sets of each group's cells, when the other groups are what they are calibrated on.

    Parameters
    ----------
    groups
        Probabilities (m, C) and codes of the true classes (m,) of the cells that were held out together.
    alpha
        Requested error rate.

    Notes
    -----
    What a user of a new batch sees is the coverage of that batch, not the mean over batches. Sets that are proven to cover a
    further batch need many of them (hierarchical conformal prediction; Dunn, Wasserman and Ramdas 2023,
    doi:10.1080/01621459.2022.2060112): with fewer than 1 / alpha - 1 they hold every class. Multiplying p-values by
    1 + 1 / batches, as :func:`conformal_pvalues` does, is a heuristic between that and taking cells as independent.
    """
    out = []
    for i, (matrix, true) in enumerate(groups):
        others = [group for j, group in enumerate(groups) if j != i and len(group[1])]
        if not len(true) or not others:
            out.append(float("nan"))
            continue
        scores = np.concatenate([1 - m[np.arange(len(t)), t] for m, t in others])
        codes = np.concatenate([t for _, t in others])
        pvalues = conformal_pvalues(matrix, scores, codes, batches=len(others))
        out.append(float((pvalues[np.arange(len(true)), true] > alpha).mean()))
    return tuple(out)


def denser_tail(values: np.ndarray, null: np.ndarray, ratio: float) -> float:
    """Value above which values (n,) are everywhere at least `ratio` times as dense as null values (m,) are; infinite if nowhere.

    Densities are those of the p-values by the null, decreasing ones (the slopes of the least concave majorant of their distribution;
    Grenander 1956, doi:10.1080/03461238.1956.10414944).
    """
    if not len(values) or not len(null):
        return float("inf")
    ordered = np.sort(null)
    exceed = (1 + len(ordered) - np.searchsorted(ordered, values, side="left")) / (len(ordered) + 1)
    at, number = np.unique(exceed, return_counts=True)
    at, share = np.append(at, 1.0), np.append(np.cumsum(number) / len(values), 1.0)
    x, y, last = 0.0, 0.0, 0
    while x < 1:  # the corners of the majorant, one after the other
        slope = (share - y) / np.maximum(at - x, 1e-12)
        slope[at <= x] = -np.inf
        best = len(slope) - 1 - int(slope[::-1].argmax())
        if slope[best] < ratio:
            break
        x, y, last = float(at[best]), float(share[best]), best + 1
    if not last:
        return float("inf")
    return float(np.nextafter(values[exceed <= x].min(), -np.inf))


def threshold_at(null: np.ndarray, rate: float) -> float:
    """The smallest threshold that at most a share `rate` of new scores exceeds, if these are exchangeable with the null.

    Infinite where the null has too few scores: fewer than ``1 / rate - 1``.
    """
    rank = int(np.ceil((1 - rate) * (len(null) + 1)))
    return float(np.sort(null)[rank - 1]) if rank <= len(null) else float("inf")
