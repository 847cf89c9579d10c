"""Exact nearest neighbours in a latent space. Every neighbour search of the package goes through this file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scgraft.numerics.sealed import seal_fields
from scgraft.progress import Advance, step

if TYPE_CHECKING:
    import torch

BLOCK = 256  # queries; a block's distances to a tile of points stay in a core's cache
GROUP = 4  # points that share a minimum; the speed was tried with benchmarks/speed_neighbours.py
TILE_GROUPS = 256  # groups in a tile of one product; the speed was tried with benchmarks/speed_neighbours.py
COARSER = 8  # groups of one level in a group of the next
MOST_THREADS = 4  # each holds the minima of its block's groups: 256 bytes for a point
LONG = 3e8  # pairs of a query and a point that take about a second on one core
SPARE = 8  # candidates beyond k: the expanded square is rounded, the exact distances decide


@dataclass(frozen=True)
class Neighbours:
    """The k nearest points of each query: `indices` (m, k) int64 and `distances` (m, k) float32, nearest first."""

    indices: np.ndarray
    distances: np.ndarray

    def __post_init__(self) -> None:
        seal_fields(self)


def nearest(points: np.ndarray, queries: np.ndarray, *, k: int) -> Neighbours:
    """The k nearest points of each query by Euclidean distance, exactly; the m x n matrix is never in memory as a whole.

    Parameters
    ----------
    points
        (n, d).
    queries
        (m, d).
    k
        Number of neighbours; if there are fewer than k points, all of them are returned.

    Returns
    -------
    Neighbours
        Identical points are at distance 0 exactly: the distances of the candidates are computed again from differences in
        float64. Points at equal distances come in their own order.

    Notes
    -----
    For a query ``q`` and a point ``p``, ``|q - p|^2 / 2 = |q|^2 / 2 - q . p + |p|^2 / 2``. The first part is the same for all
    points, so it does not change which are nearest. The rest is one matrix product when ``|p|^2 / 2`` is stored as an
    additional coordinate of ``p`` and 1 as that of ``-q``.

    Points are put into groups, and groups into groups of groups. The k nearest points lie in the k groups whose nearest point
    is nearest, so only the groups of the highest level are all looked at; below, only members of the best k.
    """
    import torch

    from scgraft.numerics.products import fast_products, one_thread

    n, d = points.shape
    k = min(k, n)
    wanted = min(k + SPARE, n)
    # The centre of the points is moved to the origin: the expanded square loses digits far from it.
    centre = points.mean(axis=0, dtype=np.float64)
    q = torch.as_tensor((queries - centre).astype(np.float32))
    q = torch.cat([-q, torch.ones(len(q), 1)], dim=1)
    grouped = _grouped(torch.as_tensor((points - centre).astype(np.float32)))
    tiles = grouped.view(-1, TILE_GROUPS, GROUP, d + 1).permute(0, 3, 2, 1).reshape(-1, d + 1, GROUP * TILE_GROUPS)
    tiles = tiles.contiguous()
    exact = points.astype(np.float64)
    indices, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)

    def search(start: int) -> None:
        block = slice(start, start + BLOCK)
        candidates = _candidates(q[block], grouped, tiles, wanted)
        indices[block], distances[block] = _nearest_of(exact, queries[block], candidates, k)

    starts = range(0, len(queries), BLOCK)
    with (
        _step(n, len(queries)) as advance,
        fast_products(exact=True),
        one_thread() as threads,
        ThreadPoolExecutor(min(threads, MOST_THREADS)) as pool,
    ):
        for _ in pool.map(search, starts):
            if advance is not None:
                advance(BLOCK)
    return Neighbours(indices, distances)


def _step(n_points: int, n_queries: int) -> AbstractContextManager[Advance | None]:
    """Progress over a search that takes a second or more; there are a dozen small ones in a mapping, which are no steps."""
    long = n_points * n_queries > LONG
    return step("looking up nearest neighbours", n_queries, "cell") if long else nullcontext()


def exact_distances(points: np.ndarray, queries: np.ndarray, candidates: np.ndarray, k: int) -> Neighbours:
    """The k nearest (m, k) among candidates (m, c) of each query, by distances from differences in float64."""
    k = min(k, candidates.shape[1])
    indices, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), BLOCK):
        block = slice(start, start + BLOCK)
        indices[block], distances[block] = _nearest_of(points, queries[block], candidates[block], k)
    return Neighbours(indices, distances)


def _nearest_of(
    points: np.ndarray, queries: np.ndarray, candidates: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    difference = points[candidates].astype(np.float64) - queries[:, None, :]
    square = np.einsum("mkd,mkd->mk", difference, difference)
    order = np.lexsort((candidates, square), axis=1)[:, :k]
    return np.take_along_axis(candidates, order, axis=1), np.sqrt(np.take_along_axis(square, order, axis=1))


def _grouped(points: torch.Tensor) -> torch.Tensor:
    """Points in groups, (groups, GROUP, d + 1), the last coordinate ``|p|^2 / 2``; groups are filled up with infinity there."""
    import torch

    n, d = points.shape
    filled = torch.zeros(-(-n // (GROUP * TILE_GROUPS)) * GROUP * TILE_GROUPS, d + 1)
    filled[:n, :d] = points
    filled[:n, d] = 0.5 * (points * points).sum(dim=1)
    filled[n:, d] = torch.inf
    return filled.view(-1, GROUP, d + 1)


def _candidates(q: torch.Tensor, grouped: torch.Tensor, tiles: torch.Tensor, wanted: int) -> np.ndarray:
    """Indices (m, wanted) of the points with the smallest ``|p|^2 / 2 - q . p``, found in the groups with the smallest minima."""
    import torch

    m, width = len(q), GROUP * TILE_GROUPS
    partial, minima = torch.empty(m, width), torch.empty(m, len(tiles), TILE_GROUPS)
    for i, tile in enumerate(tiles):
        torch.mm(q, tile, out=partial)
        torch.amin(partial.view(m, GROUP, TILE_GROUPS), dim=1, out=minima[:, i])
    best = _smallest(minima.view(m, -1), min(wanted, len(grouped)))
    members = grouped[best].view(m, -1, grouped.shape[-1])
    inner = torch.bmm(members, q[:, :, None])[:, :, 0]
    picked = inner.topk(wanted, largest=False, sorted=False).indices
    return (best.gather(1, picked // GROUP) * GROUP + picked % GROUP).numpy()


def _smallest(values: torch.Tensor, wanted: int) -> torch.Tensor:
    """Indices (m, wanted) of the smallest values of each row, by way of minima of groups where there are many."""
    import torch

    m, n = values.shape
    if n % COARSER or n < 2 * COARSER * wanted:
        return values.topk(wanted, largest=False, sorted=False).indices
    groups = _smallest(values.view(m, COARSER, -1).amin(dim=1), wanted)
    members = (groups[:, None, :] + torch.arange(COARSER)[:, None] * (n // COARSER)).view(m, -1)
    picked = values.gather(1, members).topk(wanted, largest=False, sorted=False).indices
    return members.gather(1, picked)


def local_spacing(points: np.ndarray, *, k: int) -> np.ndarray:
    """Mean distance (n,) of each point to its k nearest others; zero where there is no other."""
    found = nearest(points, points, k=k + 1)
    n_other = found.distances.shape[1] - 1
    if n_other == 0:
        return np.zeros(len(points), np.float32)
    return found.distances.sum(axis=1) / n_other  # the point itself is among them, at distance 0
