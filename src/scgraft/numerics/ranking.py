"""Each group of cells against the rest, gene by gene: t-test or Wilcoxon, fold changes, and how two rankings agree.

Normalised counts are stored sparse and stay so: the zeros of a gene share one rank, so only its stored values are sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse, stats

Test = Literal["t-test", "wilcoxon"]


@dataclass(frozen=True)
class Ranking:
    """One group against all other cells; every array has one entry for each gene, (G,).

    `score` is the t statistic or the z score of the rank sum, positive where the group is higher; `log2_change` the
    log2 ratio of the mean normalised counts; `adjusted` the p-value after Benjamini and Hochberg.
    """

    score: np.ndarray
    log2_change: np.ndarray
    adjusted: np.ndarray
    n_cells: int


def rank_groups(values: sparse.csr_matrix, codes: np.ndarray, n_groups: int, *, test: Test) -> list[Ranking | None]:
    """Each group against the rest.

    Parameters
    ----------
    values
        log1p of normalised counts, (n, G), from :func:`scgraft.numerics.lognorm.log_normalised`.
    codes
        Group of each cell, (n,).
    n_groups
        Number of groups; a group of fewer than two cells, or with fewer than two others, gives None.
    test
        ``"t-test"`` (Welch's) or ``"wilcoxon"`` (rank sums with correction for ties; normal approximation).

    Notes
    -----
    Source: Welch, Biometrika 1947; Wilcoxon, Biometrics Bulletin 1945; Benjamini and Hochberg, JRSS B 1995. The fold
    change is scanpy's: log2((expm1(mean) + 1e-9) / (expm1(mean of the rest) + 1e-9)), means taken of the logs.
    """
    n = len(codes)
    member = sparse.csr_matrix((np.ones(n), (codes, np.arange(n))), shape=(n_groups, n))
    sizes = np.bincount(codes, minlength=n_groups).astype(np.float64)
    wide = values.astype(np.float64)
    sums, squares = (member @ wide).toarray(), (member @ wide.multiply(wide)).toarray()
    ranks = _rank_sums(values, codes, n_groups) if test == "wilcoxon" else None
    found: list[Ranking | None] = []
    for group in range(n_groups):
        n1, n2 = sizes[group], n - sizes[group]
        if n1 < 2 or n2 < 2:
            found.append(None)
            continue
        mean1, mean2 = sums[group] / n1, (sums.sum(axis=0) - sums[group]) / n2
        if ranks is None:
            square1, square2 = squares[group], squares.sum(axis=0) - squares[group]
            score, p = _welch((mean1, square1, n1), (mean2, square2, n2))
        else:
            score, p = _rank_z(ranks[0][group], ranks[1], n1, n2)
        change = np.log2((np.expm1(mean1) + 1e-9) / (np.expm1(mean2) + 1e-9))
        found.append(
            Ranking(score.astype(np.float32), change.astype(np.float32), stats.false_discovery_control(p), int(n1))
        )
    return found


def _welch(
    one: tuple[np.ndarray, np.ndarray, float], two: tuple[np.ndarray, np.ndarray, float]
) -> tuple[np.ndarray, np.ndarray]:
    """T statistic and p-value from (mean, sum of squares, number) of two groups."""
    (mean1, square1, n1), (mean2, square2, n2) = one, two
    variance1 = np.maximum(square1 / n1 - mean1**2, 0) * (n1 / (n1 - 1))
    variance2 = np.maximum(square2 / n2 - mean2**2, 0) * (n2 / (n2 - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        score, p = stats.ttest_ind_from_stats(
            mean1, np.sqrt(variance1), n1, mean2, np.sqrt(variance2), n2, equal_var=False
        )
    return np.nan_to_num(np.asarray(score), nan=0.0, posinf=0.0, neginf=0.0), np.where(np.isnan(p), 1.0, p)


def _rank_sums(values: sparse.csr_matrix, codes: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank sum of each group (C, G), and the correction for ties (G,)."""
    n, n_genes = values.shape
    columns = sparse.csc_matrix(values)
    sizes = np.bincount(codes, minlength=n_groups).astype(np.float64)
    sums, ties = np.empty((n_groups, n_genes)), np.empty(n_genes)
    for gene in range(n_genes):
        start, stop = columns.indptr[gene], columns.indptr[gene + 1]
        data, cells = columns.data[start:stop], columns.indices[start:stop]
        zeros = n - len(data)
        order = np.argsort(data, kind="stable")
        ordered = data[order]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(data) else np.zeros(0, np.int64)
        width = np.diff(np.r_[first, len(data)])
        rank = np.empty(len(data))
        rank[order] = np.repeat(zeros + first + (width + 1) / 2, width)
        own = codes[cells]
        nonzero = np.bincount(own, minlength=n_groups)
        sums[:, gene] = np.bincount(own, weights=rank, minlength=n_groups) + (sizes - nonzero) * (zeros + 1) / 2
        cubes = (width.astype(np.float64) ** 3 - width).sum() + float(zeros) ** 3 - zeros
        ties[gene] = 1 - cubes / (float(n) ** 3 - n)
    return sums, ties


def _rank_z(rank_sum: np.ndarray, ties: np.ndarray, n1: float, n2: float) -> tuple[np.ndarray, np.ndarray]:
    spread = np.sqrt(ties * n1 * n2 * (n1 + n2 + 1) / 12)
    with np.errstate(invalid="ignore", divide="ignore"):
        score = (rank_sum - n1 * (n1 + n2 + 1) / 2) / spread
    score = np.where(np.isfinite(score), score, 0.0)
    return score, 2 * stats.norm.sf(np.abs(score))


def top_genes(score: np.ndarray, n: int) -> np.ndarray:
    """Positions of the `n` highest scores, highest first, ties in the order that scanpy gives them."""
    whole = np.argpartition(score, -len(score))[-len(score) :]
    return whole[np.argsort(score[whole])[::-1]][:n]


def roc_auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the receiver operating characteristic; NaN where `truth` has one class only."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    rank_sum = stats.rankdata(score)[truth].sum()
    return float((rank_sum - positive * (positive + 1) / 2) / (positive * negative))


def pr_auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Average precision, equal scores taken together; NaN where nothing is true."""
    if not truth.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    hits = np.cumsum(truth[order])[last]
    precision, recall = hits / (last + 1), hits / hits[-1]
    return float(np.sum(np.diff(np.r_[0.0, recall]) * precision))


def correlation(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Pearson's correlation; NaN where one of the two is constant."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
