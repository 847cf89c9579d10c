"""Numbers on a mapping that need no true labels; the same for a query and for held-out reference batches.

Own formulations of published ideas: distance to the reference's clusters in units of their spread (Symphony's mapping
confidence; Kang et al. 2021, doi:10.1038/s41467-021-25957-x), and whether a query's own clusters survive the mapping
(Azimuth's cluster preservation; Hao et al. 2021, doi:10.1016/j.cell.2021.04.048).
"""

from __future__ import annotations

import numpy as np

from scgraft.novelty.query_graph import QueryGraph
from scgraft.numerics.neighbors import nearest
from scgraft.numerics.order import order_by_name
from scgraft.values.reference import Latent

CELLS = 2000  # of the query that are measured: a share of them is known to a percent
REFERENCE_CELLS = 20_000  # that they are mixed with: ten to each cell measured; chosen by eye, not measured
K = 15  # neighbours, as scanpy.pp.neighbors looks up
VOTE_NUMBERS = ("mixing", "agreement")


def mapping_numbers(reference: Latent | None, query: Latent, graph: QueryGraph, misfit: float) -> dict[str, float]:
    """Numbers without labels: `distance`, `preservation` and `misfit`."""
    assert reference is not None
    return numbers_of(cluster_distance(reference, query), cluster_preservation(query, graph), misfit)


def numbers_of(distance: np.ndarray, preservation: np.ndarray, misfit: float) -> dict[str, float]:
    """The numbers of a whole mapping, from those of its cells and clusters."""
    kept = preservation[np.isfinite(preservation)]
    return {
        "distance": float(np.median(distance)),
        "preservation": float(kept.mean()) if len(kept) else float("nan"),
        "misfit": misfit,
    }


def cluster_distance(reference: Latent, query: Latent) -> np.ndarray:
    """Distance (n,) of each cell to the nearest of the reference's clusters, in standard deviations a dimension."""
    mixture = reference.atlas.mixture
    precision = 1 / mixture.variance
    square = (
        (query.mean**2) @ precision.T
        - 2 * query.mean @ (mixture.mean * precision).T
        + (mixture.mean**2 * precision).sum(axis=1)
    )
    return np.sqrt(np.maximum(square.min(axis=1), 0) / query.mean.shape[1])


def cluster_preservation(query: Latent, graph: QueryGraph) -> np.ndarray:
    """For each query cluster, the share of its cells' neighbours in the latent that are in it; NaN below 2 cells.

    Relative to what the clusters' sizes give by chance: 1 when every cluster survives, 0 when nothing is left of it.
    """
    chosen = _sample(query, CELLS)
    points, cluster = query.mean[chosen], graph.cluster[chosen]
    found = nearest(points, points, k=min(K + 1, len(points))).indices
    same = np.where(found == np.arange(len(points))[:, None], np.nan, cluster[found] == cluster[:, None])
    with np.errstate(invalid="ignore"):
        share = np.nansum(same, axis=1) / np.maximum((~np.isnan(same)).sum(axis=1), 1)
    out = np.full(int(graph.cluster.max()) + 1, np.nan)
    for c in np.unique(cluster):
        own = cluster == c
        chance = (own.sum() - 1) / max(len(own) - 1, 1)
        if own.sum() > 1 and chance < 1:
            out[c] = (share[own].mean() - chance) / (1 - chance)
    return out


def vote_numbers(
    reference: Latent, query: Latent, codes: np.ndarray, latent_vote: np.ndarray, gene_vote: np.ndarray
) -> dict[str, float]:
    """Numbers with labels: `mixing` and `agreement` (of the latent's and the genes' label)."""
    labels = latent_vote.argmax(axis=1)
    return {
        "mixing": mixing(reference, query, codes, labels),
        "agreement": float((labels == gene_vote.argmax(axis=1)).mean()),
    }


def mixing(reference: Latent, query: Latent, codes: np.ndarray, labels: np.ndarray) -> float:
    """Share of reference cells among query cells' neighbours over the share expected, given what types both have.

    The expectation for a cell is the share of reference cells among all cells of its label, so a query of one type is not
    asked to spread over the atlas. 1 is perfect mixing.
    """
    own, theirs = _sample(query, CELLS), _sample(reference, REFERENCE_CELLS)
    points = np.concatenate([reference.mean[theirs], query.mean[own]])
    k = min(2 * K + 1, len(points))
    found = nearest(points, query.mean[own], k=k).indices
    itself = np.arange(len(own))[:, None] + len(theirs)
    share = (found < len(theirs)).sum(axis=1) / np.maximum((found != itself).sum(axis=1), 1)
    n_classes = int(max(codes.max(initial=0), labels.max(initial=0))) + 1
    there = np.bincount(codes[theirs][codes[theirs] >= 0], minlength=n_classes)
    here = np.bincount(labels[own], minlength=n_classes)
    expected = (there / np.maximum(there + here, 1))[labels[own]]
    return float(share.mean() / max(float(expected.mean()), 1e-9))


def _sample(latent: Latent, most: int) -> np.ndarray:
    """Positions of some cells at random, by their names: the same cells in whatever order they come."""
    n = len(latent.cells)
    return np.arange(n) if n <= most else np.sort(order_by_name(latent.cells, 0)[:most])
