"""Why this label? One cell's neighbours, votes, prediction set, novelty and deciding genes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import NoLabels, QueryError
from scgraft.labels.classifier import expression
from scgraft.labels.votes import blend
from scgraft.numerics.neighbors import nearest
from scgraft.query.align import align_as, options_as_found
from scgraft.values.calibration import Calibration
from scgraft.values.labels import Explanation, Labels
from scgraft.values.mapping import MappedQuery
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData

GENES = 8  # what fits on a line; chosen by eye


def explain(
    reference: Reference,
    mapped: MappedQuery,
    cell: str,
    *,
    labels: str | None = None,
    adata: AnnData | None = None,
    k: int = 5,  # what a person reads
    alpha: float = 0.1,  # the error rate of scgraft.labels.transfer.ALPHA
) -> Explanation:
    """Explain why one cell has its label: nearest reference cells, votes, prediction set, novelty and deciding genes.

    Parameters
    ----------
    reference, mapped
        The reference, and the mapping of the query.
    cell
        Name of the query cell.
    labels
        Label column; None takes the first.
    adata
        The query; with it, the genes that decide between the label and the runner-up are named (not where a label method was chosen
        for the mapping: it decided alone).
    k
        Reference neighbours to list.
    alpha
        Error rate of the prediction set.

    Raises
    ------
    QueryError
        The mapping has no such cell.
    NoLabels
        The mapping has no such labels, or the reference no cells.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> explanation = scgraft.explain(reference, mapped, "query0", adata=adata)
    >>> explanation.sentence.startswith(f"query0 is called {explanation.label}")
    True
    >>> len(explanation.neighbours)
    5
    """
    if reference.latent is None or reference.obs is None or not mapped.labels:
        raise NoLabels("There are no labels to explain: map with labels onto a reference that holds cells.")
    key = next(iter(mapped.labels)) if labels is None else labels
    if key not in mapped.labels:
        raise NoLabels(f"The mapping has no labels {key!r}; it has {', '.join(mapped.labels)}. Choose one of these.")
    where = np.flatnonzero(mapped.latent.cells == cell)
    if not len(where):
        raise QueryError(
            f"The mapping has no cell {cell!r}; its cells are named {', '.join(mapped.latent.cells[:3])}, .... Use "
            "one of its names."
        )
    i, found = int(where[0]), mapped.labels[key]
    neighbours = _neighbours(reference, mapped, i, found.key, k)
    novelty, threshold = float("nan"), float("inf")
    if mapped.novelty is not None:
        novelty, threshold = float(mapped.novelty.strength[i]), 1.0
    genes, log_odds, remainder = _gene_parts(reference, mapped, found, i, adata)
    made = Explanation(
        cell=cell,
        label=str(found.label[i]),
        probability=float(found.probability[i]),
        runner_up=str(found.runner_up[i]),
        prediction_set=() if found.pvalues is None else found.sets(alpha)[i],
        alpha=alpha,
        novelty=novelty,
        threshold=threshold,
        votes=_votes(found, i),
        neighbours=neighbours,
        genes=genes,
        sentence="",
        log_odds=log_odds,
        remainder=remainder,
    )
    said = _sentence(made, calibrated=found.pvalues is not None)
    said += f" The label comes from the method {mapped.label_method!r} alone." if mapped.label_method else ""
    return replace(made, sentence=said + _overruled(found, mapped.calibration.get(found.key), i))


def _neighbours(
    reference: Reference, mapped: MappedQuery, i: int, key: str, k: int
) -> tuple[tuple[str, str, str, float], ...]:
    assert reference.latent is not None and reference.obs is not None
    found = nearest(reference.latent.mean, mapped.latent.mean[i : i + 1], k=k)
    batch = reference.schema.batch_key
    lines = []
    for j, distance in zip(found.indices[0].tolist(), found.distances[0].tolist(), strict=True):
        label = str(reference.obs[key].iloc[j]) if key in reference.obs else ""
        from_batch = str(reference.obs[batch].iloc[j]) if batch in reference.obs else ""
        lines.append((str(reference.latent.cells[j]), label, from_batch, round(distance, 4)))
    return tuple(lines)


def _votes(labels: Labels, i: int) -> Mapping[str, tuple[float, float, float]]:
    latent = labels.votes.get("latent", labels.matrix)[i]
    genes = labels.votes["genes"][i] if "genes" in labels.votes else np.full(len(latent), np.nan)
    shown = [c for c in np.argsort(-labels.matrix[i], kind="stable") if max(latent[c], labels.matrix[i][c]) >= 0.01]
    return {
        labels.classes[c]: (
            round(float(latent[c]), 4),
            round(float(genes[c]), 4),
            round(float(labels.matrix[i][c]), 4),
        )
        for c in shown[:8]
    }


def _gene_parts(
    reference: Reference, mapped: MappedQuery, labels: Labels, i: int, adata: AnnData | None
) -> tuple[tuple[tuple[str, float], ...], float, float]:
    """Genes by their part in the log-odds of the label against the runner-up, largest first; the log-odds; what others add."""
    voted = None if "method" in labels.votes else labels.classifier  # a label method decided, not the genes' vote
    if adata is None or voted is None or len(labels.classes) < 2:
        return (), float("nan"), float("nan")
    cell = str(mapped.latent.cells[i])
    one = adata[adata.obs_names.astype(str) == cell]
    if one.n_obs != 1:
        raise QueryError(f"This AnnData has no cell {cell!r}; give the query that was mapped.")
    query = align_as(reference, one, options_as_found(mapped.alignment))
    first, second = voted.classes.index(str(labels.label[i])), voted.classes.index(str(labels.runner_up[i]))
    weight = voted.coefficient[first].astype(np.float64) - voted.coefficient[second]
    part = weight[voted.genes] * expression(query.counts, voted.genes)[0]
    log_odds = float(part.sum() + voted.intercept[first] - voted.intercept[second])
    order = np.argsort(-part, kind="stable")[:GENES]
    names = reference.schema.genes[voted.genes]
    listed = tuple((str(names[g]), round(float(part[g]), 3)) for g in order if part[g] > 0)
    return listed, log_odds, log_odds - sum(value for _, value in listed)


def _overruled(labels: Labels, calibration: Calibration | None, i: int) -> str:
    """A sentence for a cell whose label is not what its votes name, because the weights of the classes decided; else ""."""
    if calibration is None or labels.pvalues is None:
        return ""
    latent, genes = (labels.votes[name][i : i + 1] for name in ("latent", "genes"))
    votes = labels.votes["method"][i : i + 1] if "method" in labels.votes else blend(latent, genes)
    first, label = int(votes.argmax()), int(labels.matrix[i].argmax())
    if first == label:
        return ""
    weight = calibration.class_weights[first] / calibration.class_weights[label]
    return (
        f" The votes alone name {labels.classes[first]}. In held-out batches of the reference the votes named "
        f"{labels.classes[first]} too often or {labels.classes[label]} too rarely, so a vote for {labels.classes[first]} "
        f"counts {weight:.2g} times one for {labels.classes[label]}."
    )


def _sentence(made: Explanation, *, calibrated: bool) -> str:
    said = f"{made.cell} is called {made.label} (probability {made.probability:.2f}), before {made.runner_up or 'nothing'}."
    if made.neighbours:
        same = sum(label == made.label for _, label, _, _ in made.neighbours)
        batches = len({batch for _, _, batch, _ in made.neighbours})
        said += (
            f" {same or 'None'} of its {len(made.neighbours)} nearest reference cells {'have' if same > 1 else 'has'} this label; they are "
            f"from {batches} batch{'' if batches == 1 else 'es'}."
        )
    if not calibrated:
        return said + " The labels are not calibrated."
    if not made.prediction_set:
        said += f" No label fits at an error rate of {made.alpha:.0%}."
    elif len(made.prediction_set) > 1:
        said += f" At an error rate of {made.alpha:.0%} it may be any of {', '.join(made.prediction_set)}."
    if made.novelty > made.threshold:
        said += f" It is novel: its novelty is {made.novelty:.2f} times the limit."
    if made.genes:
        said += f" Genes that decide: {', '.join(g for g, _ in made.genes[:5])}."
    return said
