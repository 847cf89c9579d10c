"""What a check says of cells that the reference does not explain: the lines of the verdict, on a sample and before the fit.

A check must not call well what the verdict then calls bad. So it says "ok" only where all of these lines are good and fewer cells look
unknown than a verdict allows for: the sample and the missing fit move them a little.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from scgraft.calibration.condition import condition_of
from scgraft.calibration.hold_out import Fold, choose_folds, held_cells, held_mixture, hold_out
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.judgement.lines import ambient, mixtures, reconstruction
from scgraft.judgement.lines import unexplained as novel_cells
from scgraft.mapping.resources import NOTHING, Measured
from scgraft.novelty.find import find_novelty, reference_types
from scgraft.novelty.place import HeldOut
from scgraft.novelty.score import LEAST_BATCH
from scgraft.values.graft import FitConfig
from scgraft.values.novelty import Novelty
from scgraft.values.quality import Finding
from scgraft.values.query import Query
from scgraft.values.reference import Reference

FOLDS = 2  # of the reference that are held out: for a check in seconds
GROUPS = 3  # of unknown cells whose dossiers are shown


def unexplained(reference: Reference, query: Query, seed: int, device: str) -> tuple[list[Finding], Measured]:
    """Cells that the reference does not explain, before any fit; held-out cells are measured as deeply, in the same genes.

    And what that took, as a mapping does the same.
    """
    if reference.latent is None or len(query.cells) < 2 * LEAST_BATCH:
        return [], NOTHING
    plan, measured = choose_folds(reference, seed), condition_of(reference, query)
    zero, began = FitConfig(epochs=0, device=device), time.perf_counter()
    folds = [hold_out(reference, b, m, seed=seed, config=zero, condition=measured) for b, m in plan[:FOLDS]]
    held_out, began = (time.perf_counter() - began) / max(len(folds), 1), time.perf_counter()
    key = reference.schema.labels_key
    codes = reference_types(reference, key)[2]
    held, soup = _held(folds, codes, device)
    graft = fit(reference, query, zero)
    latent = embed(reference, query, graft, device=device)
    found = find_novelty(reference, query, graft, latent, held, key=key, device=device)
    measure = Measured(measured, held_out, (time.perf_counter() - began) / len(query.cells))
    return _findings(found, tuple(fold.misfit for fold in folds), soup), measure


def _held(folds: Sequence[Fold], codes: np.ndarray, device: str) -> tuple[HeldOut, tuple[float, ...]]:
    """What the query is compared with, as a calibration has it: cells whose class the rest of the reference has; ambient RNA by fold."""
    every, gains, soup = held_cells(folds, codes), [np.zeros(0)], []
    seen = [np.zeros(0, bool)]
    for fold in folds:
        gain, share = held_mixture(fold, codes[fold.kept], device)
        gains.append(gain)
        soup.append(share)
        seen.append(np.isin(codes[fold.index], codes[fold.kept]))
    kept = np.concatenate(seen)
    parts = (every.score, every.distance, every.code, every.fold, every.evidence, np.concatenate(gains))
    return HeldOut(*(part[kept] for part in parts if part is not None)), tuple(soup)


def _findings(found: Novelty, misfit: tuple[float, ...], soup: tuple[float, ...]) -> list[Finding]:
    """One finding, or none where the lines are good by too little for an all-clear."""
    share = float(found.novel.mean())
    values = {"share": round(share, 4), "false_alarms": found.false_alarms, "groups": len(found.dossiers)}
    said = f"{share:.0%} of the sampled cells look unknown to the reference before the fit"
    lines = (
        novel_cells(found, judged=len(misfit) > 0),
        reconstruction(found.misfit, misfit),
        mixtures(found),
        ambient(found, soup),
    )
    first, *others = (line for line in lines if line.light in ("amber", "red") or line is lines[0])
    if first.light == "grey" and not others:
        return []
    if first.light == "green" and not others:
        said += f". That is no more than the false alarms that are allowed for ({found.false_alarms:.0%} are declared); a mapping says more."
        return [Finding("unknown cells", "ok", said, "", values)] if share <= found.false_alarms else []
    told = [said, *(dossier.sentence for dossier in found.dossiers[:GROUPS]), *(line.sentence for line in others)]
    action = "Map, and read the verdict: if they stay unknown, expect no right label for them."
    if first.light in ("green", "grey"):
        told.append("That few look unknown is no all-clear: all of them may be unknown, or measured very differently.")
        action = "Map, and read the verdict before any label."
    return [Finding("unknown cells", "warning", " ".join(part.rstrip(".") + "." for part in told), action, values)]
