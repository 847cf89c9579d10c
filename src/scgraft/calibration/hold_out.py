"""Batches of the reference, held out and mapped as new ones: what a calibration learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scgraft.calibration.condition import Condition, measured_as
from scgraft.expression.generate import counted_cells
from scgraft.expression.residuals import decoder, observed, residuals
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.graft.unfitted import unfitted
from scgraft.novelty.ambient import with_ambient
from scgraft.novelty.limits import evidence, quarter_of
from scgraft.novelty.mixtures import type_profiles
from scgraft.novelty.place import HeldOut
from scgraft.novelty.query_graph import QueryGraph, query_graph
from scgraft.novelty.score import at_common_depth, distance_to, novelty_score, present_genes
from scgraft.query.levels import combine
from scgraft.reference.cells import reference_codes
from scgraft.values.graft import FitConfig, Graft
from scgraft.values.names import BATCH, column_text
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

MOST_FOLDS = 5  # the usual number of folds of a cross-validation; each costs a fit
CELLS = 500  # of a fold that are mapped: a share of them is known to two percent; chosen by eye, not measured
# Other cells of the reference that held-out ones are mapped onto: the spacing of so many is measured for every one, and costs a
# second; what follows from them does not grow with the reference. Of each class so many at least, as its neighbours vote (30).
REST, REST_OF_EACH = 20_000, 100
LEAST_CELLS = 8  # of a reference that can be held out at all; chosen by eye, not measured


@dataclass(frozen=True)
class Fold:
    """Held-out cells mapped onto the rest of the reference.

    Parameters
    ----------
    batches
        Reference batches that are held out.
    rest
        The reference without their cells.
    kept, index
        The reference's other cells (at most about 20,000 of them), and the held-out ones that are used, as positions in the whole
        reference.
    query, graft, latent
        The held-out cells, as new batches, and their mapping.
    graph, novelty, misfit
        Their own neighbour graph, novelty scores, and the median misfit of their reconstruction.
    distance
        Their distances to the rest of the reference before the fit, relative to its spacing, (n,).
    evidence
        That they are novel, (n,), made as a query's.
    """

    batches: tuple[str, ...]
    rest: Reference
    kept: np.ndarray
    index: np.ndarray
    query: Query
    graft: Graft
    latent: Latent
    graph: QueryGraph
    novelty: np.ndarray
    misfit: float
    distance: np.ndarray
    evidence: np.ndarray


def held_cells(folds: Sequence[Fold], codes: np.ndarray) -> HeldOut:
    """The cells of all folds together; `codes` are the classes of the reference's cells, -1 for none."""
    score, distance, found = (
        np.concatenate([np.zeros(0), *(getattr(fold, name) for fold in folds)])
        for name in ("novelty", "distance", "evidence")
    )
    of_class = np.concatenate([np.zeros(0, np.int64), *(codes[fold.index] for fold in folds)])
    return HeldOut(score, distance, of_class, np.repeat(np.arange(len(folds)), [len(f.index) for f in folds]), found)


def held_mixture(fold: Fold, codes: np.ndarray, device: str) -> tuple[np.ndarray, float]:
    """How much better a mixture of the rest's types, whose cells have some codes, explains held-out cells than one type, (m,).

    And the share of ambient RNA in the batch that has most.
    """
    profiles = type_profiles(fold.rest, codes, present_genes(fold.rest, fold.query), device=device)
    if profiles is None:
        return np.zeros(len(fold.index), np.float32), float("nan")
    counts, batch = fold.query.counts, fold.query.codes[:, 0]
    soup = with_ambient(profiles, counts, batch).soup.values()
    return profiles.gain(counts, batch), max((float(share.sum()) for share in soup), default=float("nan"))


def subset(reference: Reference, kept: np.ndarray) -> Reference:
    """The reference with some of its cells (positions or a mask); the model stays."""
    assert reference.latent is not None
    latent = reference.latent
    return replace(
        reference,
        latent=Latent(latent.mean[kept], latent.variance[kept], latent.cells[kept]),
        obs=None if reference.obs is None else reference.obs.iloc[np.flatnonzero(kept) if kept.dtype == bool else kept],
        library=None if reference.library is None else np.asarray(reference.library)[kept],
        maps={key: points[kept] for key, points in reference.maps.items()},
    )


