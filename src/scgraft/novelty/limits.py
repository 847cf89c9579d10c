"""The limit above which a score is novel: what a misfit may explain, and what none explains."""

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

NEAR_TYPES = 3
TYPE_MISFIT = 2.5
TOWARDS = 1 / 3  # of a squared distance: more than half of the way
LEAST_TOWARDS = 0.5  # of what noise leaves: types that are nearer to each other say nothing


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
    """How far each cell's type is from the other types, in the units of squared residuals, (n,) float32.

    A type is what the decoder expects at the mean latent of its reference cells, in the query cell's batch and at its depth.
    The distance is the mean over genes of the squared difference over the variance that the model gives the cell. Not the
    nearest type counts, but that which a third of the other types are as near as: were every type cut in two or four, the
    nearest would be the other half, and this one hardly another than before.

    Parameters
    ----------
    decode
        Of the reference and the query's cells, from :func:`decoder`.
    reference, latent
        The reference, and the query's cells in its latent.
    batch
        Code of each query cell's batch, (n,).
    codes
        Class of every reference cell; -1 for none.
    found
        Nearest reference cells of each query cell in the latent: they say which type it has.
    present
        Genes that the query has, (G,) bool; None takes all of them.

    Returns
    -------
    ndarray
        Infinite where there are no two types.
    """
    assert reference.latent is not None
    points, names = reference.latent.mean, np.unique(codes[codes >= 0])
    out = np.full(len(latent.mean), np.inf, np.float32)
    if len(names) < 2:
        return out
    compact = np.where(codes >= 0, np.searchsorted(names, codes), -1)
    own = neighbour_vote(compact, len(names), found).argmax(axis=1)
    centres = np.stack([points[compact == c].mean(axis=0) for c in range(len(names))])
    # Without a depth (values of a normal likelihood) the decoder's output is a profile as it is.
    has_depth = reference.hyper.gene_likelihood != "normal"
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
    """Weighted squared distance (m,) from each cell's own type to that which a third of the others are as near as.

    Parameters
    ----------
    profile
        Of at least two types, (C, G).
    weight
        Of the genes, for each cell, (m, G).
    own
        The cells' types, (m,).
    present
        Genes that count, (G,) bool; None takes all of them.
    """
    kept = np.ones(profile.shape[1], bool) if present is None else present
    profile, weight = profile[:, kept], weight[:, kept]
    place = -(-(len(profile) - 1) // NEAR_TYPES) - 1  # a third of them, and one at least
    out = np.empty(len(own), np.float32)
    for c in np.unique(own):
        others = np.delete(profile, c, axis=0) - profile[c]
        squares = weight[own == c] @ (others**2).T / max(int(kept.sum()), 1)
        out[own == c] = np.partition(squares, place, axis=1)[:, place]
    return out


def scaled_null(null: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The null scores on the query's scale: the medians are matched, and the null never shrinks.

    Held-out cells that were generated lack what the model gets wrong about every real cell; the median cell of a query
    shows that common misfit (the idea of an empirical null; Efron 2004, doi:10.1198/016214504000000089). It is a known cell
    as long as less than half of the query is novel; beyond that, novel cells are increasingly missed, never invented.
    """
    if not len(null) or not len(score):
        return null
    ratio = np.median(score) / max(float(np.median(null)), 1e-12)
    return null * max(float(ratio), 1.0)


def novelty_limits(score: np.ndarray, null: np.ndarray, excess: float, apart: np.ndarray, rate: float) -> np.ndarray:
    """Score above which each cell is novel, (n,): the smaller of two limits.

    *What a misfit may explain.* The null on the query's scale, and at least 1 + 2.5 times the excess of the misfit: types
    differ in what the model gets wrong about them, and what it gets wrong of one type is of the order of what it gets wrong
    of all. *What no misfit explains.* The null as it is, and a residual longer than half of the way to other types: such a
    cell is none of its own type, even where so many cells are novel that their median is no yardstick. It counts from 1.5 on:
    subtypes that lie within the noise of one another are no yardstick either.

    Parameters
    ----------
    score
        Of the query's cells, (n,).
    null
        Of held-out cells, (m,).
    excess
        Misfit of the query less that of held-out batches, which counts as 1 at least; what is below 0 counts as 0.
    apart
        Expected score of a cell that was as far from its type as other types are, less 1, (n,): distances between types
        in squared residuals, times the number of neighbours.
    rate
        Declared share of reference-like cells above the threshold.
    """
    misfitted = max(threshold_at(scaled_null(null, score), rate), 1 + TYPE_MISFIT * max(excess, 0.0))
    foreign = np.maximum(threshold_at(null, rate), 1 + np.maximum(TOWARDS * apart, LEAST_TOWARDS))
    return np.minimum(misfitted, foreign).astype(np.float32)


def misfit_excess(misfit: float, held_out: Sequence[float]) -> float:
    """How much larger a query's misfit is than that of the median held-out batch, or than 1, which a right model has."""
    return misfit - max([1.0, float(np.median(held_out))] if len(held_out) else [1.0])
