"""The limit above which a novelty score counts as novel.

A cell's score says how badly the model explains its genes (:mod:`scgraft.novelty.score`). A high score has two possible
causes: the model misfits every cell of this query a little, or the cell is of a kind that the reference lacks. The limit
tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scgraft.expression.residuals import BLOCK
from scgraft.numerics.conformal import threshold_at
from scgraft.numerics.neighbors import Neighbours
from scgraft.numerics.votes import neighbour_vote
from scgraft.values.reference import Latent, Reference

if TYPE_CHECKING:
    from scgraft.expression.residuals import Decode

# Chosen by benchmarks/trust.py; what else was tried is in docs/trust-evidence.md.
NEAR_TYPES = 3  # the distance to other types is read a third of the way up the sorted list, see nearest_third
TYPE_MISFIT = 2.5  # times the query's excess misfit: what the model may get wrong about a single type
TOWARDS = 1 / 3  # of the squared distance to other types: the square root, 0.58, is more than half of the way
LEAST_TOWARDS = 0.5  # in units of the noise: types closer to each other than this set no limit


def type_distances(
    decode: Decode,
    reference: Reference,
    latent: Latent,
    batch: np.ndarray,
    codes: np.ndarray,
    found: Neighbours,
    *,
    present: np.ndarray | None = None,
) -> np.ndarray:
    """How far each cell's own type is from the other types, in the units of squared residuals, (n,) float32.

    Each type is stood for by one expression profile: what the decoder predicts at the mean latent of the type's reference
    cells, in the query cell's batch and at its depth. The distance between two types is the mean over genes of the squared
    difference of their profiles, divided by the variance that the model gives the cell. Of the distances to all other types
    the 33rd percentile is returned (:func:`nearest_third` says why).

    Parameters
    ----------
    decode
        The decoder for the reference and the query's cells, from :func:`scgraft.expression.residuals.decoder`.
    reference, latent
        The reference, and the query's cells in its latent.
    batch
        Code of each query cell's batch, (n,).
    codes
        Class of every reference cell; -1 for none.
    found
        Nearest reference cells of each query cell in the latent: their vote says which type the cell has.
    present
        Genes that the query has, (G,) bool; None takes all of them.

    Returns
    -------
    ndarray
        Infinite where the reference has fewer than two types.
    """
    assert reference.latent is not None
    points, names = reference.latent.mean, np.unique(codes[codes >= 0])
    out = np.full(len(latent.mean), np.inf, np.float32)
    if len(names) < 2:
        return out
    compact = np.where(codes >= 0, np.searchsorted(names, codes), -1)
    own = neighbour_vote(compact, len(names), found).argmax(axis=1)
    centres = np.stack([points[compact == c].mean(axis=0) for c in range(len(names))])
    # Without counts (values of a normal likelihood, regions that are open or not) the output is a profile as it is.
    has_depth = reference.hyper.gene_likelihood not in ("normal", "bernoulli")
    for code in np.unique(batch):
        rows = np.flatnonzero(batch == code)
        profile, _ = decode(centres, np.full(len(names), rows[0]))
        profile = profile / profile.sum(axis=1, keepdims=True) if has_depth else profile
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            mean, variance = decode(latent.mean[part], part)
            weight = (mean.sum(axis=1, keepdims=True) ** 2 if has_depth else 1.0) / (variance + 1e-9)
            out[part] = nearest_third(profile, weight.astype(np.float32), own[part], present)
    return out


def nearest_third(
    profile: np.ndarray, weight: np.ndarray, own: np.ndarray, present: np.ndarray | None = None
) -> np.ndarray:
    """The 33rd percentile of the squared distances from each cell's own type to all other types, (m,) float32.

    ::

        D(i, t) = 1/G * sum over genes g of  w[i, g] * (p[t, g] - p[c, g])^2

    where ``i`` is a cell, ``c`` its own type, ``t`` another type, ``p[t, g]`` the expression profile of a type and
    ``w[i, g]`` the weight of a gene for this cell. The distances of a cell are sorted; the one at place
    ``ceil((C - 1) / 3)`` is returned, with ``C`` the number of types.

    The smallest distance would depend on how finely the labels are cut: split one label into two and the nearest "other
    type" is its other half, at almost no distance. The 33rd percentile hardly changes when labels are split.

    Parameters
    ----------
    profile
        Expression profile of each type (C, G); at least two types.
    weight
        Weight of each gene for each cell, (m, G).
    own
        Type of each cell, (m,).
    present
        Genes that count, (G,) bool; None takes all of them.
    """
    kept = np.ones(profile.shape[1], bool) if present is None else present
    profile, weight = profile[:, kept], weight[:, kept]
    place = -(-(len(profile) - 1) // NEAR_TYPES) - 1  # rounded up, so that it is one of them at least
    out = np.empty(len(own), np.float32)
    for c in np.unique(own):
        others = np.delete(profile, c, axis=0) - profile[c]
        squares = weight[own == c] @ (others**2).T / max(int(kept.sum()), 1)
        out[own == c] = np.partition(squares, place, axis=1)[:, place]
    return out


def scaled_null(null: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The scores of held-out reference cells, multiplied so that their median is that of the query; never made smaller.

    The model explains every real cell of another laboratory a little worse than the reference's own cells. The median cell of
    the query shows by how much, and the null is scaled by it (an empirical null; Efron 2004,
    doi:10.1198/016214504000000089). The median cell is a known cell as long as less than half of the query is novel. In a
    query with more novel cells the null becomes too wide: novel cells are missed, but no known cell is called novel.
    """
    if not len(null) or not len(score):
        return null
    ratio = np.median(score) / max(float(np.median(null)), 1e-12)
    return null * max(float(ratio), 1.0)


