"""Exact nearest neighbours in a latent space: the one place where "which kNN" is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 256
GROUP = 32


@dataclass(frozen=True)
class Neighbours:
    """The k nearest points of each query: `indices` (m, k) int64 and `distances` (m, k) float32, nearest first."""

    indices: np.ndarray
    distances: np.ndarray


def nearest(points: np.ndarray, queries: np.ndarray, *, k: int) -> Neighbours:
    """Exact Euclidean nearest neighbours, in blocks of queries; never a whole m x n matrix in memory.

    Parameters
    ----------
    points
        (n, d).
    queries
        (m, d).
    k
        Neighbours; at most n are returned.

    Returns
    -------
    Neighbours
        Distances are recomputed from differences in float64, so identical points are at distance 0. Equal distances are
        in the order of the points.

    Notes
    -----
    Points are taken in groups. The k nearest lie in the k groups with the smallest minima, so a full search runs over
    the group minima and k groups only. Some more candidates than k are kept, because the expanded squared distance is
    rounded; the exact distances decide.
    """
    import torch

    n, d = points.shape
    k = min(k, n)
    # The centre of the points is moved to the origin: the expanded square loses digits far from it.
    centre = points.mean(axis=0, dtype=np.float64)
    p = torch.as_tensor((points - centre).astype(np.float32))
    q = torch.as_tensor((queries - centre).astype(np.float32))
    groups = -(-n // GROUP)
    wanted = min(k + 8, n)
    padded = torch.full((groups * GROUP,), torch.inf)
    padded[:n] = 0.5 * (p * p).sum(dim=1)
    p = torch.cat([p, torch.zeros(groups * GROUP - n, d)])
    exact = points.astype(np.float64)
    indices, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), BLOCK):
        block = q[start : start + BLOCK]
        partial = torch.addmm(padded, block, p.T, alpha=-1.0)
        candidates = _smallest(partial, groups, min(wanted, groups), wanted)
        difference = exact[candidates] - queries[start : start + BLOCK, None, :]
        square = np.einsum("mkd,mkd->mk", difference, difference)
        order = np.lexsort((candidates, square), axis=1)[:, :k]
        indices[start : start + BLOCK] = np.take_along_axis(candidates, order, axis=1)
        distances[start : start + BLOCK] = np.sqrt(np.take_along_axis(square, order, axis=1))
    return Neighbours(indices, distances)


def _smallest(partial, groups: int, n_groups: int, wanted: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Indices of the `wanted` smallest columns of each row, by way of the groups with the smallest minima."""
    m = len(partial)
    if groups <= 2 * n_groups:
        return partial.topk(wanted, largest=False, sorted=False).indices.numpy()
    grouped = partial.view(m, groups, GROUP)
    best = grouped.amin(dim=2).topk(n_groups, largest=False, sorted=False).indices
    inner = grouped.gather(1, best[:, :, None].expand(m, n_groups, GROUP)).reshape(m, -1)
    picked = inner.topk(wanted, largest=False, sorted=False).indices
    return (best.gather(1, picked // GROUP) * GROUP + picked % GROUP).numpy()


def local_spacing(points: np.ndarray, *, k: int) -> np.ndarray:
    """Mean distance (n,) of each point to its k nearest others; zero where there is no other."""
    found = nearest(points, points, k=k + 1)
    n_other = found.distances.shape[1] - 1
    if n_other == 0:
        return np.zeros(len(points), np.float32)
    return found.distances.sum(axis=1) / n_other  # the point itself is among them, at distance 0
