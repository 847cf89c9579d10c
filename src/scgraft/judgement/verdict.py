"""Was the mapping good? Each number is compared with the same number of held-out reference batches; the worst decides.

The comparison values come from the calibration: every batch of the reference was held out and mapped by the same pipeline.
What the numbers measure, and where the ideas come from (Symphony, Azimuth), is in :mod:`scgraft.judgement.measures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scgraft.judgement.lines import FOUND, ambient, beyond, mixtures, reconstruction, states, unexplained
from scgraft.judgement.measures import cluster_distance, cluster_preservation, mixing, numbers_of, vote_numbers
from scgraft.judgement.ranges import compared, green
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
SMALL_CHANGE = 0.01  # of agreement: 20 of the 2,000 cells that are judged; chosen by eye, not measured
# Share of one label above which a query's clusters are noise, and no yardstick of what a latent keeps; chosen by eye, not measured.
ONE_TYPE = 0.95
# Of held-out cells that lack the genes that the query lacks: of 20 labels, 1 or 4 are wrong; chosen by eye, not measured.
ACCURATE, FAIR = 0.95, 0.8
SOME = 0.75  # of the weight of the genes that was found, below which the line is red; chosen by eye, not measured


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
        if _has_one_type(labels[key].label):
            measures[2] = _one_type(measures[2])
    held = len(calibration.evidence) > 0
    measures += [unexplained(novelty, judged=held), states(novelty, placed=held and bool(key)), mixtures(novelty)]
    measures.append(ambient(novelty, null.get("ambient", ())))
    if key and graft.record.trained:
        measures.append(_did_fitting_help(reference, key, labels[key].votes["latent"], start, value))
    judged = verdict(tuple(m for m in measures if np.isfinite(m.value)))
    return replace(judged, distance=distance.astype(np.float32), preservation=preservation)


def verdict(measures: tuple[Measure, ...]) -> Verdict:
    """The worst light of all measures, and the names of the measures that have it."""
    worst: Light = max((m.light for m in measures), key=ORDER.index, default=ORDER[0])
    names = [m.name for m in measures if m.light == worst]
    if worst == "grey":
        return Verdict(
            worst,
            "This mapping cannot be judged: no batches of the reference could be held out and mapped, to compare it with.",
            measures,
        )
    if worst == "green":
        return Verdict(worst, green(measures), measures)
    word = "Use this mapping with care" if worst == "amber" else "Do not use this mapping yet"
    return Verdict(worst, f"{word}; first read what these lines say: {', '.join(names)}.", measures)


def _vote_numbers(
    reference: Reference, key: str, latent: Latent, latent_vote: np.ndarray, gene_vote: np.ndarray
) -> dict[str, float]:
    assert reference.latent is not None
    _, codes = reference_classes(reference, key)
    return vote_numbers(reference.latent, latent, codes, latent_vote, gene_vote)


# For each measure: how far beyond the worst held-out batch it may lie before it is amber, and before it is red (round
# numbers, set by hand); what is said; and what to do.
DISTANCE = (0.25, 1.0, (
    "Your cells should lie in the clusters of the reference: half of them lie within {value:.2f} standard deviations of the "
    "nearest cluster's centre"
), (
    "Look at the batches that moved most, and at the unknown groups."
))  # fmt: skip
# Set by hand, not measured.
PRESERVATION = (0.15, 0.35, (
    "Cells that are alike in your counts should stay together in the reference's space: your clusters keep {value:.0%} of their "
    "neighbourhoods there, beyond what chance gives"
), "Some differences between your cells are lost in that space: look for them in your counts, not there.")  # fmt: skip
# Set by hand, not measured.
MIXING = (0.35, 0.7, (
    "Your cells should lie among reference cells of the same label: they have {value:.0%} of the reference neighbours that full "
    "mixing would give them"
), (
    "Labels can be right all the same: read how often the two votes agree."
))  # fmt: skip
# Set by hand, not measured.
AGREEMENT = (0.1, 0.3, (
    "Two votes make a label, and they should agree: for {value:.0%} of the cells, the neighbours in the reference's space and the "
    "classifier on genes name the same one"
), (
    "If one of your batches is several donors or samples, name these (batch_key=, --batch-key), so that each is fitted by itself. "
    "Trust labels where both votes agree: scgraft.explain (scgraft explain FOLDER CELL) shows them, and prediction sets at a small "
    "error rate say which labels are possible."
))  # fmt: skip


def _light(excess: float, amber: float, red: float) -> Light:
    return "red" if excess > red else "amber" if excess > amber else "green"


def _small(
    value: float, null: tuple[float, ...], name: str, amber: float, red: float, said: str, action: str
) -> Measure:
    """A measure that should be small: how far above the worst held-out batch, and what a further batch may have, it is."""
    finite = [v for v in null if np.isfinite(v)]
    if not finite:
        return Measure(name, "grey", value, null, said.format(value=value) + ".")
    worst = max(*finite, float(np.mean(finite)) + beyond(finite))
    light = _light(value / max(worst, 1e-9) - 1, amber, red)
    return compared(name, light, value, null, said, action)


def _large(
    value: float, null: tuple[float, ...], name: str, amber: float, red: float, said: str, action: str
) -> Measure:
    """A measure that should be large: how far below the worst held-out batch, and what a further batch may have, it is."""
    finite = [v for v in null if np.isfinite(v)]
    if not finite:
        return Measure(name, "grey", value, null, said.format(value=value) + ".")
    light = _light(min(*finite, float(np.mean(finite)) - beyond(finite)) - value, amber, red)
    return compared(name, light, value, null, said, action)


def _has_one_type(label: np.ndarray) -> bool:
    """Whether nearly all cells have the same label, (n,)."""
    return bool(np.unique(label, return_counts=True)[1].max(initial=0) > ONE_TYPE * len(label))


def _one_type(preservation: Measure) -> Measure:
    """Clusters within one type are noise in part: that they are not kept says nothing of the mapping."""
    said = (
        preservation.sentence
        + " Nearly all of your cells have one label; clusters within one type are noise in part, so this is not judged."
    )
    return replace(preservation, light="grey", sentence=said, action="")


def _genes(query: Query, calibration: Calibration) -> Measure:
    """Genes found; where the calibration lacks the same ones, their cost is measured, else it is guessed from the share."""
    share = query.alignment.found_weight
    light: Light = "green" if share > FOUND else "amber" if share > SOME else "red"
    said = (
        f"{query.alignment.n_found:,} of {query.alignment.n_genes:,} genes of the reference were found in your data; they carry "
        f"{share:.1%} of the weight that the model gives to genes."
    )
    cells = calibration.reliability[:, 2]
    if not calibration.classifier.genes.all() and cells.sum():
        right = float(calibration.reliability[:, 1] @ cells / cells.sum())
        light = "green" if right > ACCURATE else "amber" if right > FAIR else "red"
        said += f" With these genes alone, {right:.1%} of the reference's held-out cells get the right label."
    action = "Run scgraft.check (scgraft check): it names the cell types whose labels suffer from the missing genes."
    return Measure("genes", light, share, (), said, "" if light == "green" else action)


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
        f"Fitting {word}: the two votes agreed for {before:.1%} of the cells before the fit and for {after:.1%} after it; mixing was "
        f"{mixed_before:.0%} before and {value['mixing']:.0%} after."
    )
    action = "Map again without fitting: FitConfig(epochs=0) (--epochs 0)."
    return Measure("fitting", light, gain, (), said, "" if light == "green" else action)


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