def choose_folds(reference: Reference, seed: int) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """Batches held out together, and the mask of their cells; random fifths where the reference has one batch."""
    codes = reference_codes(reference)[:, 0]
    names, number = np.unique(codes, return_counts=True)
    if len(codes) < LEAST_CELLS:
        return []
    if len(names) == 1:
        fifth = np.random.default_rng(seed).permutation(len(codes)) % min(MOST_FOLDS, len(codes) // 2)
        return [((), fifth == i) for i in np.unique(fifth)]
    n_folds = min(MOST_FOLDS, len(names))
    groups: list[list[int]] = [[] for _ in range(n_folds)]
    size = np.zeros(n_folds)
    for i in np.argsort(-number, kind="stable"):
        smallest = int(np.argmin(size))
        groups[smallest].append(int(names[i]))
        size[smallest] += number[i]
    batches = reference.schema.batches
    return [(tuple(batches[c] for c in sorted(group)), np.isin(codes, group)) for group in groups]


def hold_out(
    reference: Reference,
    batches: tuple[str, ...],
    members: np.ndarray,
    *,
    seed: int,
    config: FitConfig,
    condition: Condition | None = None,
) -> Fold:
    """Map the cells of some reference batches onto the reference without them, as if they were new (seeded).

    Under a `condition` they are measured like a query: as deeply, and in the same genes.
    """
    rng = np.random.default_rng(seed)
    index = np.sort(rng.permutation(np.flatnonzero(members))[:CELLS])
    kept = _other_cells(reference, members, config.labels, seed)
    rest, cells = subset(reference, kept), counted_cells(reference, index, seed=seed)
    if condition is not None:
        cells, left = measured_as(cells, condition, reference.schema.genes, seed=seed)
        index = index[left]
    query = as_new_batches(cells, reference)
    graft = fit(rest, query, config)
    latent = embed(rest, query, graft, device=config.device)
    graph = query_graph(query.counts, seed=seed)
    decode = decoder(rest, query, graft, device=config.device)
    residual = at_common_depth(residuals(decode, observed(rest, query.counts), latent.mean), query.counts)
    score, markers, misfit = novelty_score(
        residual[graph.anchors], graph, query.codes[:, 0], present_genes(rest, query)
    )
    distance = distance_to(rest, unfitted(rest, query, graft, latent, device=config.device))
    farther = distance / quarter_of(distance)
    found = evidence(score / quarter_of(score), markers[graph.anchors], farther[graph.anchors], graph.neighbours)
    return Fold(batches, rest, kept, index, query, graft, latent, graph, score, misfit, distance, found)


def _other_cells(reference: Reference, members: np.ndarray, key: str | None, seed: int) -> np.ndarray:
    """Positions of the cells that are not held out; of very many a sample (seeded): of each class its share, but 100 of each."""
    others = np.flatnonzero(~members)
    if len(others) <= REST:
        return others
    column = reference.schema.batch_key if key is None else key
    codes = np.zeros(len(others), np.int64)
    if reference.obs is not None and column in reference.obs:
        codes = np.unique(column_text(reference.obs[column])[others], return_inverse=True)[1]
    parts = []
    for code, n in enumerate(np.bincount(codes)):
        wanted = min(n, max(round(REST * n / len(others)), REST_OF_EACH))
        own = others[codes == code]
        parts.append(np.random.default_rng([seed, int(own[0])]).choice(own, wanted, replace=False))
    return np.sort(np.concatenate(parts))


def as_new_batches(query: Query, reference: Reference) -> Query:
    """Cells of the reference as cells of batches that it does not know."""
    schema, used = reference.schema, np.unique(query.codes[:, 0])
    new = tuple(f"held out: {schema.batches[c]}" for c in used)
    codes = query.codes.copy()
    codes[:, 0] = len(schema.batches) + np.searchsorted(used, query.codes[:, 0])
    number = np.bincount(codes[:, 0])[len(schema.batches) :]
    codes, levels = combine(codes, dict(query.levels) | {BATCH: (*schema.batches, *new)}, schema)
    added = {name: names[len(schema.levels[name]) :] for name, names in levels.items()}
    alignment = replace(
        query.alignment,
        new_levels={name: names for name, names in added.items() if names},
        known_batches=(),
        cells_per_batch=dict(zip(new, number.tolist(), strict=True)),
    )
    return replace(query, codes=codes, levels=levels, alignment=alignment)
