"""Groups of novel cells, each described: size, batches, nearest types, genes, place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scgraft.novelty.place import FARTHEST
from scgraft.novelty.query_graph import QueryGraph
from scgraft.numerics.neighbors import nearest
from scgraft.values.names import BATCH
from scgraft.values.novelty import Dossier
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

LEAST_GROUP = 5  # cells: fewer have no mean worth showing; chosen by eye, not measured
CHANCE = 1e-3  # of so many false alarms in one cluster: with thirty clusters, one such group in thirty queries
Ranked = tuple[tuple[str, float], ...]  # genes, the clearest first, with their mean residual
GENES = 12  # in each direction: what a person reads; chosen by eye
MOST_PAIRS = 1000  # cells of a group whose shared neighbours are counted: a mean known to a few percent
LEVELS = (1.0, 1.5, 2.0)  # of the limit, that a group's cells may exceed together; chosen by eye, not measured
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
    distance: np.ndarray
    null: np.ndarray


def effective_number(neighbours: np.ndarray, *, most: int = MOST_PAIRS) -> float:
    """How many independent cells a group of cells counts as, from their neighbours (n, k) that their scores are averaged over.

    Scores of two cells that share a part f of their neighbours have correlated errors, f^2 for squares; n / (1 + the sum of these
    over the other cells of the group) is the effective sample size (Kish 1965, Survey Sampling). Of more than 1,000 cells the sum
    is that of the first 1,000 with all.
    """
    from scipy.sparse import csr_matrix

    n, k = neighbours.shape
    start = np.arange(0, n * k + 1, k)
    uses = csr_matrix((np.ones(n * k, np.float32), neighbours.ravel(), start))
    shared = (uses[:most] @ uses.T).multiply(1 / k)
    return n / float(shared.multiply(shared).sum() / min(n, most))


def _is_group(found: _Groups, cluster: int) -> bool:
    """Whether a cluster has more novel cells, or more novel ones, than false alarms explain.

    Its cells count as the effective number of independent ones, and are looked at above the limit and above multiples of it,
    so that a small group can be one if all of it is far beyond what held-out cells have.
    """
    from scipy.special import betainc

    own = found.graph.cluster == cluster
    strength = found.score[own]
    if int((strength > 1).sum()) < LEAST_GROUP:
        return False
    number, chances = effective_number(found.graph.neighbours[own]), []
    for level in LEVELS:
        rate = (1 + int((found.null > level).sum())) / (1 + len(found.null))
        hit = number * float((strength > level).mean())
        chances.append(float(betainc(hit, number - hit + 1, rate)) if hit > 0 else 1.0)
    return min(chances) * len(LEVELS) < CHANCE


def _dossier(found: _Groups, cluster: int) -> Dossier:
    inside = found.graph.cluster == cluster
    own = np.flatnonzero(inside & found.novel)
    worst = own[np.argsort(-found.score[own], kind="stable")]
    levels = found.query.levels[BATCH]
    names, number = np.unique(found.query.codes[own, 0], return_counts=True)
    batches = {levels[c]: int(n) for c, n in zip(names, number, strict=True)}
    types = _nearest_types(found, own)
    more, less = shared_genes(
        found, np.isin(found.graph.anchors, own), np.isin(found.graph.anchors, np.flatnonzero(~found.novel))
    )
    like = ", ".join(f"{name} ({share:.0%})" for name, share in list(types.items())[:2] if share >= 0.05)
    sentence = f"{len(own)} of the {int(inside.sum())} cells of cluster {cluster} are not explained by the reference."
    sentence += f" They have more {', '.join(g for g, _ in more[:5])} than it expects." if more else ""
    sentence += f" Nearest in the latent: {like}." if like else ""
    sentence += _type_or_state(float(np.median(found.distance[own])) if len(found.distance) else np.nan)
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


def _type_or_state(farther: float) -> str:
    """A sentence from how many times as far from the reference as held-out cells a group lies; none where that is not known."""
    if not np.isfinite(farther):
        return ""
    lie = f"Before the fit they lie {farther:.2f} times as far from the reference as held-out cells"
    if farther > FARTHEST:
        return f" {lie}: a type that it lacks, rather than a known one in another state."
    return f" {lie}, as known cells do: a known type in another state, or a type near to it that the reference lacks."


def shared_genes(found: _Groups, at: np.ndarray, others: np.ndarray) -> tuple[Ranked, Ranked]:
    """Genes that some anchors (mask) have more, and less, of than the model predicts, compared with other anchors (mask)."""
    mean = np.where(found.present, found.residual[at].mean(axis=0) if at.any() else 0.0, 0.0)
    if others.any():
        mean = mean - np.where(found.present, found.residual[others].mean(axis=0), 0.0)
    genes = found.reference.schema.genes
    # A gene that a few cells have is no marker of the group, however unlikely the model finds it there.
    common = (found.residual[at] > 0).mean(axis=0) >= COMMON if at.any() else found.present
    upward = np.argsort(np.where(common, -mean, 0.0), kind="stable")[:GENES]
    order = np.argsort(-mean, kind="stable")
    more = tuple((str(genes[g]), round(float(mean[g]), 2)) for g in upward if mean[g] > 0 and common[g])
    less = tuple((str(genes[g]), round(float(mean[g]), 2)) for g in order[::-1][:GENES] if mean[g] < 0)
    return more, less


def _nearest_types(found: _Groups, own: np.ndarray) -> dict[str, float]:
    reference = found.reference.latent
    if reference is None or found.labels is None:
        return {}
    near = nearest(reference.mean, found.latent.mean[own[:1000]], k=15).indices
    names, number = np.unique(found.labels[near], return_counts=True)
    order = np.argsort(-number, kind="stable")[:5]
    return {str(names[i]): round(float(number[i] / number.sum()), 3) for i in order}
