"""Was the mapping good? Each number is compared with the same number of held-out reference batches; the worst decides.

The comparison values come from the calibration: every batch of the reference was held out and mapped by the same pipeline.
What the numbers measure, and where the ideas come from (Symphony, Azimuth), is in :mod:`scgraft.judgement.measures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scgraft.judgement.measures import cluster_distance, cluster_preservation, mixing, numbers_of, vote_numbers
from scgraft.novelty.mixtures import RATE
from scgraft.novelty.query_graph import QueryGraph
from scgraft.numerics.index import Near
from scgraft.numerics.votes import neighbour_vote
from scgraft.reference.cells import reference_classes
from scgraft.values.calibration import Calibration
from scgraft.values.graft import Graft
from scgraft.values.labels import Labels
from scgraft.values.novelty import Novelty
from scgraft.values.quality import Light, Measure, Verdict
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

ORDER: tuple[Light, ...] = ("grey", "green", "amber", "red")
# Shares of mixed cells: what an overloaded droplet run has (10x Genomics: 8 % of 10,000 cells), and more than any such run can have.
DOUBLETS, SPOTS = 0.1, 0.3
STATES = 3  # named in the verdict's line, the others on the page; chosen by eye
SMALL_CHANGE = 0.01  # of agreement: 20 of the 2,000 cells that are judged; chosen by eye, not measured
# Share of one label above which a query's clusters are noise, and no yardstick of what a latent keeps; chosen by eye, not measured.
ONE_TYPE = 0.95
# Of held-out cells that lack the genes that the query lacks: of 20 labels, 1 or 4 are wrong; chosen by eye, not measured.
ACCURATE, FAIR = 0.95, 0.8


@dataclass(frozen=True)
class Start:
    """What is known of the query's cells before the fit, and before anything was learnt from them.

    Parameters
    ----------
    latent, near
        Where they lie, and their nearest reference cells there.
    asked, genes
        Positions of some cells, (m,), and the codes of the classes that the reference's classifier on genes gives them, (m,).
    """

    latent: Latent
    near: Near
    asked: np.ndarray
    genes: np.ndarray


def measure_quality(
    reference: Reference,
    query: Query,
    graft: Graft,
    latent: Latent,
    labels: Mapping[str, Labels],
    novelty: Novelty,
    graph: QueryGraph,
    calibration: Calibration,
    start: Start,
) -> Verdict:
    """Judge a mapping against held-out batches of the reference.

    Parameters
    ----------
    reference, query, graft, latent, labels, novelty
        The mapping; labels calibrated.
    graph
        The query's own neighbours.
    calibration
        With the numbers of the held-out batches.
    start
        The query's cells before the fit.

    Returns
    -------
    Verdict
        Green where every measure is as in held-out reference batches, else the worst light. A measure that there is nothing
        to compare with is grey. Nothing is random.
    """
    key = calibration.key
    assert reference.latent is not None
    distance, preservation = cluster_distance(reference.latent, latent), cluster_preservation(latent, graph)
    value = numbers_of(distance, preservation, novelty.misfit)
    if key:
        value |= _vote_numbers(reference, key, latent, labels[key].votes["latent"], labels[key].votes["genes"])
    null = calibration.quality
    measures = [
        _genes(query, calibration),
        _small(value["distance"], null.get("distance", ()), "distance", *DISTANCE),
        _large(value["preservation"], null.get("preservation", ()), "preservation", *PRESERVATION),
        reconstruction(value["misfit"], null.get("misfit", ())),
    ]
    if key:
        measures += [
            _large(value["mixing"], null.get("mixing", ()), "mixing", *MIXING),
            _large(value["agreement"], null.get("agreement", ()), "agreement", *AGREEMENT),
        ]
        if np.unique(labels[key].label, return_counts=True)[1].max() > ONE_TYPE * len(labels[key].label):
            measures[2] = _one_type(measures[2])
    measures += [_unexplained(novelty), _states(novelty, placed=bool(key)), _mixtures(novelty)]
    if key and graft.record.trained:
        measures.append(_did_fitting_help(reference, key, labels[key].votes["latent"], start, value))
    judged = verdict(tuple(m for m in measures if np.isfinite(m.value)))
    return replace(judged, distance=distance.astype(np.float32), preservation=preservation)


def verdict(measures: tuple[Measure, ...]) -> Verdict:
    """The worst light of all measures, and the names of the measures that have it."""
    worst: Light = max((m.light for m in measures), key=ORDER.index, default=ORDER[0])
    names = [m.name for m in measures if m.light == worst]
    if worst == "grey":
        return Verdict(worst, "There are no held-out batches of the reference to compare this mapping with.", measures)
    if worst == "green":
        return Verdict(
            worst,
            "Every number is in the range of the reference's own batches when they are held out and mapped.",
            measures,
        )
    word = "Use it with care" if worst == "amber" else "Do not use it before looking"
    return Verdict(worst, f"{word}: {', '.join(names)}.", measures)


def _vote_numbers(
    reference: Reference, key: str, latent: Latent, latent_vote: np.ndarray, gene_vote: np.ndarray
) -> dict[str, float]:
    assert reference.latent is not None
    _, codes = reference_classes(reference, key)
    return vote_numbers(reference.latent, latent, codes, latent_vote, gene_vote)


# For each measure: how far beyond the worst held-out batch it may lie before it is amber, and before it is red (round
# numbers, set by hand); what is said; and what to do.
DISTANCE = (0.25, 1.0, "The median cell lies {value:.2f} standard deviations from the nearest reference cluster", (
    "Look at the batches that moved most, and at the dossiers; try FitConfig(objective='elbo') (--objective elbo)."
))  # fmt: skip
# Set by hand, not measured.
PRESERVATION = (0.15, 0.35, "The query's own clusters keep {value:.0%} of their neighbourhoods in the latent", (
    "Your cells may differ in ways that the reference does not show; do not look for such differences in this latent."
))  # fmt: skip
# Set by hand, not measured.
MIXING = (0.35, 0.7, (
    "Around a query cell lie {value:.0%} of the reference cells that would lie there if cells of the same label were mixed fully"
), "Give finer batches (donor, sample), so that each is fitted alone; labels can still be right.")  # fmt: skip
# Set by hand, not measured.
AGREEMENT = (0.1, 0.3, (
    "{value:.0%} of the cells get the same label from their neighbours in the latent and from the classifier on genes"
), "Believe labels only where both agree: see scgraft.explain (scgraft explain FOLDER CELL), and prediction sets at a small error rate.")  # fmt: skip


def _range(null: tuple[float, ...]) -> str:
    finite = [v for v in null if np.isfinite(v)]
    return f" (held-out reference batches: {min(finite):.2f} to {max(finite):.2f})." if finite else "."


def _light(excess: float, amber: float, red: float) -> Light:
    return "red" if excess > red else "amber" if excess > amber else "green"


def _beyond(null: Sequence[float]) -> float:
    """How far beyond the mean of held-out batches one more batch lies in one of 40 cases, if batches are normal.

    The prediction interval of a further draw (Student's t with one degree less than there are batches): few batches, or batches
    that differ, say less of the next one.
    """
    from scipy.stats import t

    n = len(null)
    return float(t.ppf(0.975, n - 1) * np.std(null, ddof=1) * np.sqrt(1 + 1 / n)) if n > 1 else 0.0


def _small(
    value: float, null: tuple[float, ...], name: str, amber: float, red: float, said: str, action: str
) -> Measure:
    """A measure that should be small: how far above the worst held-out batch, and what a further batch may have, it is."""
    finite = [v for v in null if np.isfinite(v)]
    if not finite:
        return Measure(name, "grey", value, null, said.format(value=value) + ".")
    worst = max(*finite, float(np.mean(finite)) + _beyond(finite))
    light = _light(value / max(worst, 1e-9) - 1, amber, red)
    return Measure(
        name, light, value, null, said.format(value=value) + _range(null), "" if light == "green" else action
    )


def _large(
    value: float, null: tuple[float, ...], name: str, amber: float, red: float, said: str, action: str
) -> Measure:
    """A measure that should be large: how far below the worst held-out batch, and what a further batch may have, it is."""
    finite = [v for v in null if np.isfinite(v)]
    if not finite:
        return Measure(name, "grey", value, null, said.format(value=value) + ".")
    light = _light(min(*finite, float(np.mean(finite)) - _beyond(finite)) - value, amber, red)
    return Measure(
        name, light, value, null, said.format(value=value) + _range(null), "" if light == "green" else action
    )


def _one_type(preservation: Measure) -> Measure:
    """Clusters within one type are noise in part: that they are not kept says nothing of the mapping."""
    said = preservation.sentence + " Nearly all cells have one label, so its clusters are no yardstick."
    return replace(preservation, light="grey", sentence=said, action="")


def _genes(query: Query, calibration: Calibration) -> Measure:
    """Genes found; where the calibration lacks the same ones, their cost is measured, else it is guessed from the share."""
    share = query.alignment.found_weight
    light: Light = "green" if share > 0.95 else "amber" if share > 0.75 else "red"
    said = f"{query.alignment.n_found} of {query.alignment.n_genes} genes were found ({share:.1%} by weight)."
    cells = calibration.reliability[:, 2]
    if not calibration.classifier.genes.all() and cells.sum():
        right = float(calibration.reliability[:, 1] @ cells / cells.sum())
        light = "green" if right > ACCURATE else "amber" if right > FAIR else "red"
        said += f" Held-out cells of the reference with these genes alone get the right label in {right:.1%}."
    action = "Run scgraft.check (scgraft check): it says which cell types the missing genes cost."
    return Measure("genes", light, share, (), said, "" if light == "green" else action)


def reconstruction(value: float, null: tuple[float, ...]) -> Measure:
    """Reconstruction: fixed limits, as cells that the model generated fit it perfectly; wider where real held-out cells ask it."""
    worst = max([v for v in null if np.isfinite(v)], default=0.0)
    light: Light = "green" if value < max(2, 1.5 * worst) else "amber" if value < max(5, 2 * worst) else "red"
    said = (
        f"The model's errors that similar cells share are {value:.2f} times as large as noise alone makes them"
        + _range(null)
    )
    action = (
        "The counts may be reads instead of UMIs, or from another chemistry. Up to three times as many known cells as "
        "declared may be called novel: believe an unknown group only if its genes are markers."
    )
    return Measure("reconstruction", light, value, null, said, "" if light == "green" else action)


def _unexplained(novelty: Novelty) -> Measure:
    share = float(novelty.novel.mean())
    light: Light = "green" if share <= 2 * novelty.false_alarms and not novelty.dossiers else "amber"
    light = "red" if share > 0.5 else light
    said = (
        f"{share:.1%} of the cells are not explained by the reference (declared false alarms: {novelty.false_alarms:.0%}), "
        f"with {len(novelty.dossiers)} unknown groups."
    )
    return Measure(
        "novelty", light, share, (), said, "" if light == "green" else "Read the dossiers of the unknown groups."
    )


def _states(novelty: Novelty, *, placed: bool) -> Measure:
    """Known types in a state that the reference has not: no reason to distrust a label or the mapping, but one to look.

    Without labels (`placed` is False) no type has a place that could be compared, and the line is grey.
    """
    if not novelty.states and not placed:
        return Measure("state", "grey", 1.0, (), "Without labels a new state cannot be told from a new type.")
    if not novelty.states:
        return Measure("state", "green", 1.0, (), "No type of the query is shifted as a whole against the reference.")
    told = []
    for state in novelty.states[:STATES]:
        genes = f", most in {', '.join(g for g, _ in state.genes[:3])}" if state.genes else ""
        told.append(f"{state.label} ({state.shift:.1f} times the errors{genes})")
    more = len(novelty.states) - STATES
    said = f"Known cells in another state, which lie where the reference has them: {', '.join(told)}"
    said += f", and {more} more." if more > 0 else "."
    action = (
        "Labels stand. Another laboratory does this as well as a condition: compare these genes between your own samples before "
        "you call it biology."
    )
    return Measure("state", "green", novelty.states[0].shift, (), said, action)


def _mixtures(novelty: Novelty) -> Measure:
    """Cells of several types: doublets of droplets are up to a tenth; where most are mixed, these are no cells but spots."""
    if not len(novelty.mixture) or not novelty.mixture.any():
        return Measure(
            "mixtures",
            "grey",
            0.0,
            (),
            "Whether cells hold several types was not looked at: there are no types to mix.",
        )
    share = float(novelty.mixed.mean())
    said = f"{share:.1%} of the cells are explained better by several types than by one (declared false alarms: {RATE:.0%})."
    action = "Labels of these cells are unknown. Remove doublets; for spots, take a deconvolution instead of labels."
    light: Light = "green" if share <= DOUBLETS else "amber" if share <= SPOTS else "red"
    return Measure("mixtures", light, share, (), said, "" if light == "green" else action)


def _did_fitting_help(
    reference: Reference, key: str, latent_vote: np.ndarray, start: Start, value: Mapping[str, float]
) -> Measure:
    """Agreement of latent and genes with the fit less that without (``epochs=0``).

    The genes' vote is that of the reference's classifier before it learnt from the query: what it learnt came from the fit.
    """
    assert reference.latent is not None
    (names, codes), some, said_by_genes = reference_classes(reference, key), start.asked, start.genes
    first_vote = neighbour_vote(codes, len(names), start.near.found)
    before, after = (float((vote[some].argmax(axis=1) == said_by_genes).mean()) for vote in (first_vote, latent_vote))
    mixed_before = mixing(reference.latent, start.latent, codes, first_vote.argmax(axis=1))
    gain, mixed = after - before, value["mixing"] - mixed_before
    noise = 2 * np.sqrt(before * (1 - before) / len(some))
    light: Light = "green" if gain > -max(SMALL_CHANGE, noise) or mixed > 0.1 else "amber"
    word = "helped" if gain > SMALL_CHANGE or mixed > 0.05 else "changed little" if light == "green" else "did not help"
    said = (
        f"Fitting {word}: agreement with the genes {before:.1%} without and {after:.1%} with it, "
        f"mixing {mixed_before:.0%} and {value['mixing']:.0%}."
    )
    return Measure(
        "fitting", light, gain, (), said, "" if light == "green" else "Map with FitConfig(epochs=0) (--epochs 0)."
    )


def verdict_as_dict(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain values, ready for JSON."""
    return {
        "light": verdict.light,
        "sentence": verdict.sentence,
        "measures": [
            {
                "name": m.name,
                "light": m.light,
                "value": round(m.value, 4),
                "held_out": [round(v, 4) for v in m.null if np.isfinite(v)],
                "sentence": m.sentence,
                "action": m.action,
            }
            for m in verdict.measures
        ],
    }
