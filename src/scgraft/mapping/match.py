"""Which of several references fits a query: each is tried on a sample of its cells, beside held-out batches of its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scgraft.calibration.condition import condition_of
from scgraft.calibration.hold_out import Fold, choose_folds, held_cells, hold_out
from scgraft.errors import BadOption, ScgraftError
from scgraft.expression.generate import counted_cells
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.graft.unfitted import unfitted
from scgraft.mapping.cost import FULL_ENOUGH, MOST_LOST, cost_of_missing_genes
from scgraft.mapping.load import load_reference
from scgraft.novelty.find import find_novelty
from scgraft.novelty.query_graph import query_graph
from scgraft.novelty.score import distance_to, present_genes
from scgraft.numerics.clusters import k_means
from scgraft.numerics.lognorm import log_normalised
from scgraft.numerics.neighbors import Neighbours, nearest
from scgraft.numerics.votes import K, neighbour_vote
from scgraft.progress import LOG, showing, step
from scgraft.query.align import align
from scgraft.query.given import given, some_cells
from scgraft.reference.cells import reference_classes
from scgraft.values.choice import Match, Matches
from scgraft.values.graft import FitConfig
from scgraft.values.query import Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

CELLS = 1000  # a share of them is known to three percent at worst
FOLDS = 3  # held-out parts of the reference: the forecast's error is how far they are off, and each costs as much as the query
# A judgement, not a measurement: with less than half of the cells explained, or half of the labels right, another reference
# or an annotation by hand is less work than a correction.
LEAST_EXPLAINED = LEAST_RIGHT = 0.5
# A cluster of the query is unlike the reference if its profile correlates less with the most similar type than this share of
# what held-out batches reach. Chosen on eight queries of six data sets: .91 and above for the right tissue, .72 and below for
# another one (docs/choose-a-reference.md has the data sets, and two that it was not chosen on).
LEAST_LIKE = 0.8
CLUSTER = 20  # cells whose mean profile is known well enough
EACH = 100  # cells of a type for its profile
TYPES = 20  # clusters of a reference without labels


def match(
    references: Sequence[str | Path | Reference],
    adata: AnnData,
    *,
    batch_key: str | None = None,
    labels: str | None = None,
    layer: str | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
) -> Matches:
    """Rank references by how well they fit a query, tried on 1,000 of its cells.

    Each reference is loaded, its new batches are fitted to the sample, and the labels of the nearest reference cells are
    counted. Held-out batches of the same reference are mapped in the same way, where the right labels are known: they say what
    share of labels is right at a given share of the vote, and which cells a reference does not explain. The expected accuracy
    counts unexplained cells as wrong.

    Parameters
    ----------
    references
        Repositories (``"org/name"``), folders, or loaded references.
    adata
        The query with raw UMI counts somewhere, in memory or backed; it is not changed.
    batch_key, layer
        As for :func:`scgraft.map_query`.
    labels
        Label column of the references' obs; None takes that of each one's registry.
    seed
        Random are the cells that are sampled, held out and generated.
    device
        Where torch computes: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
    progress
        Show a bar; None shows it on a terminal and in a notebook.

    Returns
    -------
    Matches
        One :class:`Match` for each reference, the best first. A reference that cannot be loaded, or that the query cannot be
        aligned with, comes last, with the reason. `best` is None where none fits.

    Raises
    ------
    BadOption
        No reference was given.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> found = scgraft.match([folder], adata, batch_key="batch")
    >>> len(found), 0 <= found[0].unknown <= 1
    (1, True)
    """
    if isinstance(references, str | Path | Reference):
        references = [references]
    if not references:
        raise BadOption(
            "No reference was given. Name repositories or folders, or see scgraft.references() (scgraft references)."
        )
    adata = given(adata)
    index = np.sort(np.random.default_rng(seed).permutation(adata.n_obs)[:CELLS])
    sample = some_cells(adata, index)
    with showing(progress), step("trying references", len(references), "reference") as advance:
        entries = []
        for source in references:
            entries.append(_tried(source, sample, batch_key, labels, layer, seed, device))
            advance(1)
    order = sorted(range(len(entries)), key=lambda i: _rank(entries[i]))
    return Matches(tuple(entries[i] for i in order), len(index))


def _tried(
    source: str | Path | Reference,
    sample: AnnData,
    batch_key: str | None,
    labels: str | None,
    layer: str | None,
    seed: int,
    device: str,
) -> Match:
    """How well one reference fits; one that cannot be tried, with the reason."""
    name = source.base.repo if isinstance(source, Reference) else str(source)
    LOG.info("Trying %s", name)
    try:
        reference = source if isinstance(source, Reference) else load_reference(source, device=device)
        query = align(reference, sample, batch_key=batch_key, layer=layer, drop_empty=True, min_found=0.0)
        return _judged(name, reference, query, labels, FitConfig(device=device, seed=seed))
    except ScgraftError as error:
        return Match(name, False, f"{type(error).__name__}: {error}")


def _rank(entry: Match) -> tuple[bool, bool, float, float]:
    """What fits before what does not, what has labels before what has none, then by accuracy and by what is explained."""
    right = -entry.accuracy if math.isfinite(entry.accuracy) else 0.0
    unknown = entry.unknown if math.isfinite(entry.unknown) else 2.0
    return not entry.fits, not math.isfinite(entry.accuracy), right, unknown


@dataclass(frozen=True)
class _Voted:
    """Labels by the nearest reference cells: the class and its share of the vote, (n,), and the agreement within clusters."""

    label: np.ndarray
    share: np.ndarray
    agreement: float


def _judged(source: str, reference: Reference, query: Query, labels: str | None, config: FitConfig) -> Match:
    if reference.latent is None or reference.obs is None:
        return Match(source, False, "The reference holds no cells: nothing can be compared with them.")
    key = labels or reference.schema.labels_key
    classes, codes = (
        (np.zeros(0, object), np.zeros(0, int))
        if key is None or key not in reference.obs
        else reference_classes(reference, key)
    )
    condition = condition_of(reference, query)
    seed, device = config.seed, config.device
    plan = choose_folds(reference, seed)[:FOLDS]
    folds = [hold_out(reference, b, m, seed=seed, config=config, condition=condition) for b, m in plan]
    graft = fit(reference, query, config)
    latent, graph = embed(reference, query, graft, device=device), query_graph(query.counts, seed=seed)
    near = reference.latent.index.near(latent.mean, k=K)
    held_out = held_cells(folds, codes if len(classes) else np.full(len(reference.latent.mean), -1))
    novelty = find_novelty(
        reference, query, graft, latent, held_out, key=key if len(classes) else None, graph=graph, near=near,
        distance=distance_to(reference, unfitted(reference, query, graft, latent, device=device)), device=device,
    )  # fmt: skip
    types = codes if len(classes) else _stand_ins(reference.latent.mean, seed)
    like = _resemblance(reference, query, types, folds, graph.cluster, seed)
    novel = novelty.novel | (like < LEAST_LIKE)
    unknown = max(float(novel.mean()) - novelty.false_alarms, 0.0) / (1 - novelty.false_alarms)
    made = Match(
        source,
        unknown <= 1 - LEAST_EXPLAINED and (len(classes) > 0 or query.alignment.found_weight >= FULL_ENOUGH),
        "",
        genes=query.alignment.found_weight,
        unknown=unknown,
        missing=tuple(dossier.sentence for dossier in novelty.dossiers),
    )
    if not len(classes):
        said = f"{1 - unknown:.0%} of the cells are explained; the reference has no labels to give"
        return replace(made, sentence=f"{said} (see --labels)." if reference.obs.shape[1] else f"{said}.")
    voted = _vote(codes, len(classes), near.found, graph.cluster)
    held = [
        (
            _vote(codes[f.kept], len(classes), nearest(f.rest.latent.mean, f.latent.mean, k=K), f.graph.cluster),
            codes[f.index],
        )
        for f in folds
        if f.rest.latent is not None
    ]
    accuracy, error = expected_accuracy(voted.share, [(v.share, v.label == right) for v, right in held], unknown)
    if query.alignment.missing:
        lost, _ = cost_of_missing_genes(
            reference, str(key), present_genes(reference, query), query, seed, device=device
        )
        made = replace(made, genes_cost=float(np.mean(list(lost.values()))))
    else:
        made = replace(made, genes_cost=0.0)
    number = Counter(classes[voted.label].astype(str).tolist())
    made = replace(
        made,
        fits=made.fits and accuracy >= LEAST_RIGHT and (made.genes >= FULL_ENOUGH or made.genes_cost <= MOST_LOST),
        agreement=voted.agreement,
        held_out_agreement=float(np.mean([v.agreement for v, _ in held])) if held else float("nan"),
        accuracy=accuracy,
        error=error,
        labels={name: n / len(voted.label) for name, n in number.most_common()},
    )
    return replace(made, sentence=_sentence(made))


def _resemblance(
    reference: Reference, query: Query, types: np.ndarray, folds: Sequence[Fold], cluster: np.ndarray, seed: int
) -> np.ndarray:
    """How alike each cell's cluster is to the most similar type, over what held-out batches reach on the mean, (n,).

    Alike is the correlation of mean log-normalised profiles over the genes that the query has. 1 where a cluster is too small.
    """
    rng, present = np.random.default_rng(seed), present_genes(reference, query)
    chosen = [rng.permutation(np.flatnonzero(types == t))[:EACH] for t in np.unique(types[types >= 0])]
    index = np.sort(np.concatenate(chosen))
    own = counted_cells(reference, index, seed=seed).counts
    reached = []
    for fold in folds:
        rest = np.isin(index, fold.kept)
        found = _alike(fold.query.counts, fold.graph.cluster, own[rest], types[index][rest], present)
        reached += [found[c] for c in fold.graph.cluster[np.isfinite(found[fold.graph.cluster])]]
    if not reached:
        return np.ones(len(cluster))
    alike = _alike(query.counts, cluster, own, types[index], present)[cluster]
    return np.where(np.isfinite(alike), alike / max(float(np.mean(reached)), 1e-6), 1.0)


def _stand_ins(points: np.ndarray, seed: int) -> np.ndarray:
    """Clusters of the reference's latent, which stand for types where there are no labels."""
    some = np.random.default_rng(seed).permutation(len(points))[: TYPES * EACH]
    centres, _ = k_means(points[some], points[some[:TYPES]], rounds=20)
    return nearest(centres.astype(np.float32), points, k=1).indices[:, 0]


