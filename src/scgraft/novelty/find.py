"""Which cells of a query the reference does not explain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scgraft.errors import NoLabels
from scgraft.expression.residuals import decoder, residuals
from scgraft.model.build import take_cells
from scgraft.novelty.dossiers import _dossier, _Groups, _is_group
from scgraft.novelty.limits import misfit_excess, novelty_limits, scaled_null, type_distances
from scgraft.novelty.query_graph import QueryGraph, query_graph
from scgraft.novelty.score import LEAST_BATCH, novelty_score, present_genes
from scgraft.numerics.conformal import threshold_at
from scgraft.numerics.neighbors import Neighbours, nearest
from scgraft.numerics.votes import K, relative_distance
from scgraft.reference.cells import reference_classes
from scgraft.values.graft import Graft
from scgraft.values.names import column_text
from scgraft.values.novelty import Novelty
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

FALSE_ALARMS = 0.05


def find_novelty(
    reference: Reference,
    query: Query,
    graft: Graft | None,
    latent: Latent,
    null: np.ndarray,
    *,
    null_distance: np.ndarray | None = None,
    null_misfit: Sequence[float] = (),
    key: str | None = None,
    graph: QueryGraph | None = None,
    false_alarms: float = FALSE_ALARMS,
) -> Novelty:
    """Find the query's cells that the reference does not explain.

    Parameters
    ----------
    reference, query, graft, latent
        The mapping; `query` holds raw counts (n, G).
    null
        Scores of held-out reference cells, from a calibration; without any, nothing is novel.
    null_distance
        Relative distances of held-out reference cells; without any, distance makes no cell novel.
    null_misfit
        Misfits of held-out batches of the reference, from a calibration.
    key
        Label column of the reference: how far its types are apart, and for the dossiers. Without labels nothing but the
        misfit sets the threshold.
    graph
        The query's neighbours, where they are known already.
    false_alarms
        Declared share of reference-like cells above the threshold.

    Returns
    -------
    Novelty
        Scores and clusters of the cells, and a dossier for each group of at least five novel cells in a cluster that a
        binomial test at the declared rate does not explain (p < 0.001). Nothing is random; seeds are fixed.
    """
    graph = query_graph(query.counts) if graph is None else graph
    seen, at = take_cells(query, graph.anchors), _latent_rows(latent, graph.anchors)
    decode, present = decoder(reference, seen, graft), present_genes(reference, query)
    residual = residuals(decode, seen.counts, at.mean)
    batch = query.codes[:, 0]
    score, misfit = novelty_score(residual, graph, batch, present)
    labels, codes = _types(reference, key)
    assert reference.latent is not None
    points = reference.latent.mean
    found = nearest(points, latent.mean, k=min(K, len(points)))
    near = Neighbours(found.indices[graph.anchors], found.distances[graph.anchors])
    between = type_distances(decode, reference, at, seen.codes[:, 0], codes, near, present=present)
    apart = between[graph.neighbours].mean(axis=1) * graph.neighbours.shape[1]
    # From a small batch nothing was taken out: what all of its cells share is in every residual, and says nothing.
    apart = np.where(np.bincount(batch)[batch] >= LEAST_BATCH, apart, np.inf)
    threshold = novelty_limits(score, null, misfit_excess(misfit, null_misfit), apart, false_alarms / 2)
    far, strength = float("inf"), score / threshold
    if null_distance is not None and len(null_distance):
        distance = relative_distance(points, found)
        far = threshold_at(scaled_null(null_distance, distance), false_alarms / 2)
        strength = np.maximum(strength, (distance / far) ** 2)  # the score is a square too
    strength = strength.astype(np.float32)
    novel = strength > 1
    groups = _Groups(reference, query, latent, graph, residual, present, strength, novel, labels)
    dossiers = tuple(
        _dossier(groups, int(cluster))
        for cluster in np.unique(graph.cluster)
        if _is_group(groups, cluster, false_alarms)
    )
    return Novelty(score, misfit, threshold, far, novel, strength, false_alarms, graph.cluster, dossiers)


def _types(reference: Reference, key: str | None) -> tuple[np.ndarray | None, np.ndarray]:
    """Labels of the reference cells, as text, and their classes; no labels, and -1 for every cell, where there are none."""
    assert reference.latent is not None
    none = np.full(len(reference.latent.mean), -1)
    if key is None or reference.obs is None or key not in reference.obs:
        return None, none
    labels = column_text(reference.obs[key])
    try:
        return labels, reference_classes(reference, key)[1]
    except NoLabels:  # a column without a value: nothing is known of types
        return labels, none


def _latent_rows(latent: Latent, rows: np.ndarray) -> Latent:
    return Latent(latent.mean[rows], latent.variance[rows], latent.cells[rows])
