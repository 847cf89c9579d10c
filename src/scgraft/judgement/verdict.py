"""Was the mapping good? Each number is compared with the same number of held-out reference batches; the worst decides.

The comparison values come from the calibration: every batch of the reference was held out and mapped by the same pipeline.
What the numbers measure, and where the ideas come from (Symphony, Azimuth), is in :mod:`scgraft.judgement.measures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.judgement.measures import cluster_distance, cluster_preservation, numbers_of, vote_numbers
from scgraft.novelty.query_graph import QueryGraph
from scgraft.numerics.neighbors import nearest
from scgraft.numerics.votes import K, neighbour_vote
from scgraft.reference.cells import reference_classes
from scgraft.values.calibration import Calibration
from scgraft.values.graft import FitConfig, Graft
from scgraft.values.labels import Labels
from scgraft.values.novelty import Novelty
from scgraft.values.quality import Light, Measure, Verdict
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

ORDER: tuple[Light, ...] = ("green", "amber", "red")
SMALL_CHANGE = 0.01


def measure_quality(
    reference: Reference,
    query: Query,
    graft: Graft,
    latent: Latent,
    labels: Mapping[str, Labels],
    novelty: Novelty,
    graph: QueryGraph,
    calibration: Calibration,
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

    Returns
    -------
    Verdict
        Green where every measure is as in held-out reference batches, else the worst light. Nothing is random.
    """
    key = calibration.key
    assert reference.latent is not None
    distance, preservation = cluster_distance(reference.latent, latent), cluster_preservation(latent, graph)
    value = numbers_of(distance, preservation, novelty.misfit)
    if key:
        value |= _vote_numbers(reference, key, latent, labels[key].votes["latent"], labels[key].votes["genes"])
    null = calibration.quality
    measures = [
        _genes(query),
        _small(value["distance"], null.get("distance", ()), "distance", *DISTANCE),
        _large(value["preservation"], null.get("preservation", ()), "preservation", *PRESERVATION),
        _misfit(value["misfit"], null.get("misfit", ())),
    ]
    if key:
        measures += [
            _large(value["mixing"], null.get("mixing", ()), "mixing", *MIXING),
            _large(value["agreement"], null.get("agreement", ()), "agreement", *AGREEMENT),
        ]
    measures.append(_unexplained(novelty))
    helped = _did_fitting_help(reference, query, graft, labels[key].votes["genes"] if key else None, key, value)
    measures += [] if helped is None else [helped]
    judged = verdict(tuple(m for m in measures if np.isfinite(m.value)))
    return replace(judged, distance=distance.astype(np.float32), preservation=preservation)


def verdict(measures: tuple[Measure, ...]) -> Verdict:
    """The worst light of all measures, and the names of the measures that have it."""
    worst: Light = max((m.light for m in measures), key=ORDER.index, default=ORDER[0])
    names = [m.name for m in measures if m.light == worst]
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
    "Look at the batches that moved most, and at the dossiers; try FitConfig(objective='elbo')."
))  # fmt: skip
PRESERVATION = (0.15, 0.35, "The query's own clusters keep {value:.0%} of their neighbourhoods in the latent", (
    "Your cells may differ in ways that the reference does not show; do not look for such differences in this latent."
))  # fmt: skip
MIXING = (0.35, 0.7, (
    "Around a query cell lie {value:.0%} of the reference cells that would lie there if cells of the same label were mixed fully"
), "Fit with more steps (FitConfig(max_steps=1000)) or split the batch column; labels can still be right.")  # fmt: skip
AGREEMENT = (0.1, 0.3, (
    "{value:.0%} of the cells get the same label from their neighbours in the latent and from the classifier on genes"
), "Believe labels only where both agree: see explain(), and prediction sets at a small error rate.")  # fmt: skip


def _range(null: tuple[float, ...]) -> str:
    finite = [v for v in null if np.isfinite(v)]
    return f" (held-out reference batches: {min(finite):.2f} to {max(finite):.2f})." if finite else "."


