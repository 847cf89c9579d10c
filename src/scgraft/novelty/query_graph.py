"""The query's own neighbour graph, in the space of its genes: neighbours and communities that owe nothing to the reference.

Cells of a type that the reference lacks lie between reference types in the latent, but beside each other here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scgraft.numerics.clusters import k_means
from scgraft.numerics.lognorm import log_normalised
from scgraft.numerics.neighbors import nearest
from scgraft.numerics.order import order_by_content
from scgraft.numerics.sealed import seal_fields

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

K = 15  # neighbours, as scanpy.pp.neighbors looks up; 8 were worse for small queries (docs/trust-evidence.md)
COMPONENTS = 20  # principal axes; scanpy takes 50 of atlases. Chosen by eye, not measured
AXES_CELLS = 3000  # that the axes are computed from: chosen for the time, not measured otherwise
ANCHORS = 10_000  # cells among which neighbours are sought; one of three changes that halved the memory of 20,000 cells
CELLS_PER_SEED = 12  # cells of a small cluster on the mean; chosen by eye, not measured
MOST_SEEDS = 200  # clusters before they are joined; chosen for the time, not measured otherwise
BLOCK = 4096  # cells projected at a time; chosen for memory, the speed was not measured


@dataclass(frozen=True)
class QuerySpace:
    """Where a query's cells lie in the space of their genes: learnt from some of them, the same for every other one.

    Parameters
    ----------
    axes, shift
        Principal axes (G, d) of log-normalised counts, and what is taken from the projection, (d,).
    anchors
        Projections of the cells that are looked among, (a, d) float32.
    centres, community
        Seeds of the communities (s, d) float64, and the community of each seed, (s,) int.
    k
        Neighbours of a cell.
    """

    axes: np.ndarray
    shift: np.ndarray
    anchors: np.ndarray
    centres: np.ndarray
    community: np.ndarray
    k: int

    def __post_init__(self) -> None:
        seal_fields(self)

    def place(self, counts: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Neighbours (n, k) among the anchors, and communities (n,), of cells from their counts (n, G).

        What is found of a cell depends on this value and the cell alone.
        """
        points = project(counts, self.axes, self.shift)
        return nearest(self.anchors, points, k=self.k).indices, self.community[seeds_of(points, self.centres)]


@dataclass(frozen=True)
class QueryGraph:
    """Neighbours of query cells among the query's anchors.

    Parameters
    ----------
    anchors
        Cells that are looked among, (a,): all of them up to 10,000, else a sample; in an order that depends on their counts.
    neighbours
        (n, k) positions in `anchors`; an anchor is its own first neighbour.
    cluster
        Community of each cell, (n,) int, the largest first.
    space
        What places further cells in this graph; None where it was not learnt from counts.
    """

    anchors: np.ndarray
    neighbours: np.ndarray
    cluster: np.ndarray
    space: QuerySpace | None = None

    def __post_init__(self) -> None:
        seal_fields(self)


def gene_axes(counts: csr_matrix, order: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Principal axes (G, up to 20) of log-normalised counts with genes on a common scale, and the shift (d,) of a projection.

    They come from at most 3000 cells, the first in a random `order` that does not depend on that of the cells.
    """
    rng = np.random.default_rng(seed)
    sample = log_normalised(counts[order[:AXES_CELLS]]).toarray()
    centre, scale = sample.mean(axis=0), sample.std(axis=0) + 0.1
    x = (sample - centre) / scale
    width = min(COMPONENTS, *x.shape)
    basis = rng.standard_normal((x.shape[1], min(width + 10, *x.shape))).astype(np.float32)
    for _ in range(4):  # randomised range finder with power iterations (Halko et al. 2011)
        basis, _ = np.linalg.qr(x.T @ (x @ basis))
    _, _, right = np.linalg.svd(x @ basis, full_matrices=False)
    axes = (basis @ right.T)[:, :width] / scale[:, None]
    return axes, centre @ axes


def project(counts: csr_matrix, axes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Principal components (n, d) float32 of cells from their counts (n, G)."""
    parts = [log_normalised(counts[i : i + BLOCK]) @ axes - shift for i in range(0, counts.shape[0], BLOCK)]
    return np.concatenate(parts).astype(np.float32)


def query_graph(counts: csr_matrix, *, k: int = K, seed: int = 0) -> QueryGraph:
    """Neighbours and communities of a query's cells from their counts (n, G); one cell is a graph of itself.

    The order of the cells changes nothing: which cells are looked at and started from depends on their counts and the seed.
    """
    n = counts.shape[0]
    if n == 1:
        axes, shift = np.zeros((counts.shape[1], 1), np.float32), np.zeros(1, np.float32)
        none = np.zeros(1, np.int64)
        alone = QuerySpace(axes, shift, np.zeros((1, 1), np.float32), np.zeros((1, 1)), none, k)
        return QueryGraph(none, np.zeros((1, 1), np.int64), none, alone)
    order = order_by_content(counts, seed)
    axes, shift = gene_axes(counts, order, seed=seed)
    points = project(counts, axes, shift)
    rng = np.random.default_rng(seed)
    anchors = order[:ANCHORS]
    neighbours = nearest(points[anchors], points, k=k).indices
    centres = seed_centres(points[anchors], rng)
    seed_of = seeds_of(points, centres)
    community = communities(seed_of, anchors, neighbours, len(centres))
    space = QuerySpace(axes, shift, points[anchors], centres, community, k)
    return QueryGraph(anchors, neighbours, community[seed_of], space)


def seed_centres(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Centres (s, d) float64 of small groups of points, by k-means: what communities are made of."""
    own = points.astype(np.float64)
    wanted = int(np.clip(len(own) // CELLS_PER_SEED, 1, MOST_SEEDS))
    centres, _ = k_means(own, own[rng.choice(len(own), wanted, replace=False)], rounds=20)
    return centres


def seeds_of(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Nearest seed (n,) of each point."""
    from scipy.cluster.vq import vq

    return np.asarray(vq(points.astype(np.float64), centres)[0])


def communities(seed_of: np.ndarray, anchors: np.ndarray, neighbours: np.ndarray, n_seeds: int) -> np.ndarray:
    """Community (s,) of each seed, the one with most cells first (Louvain; Blondel et al. 2008)."""
    import networkx

    pairs = np.zeros((n_seeds, n_seeds))
    np.add.at(pairs, (np.repeat(seed_of, neighbours.shape[1]), seed_of[anchors[neighbours]].ravel()), 1.0)
    pairs += pairs.T
    graph = networkx.from_numpy_array(pairs)
    found = networkx.community.louvain_communities(graph, seed=0)
    group = np.zeros(n_seeds, np.int64)
    for i, members in enumerate(found):
        group[list(members)] = i
    number = np.bincount(group[seed_of], minlength=len(found))
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(-number, kind="stable")] = np.arange(len(found))
    return rank[group]
