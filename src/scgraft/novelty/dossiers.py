"""Groups of novel cells, each described: size, batches, nearest types, genes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scgraft.novelty.query_graph import QueryGraph
from scgraft.numerics.neighbors import nearest
from scgraft.values.names import BATCH
from scgraft.values.novelty import Dossier
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

LEAST_GROUP = 5  # cells: fewer have no mean worth showing; chosen by eye, not measured
CHANCE = 1e-3  # of so many false alarms in one cluster: with thirty clusters, one such group in thirty queries
GENES = 12  # in each direction: what a person reads; chosen by eye
COMMON = 0.25  # of the group's cells that have more of a gene than expected; chosen by eye, not measured


@dataclass(frozen=True)
class _Groups:
    """What a dossier is made from."""

    reference: Reference
    query: Query
    latent: Latent
    graph: QueryGraph
    residual: np.ndarray
    present: np.ndarray
    score: np.ndarray
    novel: np.ndarray
    labels: np.ndarray | None


def _is_group(found: _Groups, cluster: int, rate: float) -> bool:
    """Whether a cluster has more novel cells than false alarms explain."""
    from scipy.stats import binom

    own = found.graph.cluster == cluster
    n_novel = int(found.novel[own].sum())
    return n_novel >= LEAST_GROUP and float(binom.sf(n_novel - 1, int(own.sum()), rate)) < CHANCE


def _dossier(found: _Groups, cluster: int) -> Dossier:
    inside = found.graph.cluster == cluster
    own = np.flatnonzero(inside & found.novel)
    worst = own[np.argsort(-found.score[own], kind="stable")]
    levels = found.query.levels[BATCH]
    names, number = np.unique(found.query.codes[own, 0], return_counts=True)
    batches = {levels[c]: int(n) for c, n in zip(names, number, strict=True)}
    types = _nearest_types(found, own)
    at = np.isin(found.graph.anchors, own)
    mean = np.where(found.present, found.residual[at].mean(axis=0) if at.any() else 0.0, 0.0)
    known = np.isin(found.graph.anchors, np.flatnonzero(~found.novel))
    if known.any():
        mean = mean - np.where(found.present, found.residual[known].mean(axis=0), 0.0)
    genes = found.reference.schema.genes
    # A gene that a few cells have is no marker of the group, however unlikely the model finds it there.
    common = (found.residual[at] > 0).mean(axis=0) >= COMMON if at.any() else found.present
    upward = np.argsort(np.where(common, -mean, 0.0), kind="stable")[:GENES]
    order = np.argsort(-mean, kind="stable")
    more = tuple((str(genes[g]), round(float(mean[g]), 2)) for g in upward if mean[g] > 0 and common[g])
    less = tuple((str(genes[g]), round(float(mean[g]), 2)) for g in order[::-1][:GENES] if mean[g] < 0)
    like = ", ".join(f"{name} ({share:.0%})" for name, share in list(types.items())[:2] if share >= 0.05)
    sentence = f"{len(own)} of the {int(inside.sum())} cells of cluster {cluster} are not explained by the reference."
    sentence += f" They have more {', '.join(g for g, _ in more[:5])} than it expects." if more else ""
    sentence += f" Nearest in the latent: {like}." if like else ""
    return Dossier(
        cluster=cluster,
        n_cells=len(own),
        n_cluster=int(inside.sum()),
        batches=batches,
        nearest=types,
        genes=more,
        lacking=less,
        cells=tuple(found.query.cells[worst[:10]].tolist()),
        sentence=sentence,
    )


def _nearest_types(found: _Groups, own: np.ndarray) -> dict[str, float]:
    reference = found.reference.latent
    if reference is None or found.labels is None:
        return {}
    near = nearest(reference.mean, found.latent.mean[own[:1000]], k=15).indices
    names, number = np.unique(found.labels[near], return_counts=True)
    order = np.argsort(-number, kind="stable")[:5]
    return {str(names[i]): round(float(number[i] / number.sum()), 3) for i in order}
