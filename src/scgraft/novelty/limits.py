"""Evidence that a cell is novel, and the limit above which it counts.

A model misfits every cell of another laboratory, and no number of held-out cells says by how much: those of a minified reference
are generated, and fit perfectly. So what counts is not how badly a cell is explained, but in what: a few genes far above what the
model expects (:func:`scgraft.novelty.score.shared_moments`) are markers of a type that it has not seen.
"""

from __future__ import annotations

import numpy as np

from scgraft.numerics.conformal import threshold_at
from scgraft.numerics.neighbors import Neighbours
from scgraft.numerics.votes import neighbour_vote

# Chosen by benchmarks/trust.py, see docs/trust-evidence.md: each data set's own choice, from all others, is within a tenth of it.
LEAST = 0.11
# Of the query's first quartile: with 2.5 fewer missing types are found, and the bound is twice the least limit.
TIMES, MOST = 2.0, 0.22
ROOT = 0.25  # of the score; without the score, fewer missing types are ranked above known ones, and with its square root as well
SILENT = 1e-6  # markers of cells that have none: below any limit, and above 0 so that cells keep an order
# Of a query must be known cells, for it to show its own scale; 0.2 and 0.3 were as good for an earlier rule.
QUARTER = 0.25


def quarter_of(values: np.ndarray) -> float:
    """First quartile of some values, above 0: what a query's known cells have as long as a quarter of it is known."""
    return max(float(np.quantile(values, QUARTER)), 1e-12) if len(values) else 1.0


def evidence(score: np.ndarray, markers: np.ndarray, farther: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Evidence that cells are novel, (n,) float32; next to 0 where their neighbours have no markers.

    ::

        mean of the neighbours' markers  *  mean of their distances  *  score ^ 1/4

    Markers say most. Cells of a missing type lie a little farther away before the fit, too, and are explained worse, but so are known
    cells of another laboratory: that counts by how many times the query's own first quartile it is.

    Parameters
    ----------
    score
        Of the cells, over the first quartile of their query, (n,).
    markers, farther
        Of the anchors, (a,): their markers, and their distance to the reference before the fit over the query's first quartile.
    neighbours
        Of the cells among the anchors, (n, k).
    """
    shared = np.maximum(markers[neighbours].mean(axis=1), SILENT) * farther[neighbours].mean(axis=1)
    return (shared * score**ROOT).astype(np.float32)


def limit_of(own: np.ndarray, held_out: np.ndarray, rate: float, fold: np.ndarray | None) -> float:
    """Evidence above which a cell is novel; infinite without held-out cells.

    ::

        max( what held-out cells seldom have,  0.11,  2 * first quartile of the query, but 0.22 at most )

    Held-out cells say what noise alone does, at the query's depth and in its genes. What real cells of another laboratory have is known
    from other data sets only: 0.11 is what one of twenty known cells of these exceeds. The query's first quartile says where its known
    cells have more than that, as long as a quarter of it is known; of a query without any known cell it would hide all, hence the bound.

    Parameters
    ----------
    own, held_out
        Evidence of the query's cells (n,), and of held-out cells of the reference (m,).
    rate
        Share of held-out cells above the limit.
    fold
        Batches that each of these was held out with, (m,); None takes all cells as those of one batch.
    """
    usual = min(TIMES * quarter_of(own), MOST)
    return max(further_batch_limit(held_out, rate, fold), LEAST, usual)


def further_batch_limit(null: np.ndarray, rate: float, fold: np.ndarray | None) -> float:
    """Evidence that at most a share `rate` of a further batch's cells exceeds, from held-out cells (m,) and their batches (m,).

    The largest of what all cells together and each batch alone give; a batch of too few cells says nothing of its own.
    """
    parts = [] if fold is None else [threshold_at(null[fold == f], rate) for f in np.unique(fold)]
    return max([threshold_at(null, rate), *(limit for limit in parts if np.isfinite(limit))])


def types_of(codes: np.ndarray, found: Neighbours) -> np.ndarray:
    """Class (n,) of each cell by the vote of its neighbours among cells with classes `codes`; -1 where none of them has one."""
    n_classes = int(codes.max(initial=-1)) + 1
    vote = neighbour_vote(codes, n_classes, found) if n_classes else np.zeros((len(found.indices), 1))
    return np.where(vote.any(axis=1), vote.argmax(axis=1), -1)


def scale_of(values: np.ndarray, null: np.ndarray) -> float:
    """How much larger a query's values are than those of held-out reference cells, 1 at least, from the first quartile of each.

    The model explains every real cell of another laboratory a little worse than the reference's own cells, and they lie a little
    farther away. The first quartile shows by how much as long as a quarter of the query is known cells (an empirical null;
    Efron 2004, doi:10.1198/016214504000000089).
    """
    if not len(null) or not len(values):
        return 1.0
    ratio = np.quantile(values, QUARTER) / max(float(np.quantile(null, QUARTER)), 1e-12)
    return max(float(ratio), 1.0)
