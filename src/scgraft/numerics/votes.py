"""Weighted votes of neighbours, and distances relative to the spacing of the points."""

from __future__ import annotations

import numpy as np

from scgraft.numerics.neighbors import Neighbours, local_spacing, nearest

K = 30  # 10, 15 and 20 were better alone and no better in the blend (docs/trust-evidence.md)
SPACING_K = 15  # half of the neighbours that vote; chosen by eye, not measured
SPACING_CELLS = 20_000  # points whose spacing is measured: seconds, however many points there are


def neighbour_weights(distances: np.ndarray) -> np.ndarray:
    """Weights (m, k) of neighbours from their distances; uniform where all distances are equal."""
    spread = distances.astype(np.float64).std(axis=1, keepdims=True)
    weights = np.exp(-distances * spread**2 / 4)
    return weights / weights.sum(axis=1, keepdims=True)


def relative_distance(points: np.ndarray, found: Neighbours) -> np.ndarray:
    """Distance of each query to the reference over the reference's own spacing there, (m,): about 1 inside it.

    The mean distance to the nearest neighbours over the mean spacing of those neighbours. The spacing is computed where
    it is needed: for the neighbours that occur.
    """
    k = min(SPACING_K, found.indices.shape[1])
    used, inverse = np.unique(found.indices[:, :k], return_inverse=True)
    if len(used) > SPACING_CELLS:
        chosen = np.sort(np.random.default_rng(0).choice(len(used), SPACING_CELLS, replace=False))
        spacing = estimated_spacing(points[used], chosen, _spacing_of(points, used[chosen]))
    else:
        spacing = _spacing_of(points, used)
    local = spacing[inverse.reshape(found.indices[:, :k].shape)].mean(axis=1)
    return (found.distances[:, :k].mean(axis=1) / np.maximum(local, 1e-12)).astype(np.float32)


def estimated_spacing(points: np.ndarray, chosen: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Spacing (n,) of points (n, d) of which that of some, at the positions `chosen`, was measured.

    That of any other is its mean distance to the 15 nearest of these, which are farther apart, times what that overstates the
    spacing of the measured ones on average: where points are sparse it is large, whichever were measured.
    """
    few = points[chosen]
    factor = measured.mean() / local_spacing(few, k=SPACING_K).mean()
    spacing: np.ndarray = factor * nearest(few, points, k=SPACING_K).distances.mean(axis=1)
    spacing[chosen] = measured
    return spacing


def _spacing_of(points: np.ndarray, index: np.ndarray) -> np.ndarray:
    if len(points) == 1:
        return np.ones(len(index))
    if len(index) == len(points):
        return local_spacing(points, k=SPACING_K)
    found = nearest(points, points[index], k=SPACING_K + 1)
    return found.distances.sum(axis=1) / (found.distances.shape[1] - 1)


def neighbour_vote(codes: np.ndarray, n_classes: int, found: Neighbours) -> np.ndarray:
    """Share of the vote of every class, (m, C) float32; neighbours without a class (-1) do not vote."""
    weights, voted = neighbour_weights(found.distances), codes[found.indices]
    weights = np.where(voted >= 0, weights, 0.0)
    total = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    matrix = np.zeros((len(voted), n_classes))
    rows = np.repeat(np.arange(len(voted)), voted.shape[1])
    np.add.at(matrix, (rows, np.maximum(voted, 0).ravel()), weights.ravel())
    return matrix.astype(np.float32)
