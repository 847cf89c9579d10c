"""The limit above which a novelty score counts as novel.

A cell's score says how badly the model explains its genes (:mod:`scgraft.novelty.score`). A high score has two possible
causes: the model misfits every cell of this query a little, or the cell is of a kind that the reference lacks. The limit
tells them apart.
"""

from __future__ import annotations

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
QUARTER = 0.25  # of a query must be known cells, for it to show its own scale; 0.2 and 0.3 are as good
DISTANCE_POWER = 2.0  # 1 leaves more false alarms (.06 of known cells instead of .04), 3 finds fewer missing types
TOWARDS = 1 / 3  # of the squared distance to other types: the square root, 0.58, is more than half of the way
SILENT = 1e-9  # stands for a sum of expected counts that is 0, where a cell has no genes
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
    n_regions = reference.schema.n_regions
    has_depth = reference.hyper.gene_likelihood not in ("normal", "bernoulli")
    for code in np.unique(batch):
        rows = np.flatnonzero(batch == code)
        like = _with_all_kinds(decode, latent.mean, rows) if n_regions else rows[0]
        profile, _ = decode(centres, np.full(len(names), like))
        if n_regions:
            profile[:, :-n_regions] /= np.maximum(profile[:, :-n_regions].sum(axis=1, keepdims=True), SILENT)
        else:
            profile = profile / profile.sum(axis=1, keepdims=True) if has_depth else profile
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            mean, variance = decode(latent.mean[part], part)
            if n_regions:
                weight = 1.0 / (variance + 1e-9)
                weight[:, :-n_regions] *= mean[:, :-n_regions].sum(axis=1, keepdims=True) ** 2
                weight[variance == 0] = 0.0  # a kind of features that the cell lacks tells no types apart
            else:
                weight = (mean.sum(axis=1, keepdims=True) ** 2 if has_depth else 1.0) / (variance + 1e-9)
            out[part] = nearest_third(profile, weight.astype(np.float32), own[part], present)
    return out


def _with_all_kinds(decode: Decode, points: np.ndarray, rows: np.ndarray) -> int:
    """A cell of some rows (n,) that has both genes and regions, where one of the first does: its output has no zeros."""
    some = rows[:BLOCK]
    mean, _ = decode(points[some], some)
    return int(some[np.argmax((mean > 0).sum(axis=1))])


def types_of(codes: np.ndarray, found: Neighbours) -> np.ndarray:
    """Class (n,) of each cell by the vote of its neighbours among cells with classes `codes`; -1 where none of them has one."""
    n_classes = int(codes.max(initial=-1)) + 1
    vote = neighbour_vote(codes, n_classes, found) if n_classes else np.zeros((len(found.indices), 1))
    return np.where(vote.any(axis=1), vote.argmax(axis=1), -1)


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
    n_others = len(profile) - 1
    # Rounded up; and with few labels the second nearest, as the nearest may be the other half of a type that was cut in two.
    place = min(max(-(-n_others // NEAR_TYPES), 2), n_others) - 1
    out = np.empty(len(own), np.float32)
    for c in np.unique(own):
        others = np.delete(profile, c, axis=0) - profile[c]
        squares = weight[own == c] @ (others**2).T / max(int(kept.sum()), 1)
        out[own == c] = np.partition(squares, place, axis=1)[:, place]
    return out


def evidence(score: np.ndarray, distance: np.ndarray, power: float = DISTANCE_POWER) -> np.ndarray:
    """Evidence that a cell is novel, (n,): its score times a power of its distance; with a power of 0 the score alone.

    A missing type near a kept one often has unexplained genes *and* lies a little apart, and neither alone tells. The score is
    a square, so the distance is squared too.
    """
    return score * distance**power


def evidence_limit(
    score: np.ndarray,
    distance: np.ndarray,
    null: np.ndarray,
    null_distance: np.ndarray,
    rate: float,
    power: float = DISTANCE_POWER,
    fold: np.ndarray | None = None,
) -> float:
    """Evidence above which a query's cell is novel: that of held-out reference cells, on the query's scale.

    A query is a further batch, so the limit is the largest that any held-out batch has alone: of B + 1 batches that differ by
    chance, the last one has a higher one of its own with probability 1 / (B + 1). Batches that differ more widen it.

    Parameters
    ----------
    score, distance
        Of the query's cells, (n,).
    null, null_distance
        Of the same held-out reference cells, (m,), in the same order.
    rate
        Share of held-out cells above the limit; the limit is infinite with fewer than 1 / `rate` - 1 of them.
    fold
        Batches that each was held out with, (m,); None takes all cells as those of one batch.
    """
    limit = further_batch_limit(evidence(null, null_distance, power), rate, fold)
    return limit * scale_of(score, null) * scale_of(distance, null_distance) ** power


def further_batch_limit(null: np.ndarray, rate: float, fold: np.ndarray | None) -> float:
    """Evidence that at most a share `rate` of a further batch's cells exceeds, from held-out cells (m,) and their batches (m,).

    The largest of what all cells together and each batch alone give; a batch of too few cells says nothing of its own.
    """
    parts = [] if fold is None else [threshold_at(null[fold == f], rate) for f in np.unique(fold)]
    return max([threshold_at(null, rate), *(limit for limit in parts if np.isfinite(limit))])


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


def foreign_limit(held_out: float, apart: np.ndarray) -> np.ndarray:
    """Score above which a cell lies more than half of the way from its own type towards other types, (n,) float32.

    ::

        limit = max( held_out,  1 + max(apart / 3, 0.5) )

    No misfit of the model explains this. It finds novel cells also where they are nearly the whole query. It is never below
    1.5, because types that differ by less than the noise cannot set a limit.

    Parameters
    ----------
    held_out
        Score that few held-out reference cells exceed.
    apart
        Squared distance between the cell's type and other types, in the units of the score, (n,): a cell that looks like
        another type than its own has an expected score of about 1 + ``apart``. It is the result of :func:`type_distances`,
        averaged over the cell's neighbours, times their number.
    """
    return np.maximum(held_out, 1 + np.maximum(TOWARDS * apart, LEAST_TOWARDS)).astype(np.float32)
