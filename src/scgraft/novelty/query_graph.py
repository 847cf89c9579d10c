"""The query's own neighbour graph, in the space of its genes: neighbours and communities that owe nothing to the reference.

Cells of a type that the reference lacks lie between reference types in the latent, but beside each other here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scgraft.numerics.neighbors import nearest

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

K = 15
COMPONENTS = 20
AXES_CELLS = 3000
ANCHORS = 10_000
CELLS_PER_SEED = 12
MOST_SEEDS = 200
BLOCK = 4096


@dataclass(frozen=True)
class QueryGraph:
    """Neighbours of query cells among the query's anchors.

    Parameters
    ----------
    anchors
        Cells that are looked among, (a,): all of them up to 10,000, else a sample (seeded).
    neighbours
        (n, k) positions in `anchors`; an anchor is its own first neighbour.
    cluster
        Community of each cell, (n,) int, the largest first.
    """

    anchors: np.ndarray
    neighbours: np.ndarray
    cluster: np.ndarray


def gene_components(counts: csr_matrix, *, seed: int = 0) -> np.ndarray:
    """Principal components (n, up to 20) float32 of log-normalised counts, genes on a common scale.

    The axes come from at most 3000 cells (seeded); every cell is projected from its stored counts.
    """
    n = counts.shape[0]
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(n)[:AXES_CELLS])
    sample = _log(counts[chosen]).toarray()
    centre, scale = sample.mean(axis=0), sample.std(axis=0) + 0.1
    x = (sample - centre) / scale
    width = min(COMPONENTS, *x.shape)
    basis = rng.standard_normal((x.shape[1], min(width + 10, *x.shape))).astype(np.float32)
    for _ in range(4):  # randomised range finder with power iterations (Halko et al. 2011)
        basis, _ = np.linalg.qr(x.T @ (x @ basis))
    _, _, right = np.linalg.svd(x @ basis, full_matrices=False)
    axes = (basis @ right.T)[:, :width] / scale[:, None]
    shift = centre @ axes
    parts = [_log(counts[i : i + BLOCK]) @ axes - shift for i in range(0, n, BLOCK)]
    return np.concatenate(parts).astype(np.float32)


def _log(counts: csr_matrix) -> csr_matrix:
    """log1p of counts per ten thousand."""
    out = counts.astype(np.float32).copy()
    total = np.maximum(np.asarray(counts.sum(axis=1), np.float32).ravel(), 1.0)
    out.data = np.log1p(out.data * np.repeat(1e4 / total, np.diff(out.indptr)))
    return out


def query_graph(counts: csr_matrix, *, k: int = K, seed: int = 0) -> QueryGraph:
    """Neighbours and communities of a query's cells from their counts (n, G); one cell is a graph of itself."""
    n = counts.shape[0]
    if n == 1:
        return QueryGraph(np.zeros(1, np.int64), np.zeros((1, 1), np.int64), np.zeros(1, np.int64))
    points = gene_components(counts, seed=seed)
    rng = np.random.default_rng(seed)
    anchors = np.arange(n) if n <= ANCHORS else np.sort(rng.choice(n, ANCHORS, replace=False))
    neighbours = nearest(points[anchors], points, k=k).indices
    return QueryGraph(anchors, neighbours, communities(points, anchors, neighbours, rng))


def communities(
    points: np.ndarray, anchors: np.ndarray, neighbours: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Communities of the neighbour graph (Louvain; Blondel et al. 2008), after joining cells into small seeds by k-means."""
    import warnings

    import networkx
    from scipy.cluster.vq import kmeans2, vq

    own = points[anchors].astype(np.float64)
    wanted = int(np.clip(len(own) // CELLS_PER_SEED, 1, MOST_SEEDS))
    with warnings.catch_warnings():  # a seed that loses all its cells stays empty
        warnings.simplefilter("ignore", UserWarning)
        centres, _ = kmeans2(own, own[rng.choice(len(own), wanted, replace=False)], minit="matrix", iter=20)
    seed_of, _ = vq(points.astype(np.float64), centres)
    pairs = np.zeros((wanted, wanted))
    np.add.at(pairs, (np.repeat(seed_of, neighbours.shape[1]), seed_of[anchors[neighbours]].ravel()), 1.0)
    pairs += pairs.T
    graph = networkx.from_numpy_array(pairs)
    found = networkx.community.louvain_communities(graph, seed=0)
    group = np.zeros(wanted, np.int64)
    for i, members in enumerate(found):
        group[list(members)] = i
    cluster = group[seed_of]
    names, inverse, number = np.unique(cluster, return_inverse=True, return_counts=True)
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(-number, kind="stable")] = np.arange(len(names))
    return rank[inverse]
