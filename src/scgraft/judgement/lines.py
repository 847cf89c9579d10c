"""Lines of the verdict on what the model explains: reconstruction, novel cells, states, mixtures and ambient RNA.

They need no labels to be right, so a check before the fit has the same lines of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scgraft.judgement.ranges import compared, outside_of, range_of
from scgraft.novelty.mixtures import RATE, SPOTS
from scgraft.values.novelty import Novelty
from scgraft.values.quality import Light, Measure

FOUND = 0.95  # of the weight of the genes; with less a line on genes is not green; chosen by eye, not measured
DOUBLETS = 0.1  # of cells are mixed in an overloaded droplet run (10x Genomics: 8 % of 10,000 cells)
STATES = 3  # named in the verdict's line, the others on the page; chosen by eye
# More ambient RNA than in the held-out batch that has most, a share of the counts, in steps of .05. Chosen with the mappings of
# benchmarks/trust.py in view: unchanged ones have 0 to .15, those with 30 % ambient RNA .15 to .42.
SOUP = 0.1


def beyond(null: Sequence[float]) -> float:
    """How far beyond the mean of held-out batches one more batch lies in one of 40 cases, if batches are normal.

    The prediction interval of a further draw (Student's t with one degree less than there are batches): few batches, or batches
    that differ, say less of the next one.
    """
    from scipy.special import stdtrit  # scipy.stats has the same quantiles, and takes a second to import

    n = len(null)
    return float(stdtrit(n - 1, 0.975) * np.std(null, ddof=1) * np.sqrt(1 + 1 / n)) if n > 1 else 0.0


def reconstruction(value: float, null: tuple[float, ...]) -> Measure:
    """Reconstruction: fixed limits, as cells that the model generated fit it perfectly; wider where real held-out cells ask it.

    1 is what noise alone gives, so a large one is bad even where no batch could be held out; a small one is then no praise.
    """
    worst = max([v for v in null if np.isfinite(v)], default=0.0)
    light: Light = "green" if value < max(2, 1.5 * worst) else "amber" if value < max(5, 2 * worst) else "red"
    if light == "green" and not np.isfinite(null).any():
        light = "grey"
    said = (
        "The model should explain your counts: the errors that cells of one kind share are {value:.2f} times as large as noise "
        "alone would make them"
    )
    action = (
        "Your counts may be reads instead of UMIs, or of another chemistry than the reference's. Up to six times as many known "
        "cells as declared may then be called novel: believe an unknown group only if its genes are known markers."
    )
    return compared("reconstruction", light, value, null, said, "" if light == "grey" else action)


def unexplained(novelty: Novelty, *, judged: bool) -> Measure:
    """Share of novel cells: twice the declared false alarms are allowed, and no group of them.

    Without held-out cells (`judged` is False) no cell is called novel, and the line is grey.
    """
    share = float(novelty.novel.mean())
    if not judged:
        said = "Which of your cells the reference does not explain was not looked at: no cells of it could be held out, to compare with."
        return Measure("novelty", "grey", share, (), said)
    light: Light = "green" if share <= 2 * novelty.false_alarms and not novelty.dossiers else "amber"
    light = "red" if share > 0.5 else light
    groups = f"{len(novelty.dossiers)} unknown group" + ("" if len(novelty.dossiers) == 1 else "s")
    said = (
        f"{share:.1%} of your cells are not explained by the reference, with {groups} among them; of cells that it knows, "
        f"{novelty.false_alarms:.0%} are called so by chance."
    )
    action = "Read the dossiers of the unknown groups: what their genes are, and which reference cells are near."
    return Measure("novelty", light, share, (), said, "" if light == "green" else action)


def states(novelty: Novelty, *, placed: bool) -> Measure:
    """Known types in a state that the reference has not: no reason to distrust a label or the mapping, but one to look.

    Without labels or held-out cells (`placed` is False) no type has a place that could be compared, and the line is grey.
    """
    if not novelty.states and not placed:
        return Measure(
            "state",
            "grey",
            1.0,
            (),
            "Whether known types are in a new state was not looked at: it takes labels, and cells of the reference that can be held out.",
        )
    if not novelty.states:
        return Measure(
            "state",
            "green",
            1.0,
            (),
            "No cell type of your data is shifted as a whole against the same type of the reference.",
        )
    told = []
    for state in novelty.states[:STATES]:
        genes = f", most in {', '.join(g for g, _ in state.genes[:3])}" if state.genes else ""
        told.append(f"{state.label} (errors {state.shift:.1f} times as large{genes})")
    more = len(novelty.states) - STATES
    said = f"Known cell types in another state (they lie where the reference has them, but share errors): {', '.join(told)}"
    said += f", and {more} more." if more > 0 else "."
    action = (
        "Their labels stand. Another laboratory has the same effect as a disease or a treatment: compare these genes between your "
        "own samples before you call it biology."
    )
    return Measure("state", "green", novelty.states[0].shift, (), said, action)


def mixtures(novelty: Novelty) -> Measure:
    """Cells of several types: doublets of droplets are up to a tenth; where most are mixed, these are no cells but spots."""
    if not len(novelty.mixture) or not novelty.mixture.any():
        return Measure(
            "mixtures",
            "grey",
            0.0,
            (),
            "Whether your cells are mixtures (doublets, spots) was not looked at: without labels there are no types to mix.",
        )
    share = float(novelty.mixed.mean())
    said = (
        f"{share:.1%} of your cells look like mixtures of several cell types (doublets, spots); of single cells, {RATE:.0%} are "
        "called so by chance."
    )
    action = "These cells are marked unknown. Remove doublets; for spots, use a deconvolution instead of labels."
    light: Light = "green" if share <= DOUBLETS else "amber" if share <= SPOTS else "red"
    return Measure("mixtures", light, share, (), said, "" if light == "green" else action)


def ambient(novelty: Novelty, null: tuple[float, ...]) -> Measure:
    """Ambient RNA in the batch that has most, beside what is found in the same way in held-out batches."""
    finite = [v for v in null if np.isfinite(v)]
    if not novelty.ambient or not finite:
        said = "How much ambient RNA is in your cells is not known: there is nothing to compare with."
        return Measure("ambient", "grey", max(novelty.ambient.values(), default=0.0), null, said)
    worst = max(novelty.ambient, key=lambda name: novelty.ambient[name])
    share = novelty.ambient[worst]
    light: Light = "amber" if share - max(finite) > SOUP else "green"
    said = (
        f"Each cell should hold its own RNA: {share:.0%} of the counts look as if they came from the other cells of the batch {worst} "
        "(ambient RNA)"
    )
    said += range_of(null, "{value:.0%}", outside_of("ambient", share, null) if light == "green" else "")
    action = (
        "Labels and prediction sets suffer from it: remove it (SoupX, DecontX, CellBender), and map again. Types that the reference lacks "
        "can look like it."
    )
    return Measure("ambient", light, share, null, said, "" if light == "green" else action)
