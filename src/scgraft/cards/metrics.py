"""The numbers of a model card: how much counts drawn from the model are like the counts that it was trained on.

There are two styles:

``"corrected"`` (default)
    R2 takes the real counts for the truth. Differential expression uses Wilcoxon's rank-sum test, corrected for ties. The
    areas under the ROC and precision-recall curves rank genes by the absolute value of their score.
``"legacy"``
    Reproduces ``scvi.criticism`` of scvi-tools 1.2 to 1.4 to the printed digit, to compare with cards already published.
    There R2 takes the model for the truth; the test is a t-test although the card says Wilcoxon; and the areas rank genes
    by their signed score, so that every gene that is lower in a class counts as missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse, stats

from scgraft.numerics.lognorm import log_normalised
from scgraft.numerics.ranking import Ranking, correlation, pr_auc, rank_groups, roc_auc, top_genes
from scgraft.values.shown import fields_as_html, fields_as_text

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Style = Literal["corrected", "legacy"]
Draws = Iterable[tuple[slice, int, np.ndarray]]


@dataclass(frozen=True)
class Agreement:
    """How far the values from the model agree with those from the real counts.

    `mae` is the mean absolute error; `pearson` and `spearman` are correlations; `r2` is 1 minus the squared error over the
    variance of the truth (which of the two is the truth depends on the style).
    """

    mae: float
    pearson: float
    spearman: float
    r2: float


@dataclass(frozen=True)
class ClassMetrics:
    """Differential expression of one class against the rest, compared between drawn and real counts.

    `gene_f1` is the share of the top genes of the real counts that are also top genes of the drawn ones. The `lfc_*` numbers
    compare the log2 fold changes of all genes. `roc_auc` and `pr_auc` say how well the score in drawn counts finds the genes
    that are significant in real ones; both are NaN where no gene is significant, or all are.
    """

    gene_f1: float
    lfc_mae: float
    lfc_pearson: float
    lfc_spearman: float
    roc_auc: float
    pr_auc: float
    n_cells: int


@dataclass(frozen=True)
class ModelMetrics:
    """The metrics of a model card.

    Parameters
    ----------
    style
        ``"corrected"`` or ``"legacy"`` (the module's docstring tells them apart); ``"published"`` for numbers that were read
        from a card, which does not say how they were made.
    cell_wise
        Agreement of the coefficients of variation of cells (standard deviation over mean of a cell's counts), by part of the
        data: ``"training"`` and ``"validation"``, or ``"all"``.
    gene_wise
        The same for the coefficients of variation of genes; None where it was not computed.
    diff_exp
        Differential expression by class; the classes with most cells come first.
    n_samples
        Number of draws from the model.
    """

    style: str
    cell_wise: Mapping[str, Agreement] = field(default_factory=dict)
    gene_wise: Agreement | None = None
    diff_exp: Mapping[str, ClassMetrics] = field(default_factory=dict)
    n_samples: int = 0

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


def metrics_from_draws(
    counts: csr_matrix,
    draws: Draws,
    *,
    n_samples: int,
    labels: Sequence[str] | np.ndarray | None = None,
    train: np.ndarray | None = None,
    validation: np.ndarray | None = None,
    style: Style = "corrected",
) -> ModelMetrics:
    """Compute the metrics of a model card from counts drawn from a model.

    The draws are read once, piece by piece, so memory does not grow with their number.

    Parameters
    ----------
    counts
        Raw counts of the cells, (n, G).
    draws
        Pieces of the draws, each a tuple of the slice of cells, the number of the draw (from 0) and the drawn counts (b, G);
        :func:`scgraft.expression.decode.predictive_blocks` makes them. Each cell comes once in each draw.
    n_samples
        Number of draws.
    labels
        Class of each cell; None leaves differential expression out.
    train, validation
        Positions of the cells of either part; without both, all cells are one part.
    style
        ``"corrected"``, or ``"legacy"`` to reproduce the numbers of scvi-tools (see above in this module).
    """
    cell_cv, gene_cv, first = _collect(draws, counts.shape, n_samples)
    raw_cell, raw_gene = _variation(counts, axis=1), _variation(counts, axis=0)
    both = train is not None and validation is not None and len(train) > 0 and len(validation) > 0
    parts: dict[str, np.ndarray | slice] = {"all": slice(None)}
    if both:
        assert train is not None and validation is not None
        parts = {"training": train, "validation": validation}
    cell_wise = {name: agreement(cell_cv[index], raw_cell[index], style) for name, index in parts.items()}
    diff_exp = {} if labels is None else class_metrics(counts, first, np.asarray(labels, str), style)
    return ModelMetrics(style, cell_wise, agreement(gene_cv, raw_gene, style), diff_exp, n_samples)


def _collect(draws: Draws, shape: tuple[int, int], n_samples: int) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Coefficient of variation of each cell and gene, averaged over the draws, and the first draw as it is."""
    n, n_genes = shape
    per_cell = np.empty((n, n_samples))
    sums, squares = np.zeros((n_samples, n_genes)), np.zeros((n_samples, n_genes))
    pieces: list[tuple[int, sparse.csr_matrix]] = []
    for block, sample, drawn in draws:
        squared = np.square(drawn)
        per_cell[block, sample] = _ratio(drawn.mean(axis=1, dtype=np.float64), squared.mean(axis=1, dtype=np.float64))
        sums[sample] += drawn.sum(axis=0, dtype=np.float64)
        squares[sample] += squared.sum(axis=0, dtype=np.float64)
        if sample == 0:
            pieces.append((block.start or 0, sparse.csr_matrix(drawn)))
    per_gene = _ratio(sums / n, squares / n)
    first = sparse.vstack([piece for _, piece in sorted(pieces, key=lambda p: p[0])], format="csr")
    return _mean_of_known(per_cell, axis=1), _mean_of_known(per_gene, axis=0), first


def _variation(counts: csr_matrix, *, axis: int) -> np.ndarray:
    wide = counts.astype(np.float64)
    mean = np.asarray(wide.mean(axis=axis)).ravel()
    return _ratio(mean, np.asarray(wide.multiply(wide).mean(axis=axis)).ravel())


def _ratio(mean: np.ndarray, mean_square: np.ndarray) -> np.ndarray:
    """Standard deviation over mean; NaN where the mean is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mean == 0, np.nan, np.sqrt(np.maximum(mean_square - mean**2, 0)) / mean)


def _mean_of_known(values: np.ndarray, *, axis: int) -> np.ndarray:
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0).sum(axis=axis) / known.sum(axis=axis)


def agreement(model: np.ndarray, raw: np.ndarray, style: Style) -> Agreement:
    """Agreement of the model's values with those of the counts; values that either lacks are left out (legacy: raw 0)."""
    if style == "legacy":
        raw = np.nan_to_num(raw)
    known = ~(np.isnan(model) | np.isnan(raw))
    model, raw = model[known], raw[known]
    if len(raw) < 2:
        return Agreement(*[float("nan")] * 4)
    truth = model if style == "legacy" else raw
    total = np.square(truth - truth.mean()).sum()
    r2 = 1 - np.square(model - raw).sum() / total if total > 0 else float("nan")
    spearman = correlation(stats.rankdata(model), stats.rankdata(raw))
    return Agreement(float(np.abs(model - raw).mean()), correlation(model, raw), spearman, float(r2))


def class_metrics(counts: csr_matrix, drawn: csr_matrix, labels: np.ndarray, style: Style) -> dict[str, ClassMetrics]:
    """Differential expression of each class against the rest, in real and in drawn counts; most cells first."""
    classes, codes = np.unique(labels, return_inverse=True)
    test: Literal["t-test", "wilcoxon"] = "t-test" if style == "legacy" else "wilcoxon"
    rankings = [rank_groups(log_normalised(m), codes, len(classes), test=test) for m in (counts, drawn)]
    n_top = 100 if counts.shape[1] >= 1000 else max(int(0.1 * counts.shape[1]), 1)
    found = {
        str(name): _compare(raw, model, n_top, style)
        for name, raw, model in zip(classes, *rankings, strict=True)
        if raw is not None and model is not None
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].n_cells))


def _compare(raw: Ranking, model: Ranking, n_top: int, style: Style) -> ClassMetrics:
    order = top_genes(raw.score, len(raw.score))
    best = set(order[:n_top].tolist()) & set(top_genes(model.score, n_top).tolist())
    if style == "legacy":
        # In the order of the raw scores, as the table that the published code takes its first genes from.
        truth, score = raw.adjusted[order] < 0.2, model.score[order]
        if not truth.any() or truth.sum() > 0.5 * len(truth):
            truth = np.zeros(len(order), bool)
            truth[np.argsort(raw.adjusted[order])[:n_top]] = True
    else:
        truth, score = raw.adjusted < 0.05, np.abs(model.score)
    a, b = raw.log2_change, model.log2_change
    return ClassMetrics(
        gene_f1=len(best) / n_top,
        lfc_mae=float(np.abs(a - b).mean()),
        lfc_pearson=correlation(a, b),
        lfc_spearman=correlation(stats.rankdata(a), stats.rankdata(b)),
        roc_auc=roc_auc(truth, score),
        pr_auc=pr_auc(truth, score),
        n_cells=raw.n_cells,
    )
