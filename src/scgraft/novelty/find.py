"""Which cells of a query the reference does not explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scgraft.errors import NoLabels
from scgraft.expression.residuals import decoder, observed, residuals
from scgraft.model.build import take_cells
from scgraft.novelty.ambient import with_ambient
from scgraft.novelty.dossiers import _dossier, _Groups, _is_group
from scgraft.novelty.limits import further_batch_limit, limit_of, quarter_of, scale_of, types_of
from scgraft.novelty.mixtures import mixture_limit, type_profiles
from scgraft.novelty.place import FARTHEST, HeldOut, Placed, place_types
from scgraft.novelty.query_graph import QueryGraph, query_graph
from scgraft.novelty.rule import FOREIGN, NoveltyRule, none_known
from scgraft.novelty.score import at_common_depth, batch_centres, present_genes, shared_moments, used_genes
from scgraft.novelty.states import states_of
from scgraft.numerics.index import K, Near
from scgraft.reference.cells import reference_classes
from scgraft.values.graft import Graft
from scgraft.values.names import BATCH, column_text
from scgraft.values.novelty import Novelty
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

FALSE_ALARMS = 0.05  # the usual rate of a test; what was found is in docs/trust-evidence.md


def find_novelty(
    reference: Reference,
    query: Query,
    graft: Graft | None,
    latent: Latent,
    held: HeldOut,
    *,
    key: str | None = None,
    graph: QueryGraph | None = None,
    near: Near | None = None,
    distance: np.ndarray | None = None,
    false_alarms: float = FALSE_ALARMS,
    device: str = "auto",
) -> Novelty:
    """Find the query's cells that the reference does not explain.

    Parameters
    ----------
    reference, query, graft, latent
        The mapping; `query` holds raw counts (n, G).
    held
        Held-out reference cells, from a calibration; without any, nothing is novel.
    key
        Label column of the reference, for states and dossiers. It changes nothing in which cells are novel.
    graph
        The query's neighbours, where they are known already.
    near
        Nearest reference cells of the query's cells, where they have been looked up already.
    distance
        Relative distance of the query's cells to the reference before the fit, (n,); None takes that of `near`, which is the
        same where nothing was trained. A fit moves cells of a missing type towards the reference.
    false_alarms
        Declared share of known cells that may be called novel.
    device
        As for :func:`scgraft.embed`.

    Returns
    -------
    Novelty
        Scores and clusters of the cells, and a dossier for each group of at least five novel cells in a cluster that a
        binomial test at the declared rate does not explain (p < 0.001). Nothing is random; seeds are fixed.
    """
    return judge_sample(
        reference,
        query,
        graft,
        latent,
        held,
        key=key,
        graph=query_graph(query.counts) if graph is None else graph,
        near=near,
        distance=distance,
        false_alarms=false_alarms,
        device=device,
    )[0]


def judge_sample(
    reference: Reference,
    query: Query,
    graft: Graft | None,
    latent: Latent,
    held: HeldOut,
    *,
    key: str | None,
    graph: QueryGraph,
    near: Near | None,
    distance: np.ndarray | None = None,
    false_alarms: float = FALSE_ALARMS,
    device: str = "auto",
) -> tuple[Novelty, NoveltyRule]:
    """Novelty of a query's cells as :func:`find_novelty` has it, and the rule that judges further cells of the query."""
    assert reference.latent is not None
    near = reference.latent.index.near(latent.mean, k=K) if near is None else near
    seen, at = take_cells(query, graph.anchors), _latent_rows(latent, graph.anchors)
    decode, present = decoder(reference, seen, graft, device=device), present_genes(reference, query)
    residual = at_common_depth(residuals(decode, observed(reference, seen.counts), at.mean), seen.counts)
    distance = near.distance if distance is None else distance
    batch = query.codes[:, 0]
    kept = used_genes(residual, present)
    centres, misfit = batch_centres(kept, graph, batch)
    labels, names, codes = reference_types(reference, key)
    found = near[graph.anchors].found
    score, markers = shared_moments(kept, graph.neighbours, batch, centres)
    farther = distance / quarter_of(distance)
    at_anchors = markers[graph.anchors], farther[graph.anchors]
    rule = NoveltyRule(kept, centres, *at_anchors, quarter_of(score), misfit, limit=1.0)
    own = rule.strength(score, graph.neighbours)
    rule = replace(rule, limit=limit_of(own, held.evidence, false_alarms, held.fold))
    placed: list[Placed] = []
    if placeable := len(held.distance) > 0:
        placed = place_types(score[graph.anchors], distance[graph.anchors], types_of(codes, found), held)
    mixture = np.zeros(len(score), np.float32)
    profiles = None if held.mixture is None else type_profiles(reference, codes, present, device=device)
    if profiles is not None and held.mixture is not None:
        spatial = query.alignment.spatial  # what its spots share are the types of the tissue
        profiles = profiles if spatial else with_ambient(profiles, query.counts, batch)
        gain = profiles.gain(query.counts, batch)
        profiles = replace(profiles, limit=mixture_limit(gain, held.mixture, spatial=spatial))
        rule, mixture = replace(rule, profiles=profiles), profiles.strength_of(gain)
    mixed = mixture > 1
    # Types that the reference lacks look like ambient RNA where all cells are of such.
    if rule.profiles is not None and rule.misfit >= FOREIGN:
        mixed = replace(rule.profiles, soup={}).strength(query.counts, batch) > 1
    rule = none_known(rule, mixed, score, graph.neighbours, false_alarms)
    strength = rule.strength(score, graph.neighbours)
    novel = strength > 1
    null = held.evidence / max(further_batch_limit(held.evidence, false_alarms, held.fold), 1e-12)
    far = held.distance
    farther = distance / (np.median(far) * scale_of(distance, far)) if placeable else np.zeros(0)
    groups = _Groups(reference, query, latent, graph, residual, present, strength, novel, labels, farther, null)
    dossiers = tuple(
        _dossier(groups, int(cluster)) for cluster in np.unique(graph.cluster) if _is_group(groups, int(cluster))
    )
    shared = None
    if placeable and centres:
        rows, ratio = np.arange(len(graph.anchors)), misfit / max(float(np.median(score)), 1e-12)
        shared = Placed(-1, rows, rows, float(np.median(farther)), FARTHEST, ratio)
    states = states_of(groups, placed, names, scale_of(score, held.score), shared)
    soup = {} if rule.profiles is None else rule.profiles.soup
    ambient = {query.levels[BATCH][code]: float(share.sum()) for code, share in soup.items()}
    made = Novelty(
        score,
        misfit,
        markers,
        distance,
        novel,
        strength,
        false_alarms,
        graph.cluster,
        dossiers,
        states,
        mixture,
        ambient,
    )
    return made, rule


def reference_types(reference: Reference, key: str | None) -> tuple[np.ndarray | None, Sequence[str], np.ndarray]:
    """Labels of the reference cells as text, names of the classes, and their codes; none, and -1 for all, without labels."""
    assert reference.latent is not None
    none = np.full(len(reference.latent.mean), -1)
    if key is None or reference.obs is None or key not in reference.obs:
        return None, (), none
    labels = column_text(reference.obs[key])
    try:
        names, codes = reference_classes(reference, key)
        return labels, names.tolist(), codes
    except NoLabels:  # a column without a value: nothing is known of types
        return labels, (), none


def _latent_rows(latent: Latent, rows: np.ndarray) -> Latent:
    return Latent(latent.mean[rows], latent.variance[rows], latent.cells[rows])