def novelty_limits(score: np.ndarray, null: np.ndarray, excess: float, apart: np.ndarray, rate: float) -> np.ndarray:
    """Score above which each cell is novel, (n,) float32: the smaller of two limits.

    ::

        misfit limit  = max( q(scaled null),  1 + 2.5 * excess )
        foreign limit = max( q(null),         1 + max(apart / 3, 0.5) )
        limit         = min( misfit limit, foreign limit )

    where ``q`` is the ``1 - rate`` quantile, ``null`` the scores of held-out reference cells, ``scaled null`` the same after
    :func:`scaled_null`, and ``excess`` and ``apart`` are described below. A score of 1 is what noise alone gives.

    *Misfit limit*: a score below it may come from the model being a little wrong about this query. The model is wrong by
    different amounts about different cell types. Its error on one type is about as large as its error overall, so 2.5 times
    the overall excess is allowed.

    *Foreign limit*: a score above it means that the cell lies more than half of the way from its own type towards other
    types, which no misfit explains. This limit finds novel cells even where they are the majority of the query and so decide
    its median. It is never below 1.5, because types that differ by less than the noise cannot set a limit.

    Parameters
    ----------
    score
        Scores of the query's cells, (n,).
    null
        Scores of held-out reference cells, (m,).
    excess
        How much larger the query's misfit is than that of held-out batches, from :func:`misfit_excess`; a negative value
        counts as 0.
    apart
        Squared distance between the cell's type and other types, in the units of the score, (n,): a cell that looks like
        another type than its own has an expected score of about 1 + ``apart``. It is the result of :func:`type_distances`,
        averaged over the cell's neighbours, times their number.
    rate
        Declared share of known cells that may lie above the limit.
    """
    return smaller_limit(misfit_limit(score, null, excess, rate), threshold_at(null, rate), apart)


def misfit_limit(score: np.ndarray, null: np.ndarray, excess: float, rate: float) -> float:
    """What a misfit may explain: one limit for all cells of a query."""
    return max(threshold_at(scaled_null(null, score), rate), 1 + TYPE_MISFIT * max(excess, 0.0))


def smaller_limit(misfitted: float, held_out: float, apart: np.ndarray) -> np.ndarray:
    """The smaller of both limits, (n,), from that of the misfit, that of held-out cells, and the distance between types."""
    foreign = np.maximum(held_out, 1 + np.maximum(TOWARDS * apart, LEAST_TOWARDS))
    return np.minimum(misfitted, foreign).astype(np.float32)


def misfit_excess(misfit: float, held_out: Sequence[float]) -> float:
    """The query's misfit less that of the median held-out batch, or less 1 (the misfit of a model that is right) if larger."""
    return misfit - max([1.0, float(np.median(held_out))] if len(held_out) else [1.0])
