"""The novelty score: what is left of a cell's residuals when neighbours are averaged and a batch's shift is taken out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from scgraft.novelty.query_graph import QueryGraph
from scgraft.numerics.neighbors import nearest
from scgraft.numerics.votes import relative_distance
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

GATHERED = 128  # cells whose neighbours' residuals are held at once; chosen for memory: residuals of 2,000 cells
LEAST_BATCH = 20  # cells: all 20 cells of a batch were once called novel (docs/trust-evidence.md)
NEAR = 15  # neighbours, as scgraft.numerics.votes.SPACING_K


def novelty_score(
    residual: np.ndarray, graph: QueryGraph, batch: np.ndarray, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Score and markers of each cell, (n,) float32 each (:func:`shared_moments`), and the misfit.

    The misfit is the median score before anything is taken out: 1 where the model is right.

    Parameters
    ----------
    residual
        Of the graph's anchors, (a, G).
    graph
        The query's neighbours.
    batch
        Code of each cell's batch, (n,). What the best explained half of a batch shares is the batch's own misfit and is
        taken out; a batch of fewer than 20 cells is left as it is.
    present
        Genes that the query has, (G,); the others say nothing.
    """
    kept = used_genes(residual, present)
    centres, misfit = batch_centres(kept, graph, batch)
    return *shared_moments(kept, graph.neighbours, batch, centres), misfit


def batch_centres(kept: np.ndarray, graph: QueryGraph, batch: np.ndarray) -> tuple[dict[int, np.ndarray], float]:
    """What the best explained half of each batch shares, (G',) by batch code, and the median misfit of all cells.

    `kept` (a, G') are the residuals of the graph's anchors over the genes that the query has.
    """
    first, centres = shared_residual(kept, graph.neighbours, batch, {}), {}
    for code in np.unique(batch):
        own = np.flatnonzero(batch == code)
        if len(own) >= LEAST_BATCH:
            best = own[np.argsort(first[own], kind="stable")[: len(own) // 2]]
            weight = np.bincount(graph.neighbours[best].ravel(), minlength=len(kept)).astype(np.float32)
            centres[int(code)] = weight @ kept / weight.sum()
    return centres, float(np.median(first))


def present_genes(reference: Reference, query: Query) -> np.ndarray:
    """Genes of the reference that the query has, (G,) bool."""
    return ~np.isin(reference.schema.genes.astype(str), np.array(query.alignment.missing, dtype=str))


def at_common_depth(residual: np.ndarray, counts: csr_matrix) -> np.ndarray:
    """Residuals (n, G) of cells with given counts (n, G), those of deep cells as if they had the median depth.

    What a model gets wrong about a cell's profile stands out of the noise by the root of the cell's depth. Without this, the
    deepest quarter of known cells looks most novel. Shallow cells stay as they are: their noise is not to be magnified.
    """
    depth = np.asarray(counts.sum(axis=1), np.float32).ravel()
    excess = np.maximum(depth / max(float(np.median(depth)), 1.0), 1.0)
    return (residual / np.sqrt(excess)[:, None]).astype(np.float32, copy=False)


def used_genes(residual: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Some columns; the array itself, which can be large, where these are all."""
    return residual if present.all() else np.ascontiguousarray(residual[:, present])


def shared_residual(
    kept: np.ndarray, neighbours: np.ndarray, batch: np.ndarray, centres: Mapping[int, np.ndarray]
) -> np.ndarray:
    """Squared mean residual over the neighbours, each batch relative to its centre, over its expectation under noise."""
    return shared_moments(kept, neighbours, batch, centres)[0]


def shared_moments(
    kept: np.ndarray, neighbours: np.ndarray, batch: np.ndarray, centres: Mapping[int, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Size and skewness of what cells' neighbours have that the model does not expect, (n,) float32 each.

    ::

        r = mean residual over the neighbours, less what the batch shares, of each gene
        score    =  k * mean of r^2
        markers  =  sum of r^3 / (sum of r^2)^(3/2)

    A model that is a little wrong about a laboratory's cells is wrong in many genes, in both directions. Cells of a type that the
    reference lacks have a few genes, their markers, far above what the model expects: if `m` genes were equally far above it and all
    others right, `markers` would be 1 / sqrt(m). How badly the cells are explained on the whole cancels out.
    """
    n, k = neighbours.shape
    score, markers = np.empty((2, n), np.float32)
    for start in range(0, n, GATHERED):
        rows = np.arange(start, min(start + GATHERED, n))
        shared = kept[neighbours[rows]].mean(axis=1)
        for code, centre in centres.items():
            shared[batch[rows] == code] -= centre
        square = shared**2
        size = square.sum(axis=1)
        score[rows] = size * (k / shared.shape[1])
        markers[rows] = (square * shared).sum(axis=1) / np.maximum(size, 1e-12) ** 1.5
    return score, markers


def distance_to(reference: Reference, latent: Latent) -> np.ndarray:
    """Relative distance (n,) of cells to the reference in the latent; about 1 inside it."""
    assert reference.latent is not None
    points = reference.latent.mean
    return relative_distance(points, nearest(points, latent.mean, k=min(NEAR, len(points))))