def _alike(
    counts: csr_matrix, cluster: np.ndarray, own: csr_matrix, types: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """Largest correlation of each cluster's profile with that of a type; NaN where a cluster is too small."""
    names, number = np.unique(cluster, return_counts=True)
    out = np.full(int(cluster.max()) + 1, np.nan)
    profiles = _profiles(log_normalised(own), types, present)
    ours = _profiles(log_normalised(counts), cluster, present)
    with np.errstate(invalid="ignore"):
        found = np.corrcoef(ours, profiles)[: len(ours), len(ours) :].max(axis=1)
    large = number >= CLUSTER
    out[names[large]] = np.nan_to_num(found[large])
    return out


def _profiles(values: csr_matrix, groups: np.ndarray, present: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(values[groups == g].mean(axis=0)).ravel()[present] for g in np.unique(groups)])


def _vote(codes: np.ndarray, n_classes: int, found: Neighbours, cluster: np.ndarray) -> _Voted:
    shares = neighbour_vote(codes, n_classes, found)
    label = shares.argmax(axis=1)
    table = np.zeros((int(cluster.max()) + 1, n_classes))
    np.add.at(table, (cluster, label), 1)
    return _Voted(label, shares.max(axis=1), float(table.max(axis=1).sum() / len(label)))


def expected_accuracy(
    share: np.ndarray, held_out: Sequence[tuple[np.ndarray, np.ndarray]], unknown: float
) -> tuple[float, float]:
    """Expected share of right labels of a query, and its standard error.

    Parameters
    ----------
    share
        Of the vote for the label that won, of each cell of the query, (n,).
    held_out
        The same shares, and whether the label was right, for each held-out part of the reference.
    unknown
        Share of the query's cells that the reference does not explain, which are counted as wrong.

    Returns
    -------
    tuple of float
        The mean over the query's cells of the share of right labels at their share of the vote (isotonic regression on all
        held-out cells), times the explained share; and the root mean square of what the same forecast, made from the other
        held-out parts, was off on each one. NaN for both without held-out cells; without a second part, the error is NaN.
    """
    if not held_out:
        return float("nan"), float("nan")
    expected = _forecast(held_out, share) * (1 - unknown)
    if len(held_out) < 2:
        return expected, float("nan")
    off = [
        _forecast([*held_out[:i], *held_out[i + 1 :]], own) - right.mean() for i, (own, right) in enumerate(held_out)
    ]
    return expected, float(np.sqrt(np.mean(np.square(off))))


def _forecast(held_out: Sequence[tuple[np.ndarray, np.ndarray]], share: np.ndarray) -> float:
    from scipy.optimize import isotonic_regression

    x, y = (np.concatenate([part[i] for part in held_out]) for i in (0, 1))
    at, own, number = np.unique(x, return_inverse=True, return_counts=True)
    right = np.bincount(own.ravel(), y.astype(float)) / number  # equal shares are one point
    return float(np.interp(share, at, isotonic_regression(right, weights=number).x).mean())


def _sentence(found: Match) -> str:
    said = f"{found.accuracy:.0%} of the labels are expected right by the nearest cells alone"
    if math.isfinite(found.error):
        said += f" (± {max(found.error, 0.005):.0%})"
    said += f"; {found.unknown:.0%} of the cells are not explained; {found.genes:.0%} of the genes were found by weight"
    if found.genes_cost >= 0.005:
        said += f", the missing ones cost {found.genes_cost:.0%}"
    if found.missing:
        said += f". Not in the reference: {len(found.missing)} group{'s' if len(found.missing) > 1 else ''} of cells"
    return f"{said}."