def _light(excess: float, amber: float, red: float) -> Light:
    return "red" if excess > red else "amber" if excess > amber else "green"


def _small(
    value: float, null: tuple[float, ...], name: str, amber: float, red: float, said: str, action: str
) -> Measure:
    """A measure that should be small: the light depends on how far above the worst held-out batch it is, as a share of that."""
    worst = np.nanmax([v for v in null if np.isfinite(v)] or [value])
    light = _light(value / max(worst, 1e-9) - 1, amber, red)
    return Measure(
        name, light, value, null, said.format(value=value) + _range(null), "" if light == "green" else action
    )


def _large(
    value: float, null: tuple[float, ...], name: str, amber: float, red: float, said: str, action: str
) -> Measure:
    """A measure that should be large: the light depends on how far below the worst held-out batch it is, as a difference."""
    worst = min([v for v in null if np.isfinite(v)] or [value])
    light = _light(worst - value, amber, red)
    return Measure(
        name, light, value, null, said.format(value=value) + _range(null), "" if light == "green" else action
    )


def _genes(query: Query) -> Measure:
    share = query.alignment.found_weight
    light: Light = "green" if share > 0.95 else "amber" if share > 0.75 else "red"
    return Measure(
        "genes",
        light,
        share,
        (),
        f"{query.alignment.n_found} of {query.alignment.n_genes} genes were found ({share:.1%} by weight).",
        "" if light == "green" else "Run `scgraft check`: it says which cell types the missing genes cost.",
    )


def _misfit(value: float, null: tuple[float, ...]) -> Measure:
    """Reconstruction. Fixed limits: held-out cells that the model generated fit it perfectly, and are no comparison."""
    light: Light = "green" if value < 2 else "amber" if value < 5 else "red"
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


def _did_fitting_help(
    reference: Reference,
    query: Query,
    graft: Graft,
    gene_vote: np.ndarray | None,
    key: str,
    value: Mapping[str, float],
) -> Measure | None:
    """Agreement of latent and genes with the fit less that without (``epochs=0``): the genes' vote does not depend on the fit."""
    if not graft.record.trained or gene_vote is None or reference.latent is None:
        return None
    names, codes = reference_classes(reference, key)
    zero = fit(reference, query, FitConfig(epochs=0, device="cpu"))
    if set(zero.batches) != set(graft.batches):
        return None  # a graft that was made for more batches than this query has
    latent = embed(reference, query, zero)
    found = nearest(reference.latent.mean, latent.mean, k=min(K, len(codes)))
    vote = neighbour_vote(codes, len(names), found)
    before = vote_numbers(reference.latent, latent, codes, vote, gene_vote)
    gain = value["agreement"] - before["agreement"]
    mixed = value["mixing"] - before["mixing"]
    share = before["agreement"]
    noise = 2 * np.sqrt(share * (1 - share) / len(latent.mean))
    light: Light = "green" if gain > -max(SMALL_CHANGE, noise) or mixed > 0.1 else "amber"
    word = "helped" if gain > SMALL_CHANGE or mixed > 0.05 else "changed little" if light == "green" else "did not help"
    said = (
        f"Fitting {word}: agreement with the genes {before['agreement']:.1%} without and {value['agreement']:.1%} with it, "
        f"mixing {before['mixing']:.0%} and {value['mixing']:.0%}."
    )
    return Measure("fitting", light, gain, (), said, "" if light == "green" else "Map with FitConfig(epochs=0).")


def quality_as_dict(quality: Verdict) -> dict[str, Any]:
    """A verdict as plain values, ready for JSON."""
    return {
        "light": quality.light,
        "sentence": quality.sentence,
        "measures": [
            {
                "name": m.name,
                "light": m.light,
                "value": round(m.value, 4),
                "held_out": [round(v, 4) for v in m.null if np.isfinite(v)],
                "sentence": m.sentence,
                "action": m.action,
            }
            for m in quality.measures
        ],
    }
