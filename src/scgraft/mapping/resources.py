"""How long a mapping will take on this machine, and in how much memory: measured on a sample, before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scgraft.calibration.calibrate import is_kept
from scgraft.calibration.condition import Condition
from scgraft.calibration.hold_out import choose_folds
from scgraft.calibration.store import cache_folder
from scgraft.expression.generate import counted_cells
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.labels.classifier import GENERATED, ITERATIONS, STORED, training_cells
from scgraft.mapping.freeze import SAMPLE
from scgraft.numerics.places import COMPUTED, MAP
from scgraft.reference.cells import label_key, reference_classes
from scgraft.reference.counts import STORED_COUNTS
from scgraft.values.graft import FitConfig
from scgraft.values.names import BATCH
from scgraft.values.quality import Finding
from scgraft.values.query import Query
from scgraft.values.reference import Reference, own_map

# Steps of two fits that the time of all is estimated from: what a fit takes besides its steps is in both. An evaluation comes each 20.
SHORT, LONG = 5, 25
DRAWN = 200  # cells of the reference that are drawn to see how long that takes
EVALUATIONS = 1.2 * ITERATIONS  # of the loss in a training: L-BFGS looks a few times more than it steps
# Seconds for aligning and writing the results, on top of what is measured: 0.7 to 1.3 CPU seconds were measured on three small queries.
# The start of a command is not in it.
FIXED = 1.5
# CPU seconds of scanpy's UMAP in a new process, and for each cell: measured on one core (10 dimensions; 300, 2,000 and 6,000 cells).
UMAP_START, UMAP_CELL = 24.0, 0.0014


@dataclass(frozen=True)
class Measured:
    """What parts of the work took on a sample.

    Parameters
    ----------
    condition
        How the query was measured: there is a calibration for each.
    held_out
        Seconds for a held-out fold without a fit; 0 where there is none.
    judged
        Seconds for a query cell until it is known whether it is novel.
    """

    condition: Condition | None
    held_out: float
    judged: float


NOTHING = Measured(None, 0.0, 0.0)  # of a query that cannot be judged


def resources(reference: Reference, query: Query, n: int, measured: Measured, *, device: str = "auto") -> Finding:
    """Time and memory of a mapping of `n` cells, from `query`, a sample of them: a few steps of the fit and one projection."""
    fitted, project = _fit_seconds(reference, query, device)
    calibrated = _calibration_seconds(reference, measured, fitted)
    drawn = _map_seconds(reference)
    whole = FIXED + fitted + project * n / len(query.cells) + measured.judged * min(n, SAMPLE) + calibrated + drawn
    density = query.counts.nnz / len(query.cells)
    gigabytes = (3 * 8 * density * n + 4 * len(reference.schema.genes) * min(n, 20_000) + 6e8) / 1e9
    said = f"Expect about {duration(whole)} on this machine and {gigabytes:.1f} GB for {n:,} cells"
    if calibrated:
        said += (
            f"; {duration(calibrated)} of it for the calibration of the reference, which is made once and kept for the next "
            "query like this one"
        )
    if drawn:
        said += (
            f"; {duration(drawn)} of it for a map of the reference, which publishes none: it is computed once and kept"
        )
    values = {"seconds": round(whole, 1), "of_calibration": round(calibrated, 1), "gigabytes": round(gigabytes, 2)}
    return Finding("resources", "ok", f"{said}.", "", values)


def _fit_seconds(reference: Reference, query: Query, device: str) -> tuple[float, float]:
    """Seconds of a whole fit, and of one projection of the cells."""
    few = FitConfig(max_steps=SHORT, device=device, patience=1000)
    project = best_seconds(lambda: fit(reference, query, replace(few, epochs=0)), 2)
    if not query.alignment.new_levels.get(BATCH):
        project = seconds(lambda: embed(reference, query, device=device))
    short = best_seconds(lambda: fit(reference, query, few), 2)
    long = best_seconds(lambda: fit(reference, query, replace(few, max_steps=LONG)), 2)
    step = max(long - short, 0.0) / (LONG - SHORT)
    return short + step * (FitConfig().max_steps - SHORT), project


def _map_seconds(reference: Reference) -> float:
    """What a map of the reference takes that has to be computed; 0 where it publishes one, or one was computed before."""
    if reference.latent is None or own_map(reference) is not None or (cache_folder(reference, ()) / MAP).exists():
        return 0.0
    return UMAP_START + UMAP_CELL * min(len(reference.latent.mean), COMPUTED)


def seconds(work: Callable[[], object]) -> float:
    """How long it took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# Of three, one is seldom disturbed; chosen by eye, not measured.
def best_seconds(work: Callable[[], object], times: int = 3) -> float:
    """The least of a few times: what other programs took is no part of it."""
    return min(seconds(work) for _ in range(times))


def duration(number: float) -> str:
    """Seconds as a person says them."""
    return f"{number:.0f} seconds" if number < 100 else f"{number / 60:.0f} minutes"


def _calibration_seconds(reference: Reference, measured: Measured, fitted: float) -> float:
    """What the first calibration takes; 0 where it is kept already, or there is nothing to calibrate on."""
    key = label_key(reference.schema, reference.obs)
    if measured.condition is None or reference.latent is None or reference.obs is None:
        return 0.0
    keys = [] if key is None else [key]
    if is_kept(reference, keys, measured.condition):
        return 0.0
    folds = len(choose_folds(reference, 0))
    spent = folds * (measured.held_out + fitted)
    if not keys:
        return spent
    names, codes = reference_classes(reference, keys[0])
    index = np.resize(np.arange(len(codes)), DRAWN)
    drawn = counted_cells(reference, index)
    recipe = STORED if drawn.alignment.counts_from == STORED_COUNTS else GENERATED
    # What is made once for all cells is not counted again for each.
    few = best_seconds(lambda: counted_cells(reference, index[:1]))
    many = best_seconds(lambda: counted_cells(reference, index))
    drawing = max(many - few, 0.0) / DRAWN
    n, used = len(training_cells(codes, 0, recipe)), np.unique(codes[codes >= 0])
    x = np.zeros((n, int(measured.condition.genes.sum())), np.float32)
    weights = np.zeros((len(used), x.shape[1]), np.float32)
    one = best_seconds(lambda: (x @ weights.T).T @ x) if len(used) > 1 else 0.0
    return spent + (recipe.trainings + folds) * (drawing * n + EVALUATIONS * one)
