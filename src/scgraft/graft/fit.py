"""Reference + Query + FitConfig -> Graft: one explicit loop over cached activations.

Only the new columns are tensors with a gradient. Everything else is a constant: no dropout, norms at their running
statistics, nothing that a weight decay or a momentum could move.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scgraft._version import __version__
from scgraft.errors import FitDiverged, NoLabels
from scgraft.graft.dispersions import fit_dispersions, suits
from scgraft.graft.match import Matched, match_columns
from scgraft.graft.minimise import HELD_OUT_AT_MOST, make_problem, minimise, with_posteriors
from scgraft.graft.start import column_prior, library_prior_rows, start_rows
from scgraft.model.build import embed_cells, pick_device, take_cells
from scgraft.model.families import family_of
from scgraft.numerics.atlas import Atlas
from scgraft.numerics.order import order_by_name
from scgraft.numerics.products import one_thread
from scgraft.numerics.tensors import as_tensor
from scgraft.progress import showing
from scgraft.reference.cells import label_key, reference_classes
from scgraft.values.graft import FitConfig, FitRecord, Graft
from scgraft.values.query import Query
from scgraft.values.reference import Reference
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    from scgraft.graft.minimise import Problem


def fit(reference: Reference, query: Query, config: FitConfig | None = None) -> Graft:
    """Fit new columns for the query's new batches; the reference stays as it is.

    Parameters
    ----------
    reference
        The reference.
    query
        Aligned cells with raw UMI counts, from :func:`scgraft.align`.
    config
        Settings. ``FitConfig(epochs=0)`` keeps the start: a mapping without training.

    Returns
    -------
    Graft
        The new columns, with a record of what happened. On a CPU the same cells, settings and seed give the same bytes, in
        whatever order the cells come.

    Raises
    ------
    FitDiverged
        The loss became NaN; the error's `graft` holds the last finite state.
    NoLabels
        ``FitConfig.labels`` is no column of the reference's cells.

    Notes
    -----
    Random, from ``config.seed``: the start (``start="random"`` only), the cells that are used and held out (also by their
    names), the order of the mini-batches and the draws from the posterior.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> graft.batches, sorted(graft.rows)[0], graft.rows[sorted(graft.rows)[0]].shape
    (('q0', 'q1'), 'decoder.px_decoder.fc_layers.Layer 0.0.weight[batch]', (16, 2))
    >>> before, after = graft.record.reference_unchanged
    >>> before == after
    True
    """
    config = config or FitConfig()
    with showing(config.progress):
        return _fitted(reference, query, config)


def _fitted(reference: Reference, query: Query, config: FitConfig) -> Graft:
    began = time.perf_counter()
    family = family_of(reference.base.family)
    slots = family.slots(reference.hyper, reference.schema, reference.weights)
    levels = {name: names for name, names in query.alignment.new_levels.items() if names}
    n_new = {name: len(names) for name, names in levels.items()}
    rows = start_rows(reference.weights, slots, n_new, start=config.start, seed=config.seed)
    rows |= library_prior_rows(query, slots, n_new)
    before = weights_hash(reference.weights)
    trainable = [s for s in slots if s.trainable and s.name in rows]
    skip = reason_to_skip(trainable, levels, config)
    device = pick_device(config.device)
    objective = config.objective if reference.latent is not None else "elbo"
    record = FitRecord(
        config, trained=False, objective=objective, reason=skip or "", n_cells=len(query.cells), versions=versions()
    )
    if skip:
        record = replace(record, reference_unchanged=(before, before), seconds=time.perf_counter() - began)
        return Graft(reference.base, levels, rows, record)

    chosen, n_held = choose_cells(query, config)
    names = tuple(s.name for s in trainable)
    atlas = None if objective == "elbo" or reference.latent is None else reference.latent.atlas
    settings = replace(config, objective=objective)
    problem = make_problem(reference, take_cells(query, chosen), levels, rows, names, settings, device, atlas)
    start, matched = problem.start, None
    encoder = [s for s in trainable if s.role == "encoder"]
    with one_thread():
        if objective == "match" and atlas is not None and encoder:
            prior = {s.name: column_prior(reference.weights, s) for s in encoder}
            matched = match(problem, atlas, prior, labels_of(reference, atlas, config))
            left = {name: row for name, row in start.items() if name not in matched.rows}
            problem = replace(problem, start=left, fixed={**problem.fixed, **matched.rows})
        if objective == "match":
            problem = with_posteriors(problem)
        used, held = np.arange(n_held, len(chosen)), np.arange(n_held)
        roles = {s.role for s in trainable if s.name in problem.start}
        outcome = (fit_dispersions if suits(problem, used, roles) else minimise)(problem, used, held)
    new = outcome.rows if matched is None else {**matched.rows, **outcome.rows}
    fitted = rows | {name: row.cpu().numpy() for name, row in new.items()}
    if matched is not None:
        record = replace(
            record,
            reach=matched.reach,
            gain=finite(matched.gain),
            gain_error=finite(matched.gain_error),
            confidence=finite(matched.confidence),
        )
    record = replace(
        record,
        trained=True,
        reason=(outcome.reason if matched is None else matched.reason) + fallback(config, objective),
        steps=outcome.steps + (0 if matched is None else matched.steps),
        n_fit_cells=len(chosen),
        loss=tuple(outcome.trace),
        n_parameters=sum(rows[s.name].size for s in trainable),
        moved=movement(problem, start, new),
        reference_unchanged=(before, weights_hash(reference.weights)),
        seconds=time.perf_counter() - began,
    )
    graft = Graft(reference.base, levels, fitted, record)
    if outcome.diverged:
        raise FitDiverged(outcome.reason, graft)
    return graft


def fallback(config: FitConfig, objective: str) -> str:
    """Sentence for the receipt where the objective is not the one that was asked for."""
    if config.objective == objective:
        return ""
    return f" The published objective was used, not {config.objective!r}: the reference stores no latents."


def finite(number: float) -> float | None:
    """A number for the record, None where there is none."""
    return round(number, 4) if math.isfinite(number) else None


def labels_of(reference: Reference, atlas: Atlas, config: FitConfig) -> np.ndarray | None:
    """Codes of the labels of the atlas's cells, None without two labels to tell apart."""
    key = config.labels or reference.schema.labels_key
    if key is None or reference.obs is None:
        return None
    if key == reference.schema.labels_key and label_key(reference.schema, reference.obs) is None:
        return None
    if key not in reference.obs:
        columns = ", ".join(map(str, reference.obs.columns))
        raise NoLabels(f"The reference has no label column {key!r}; its cells have {columns}. Choose one of these.")
    classes, codes = reference_classes(reference, key)
    return codes[atlas.index] if len(classes) > 1 else None


def match(
    problem: Problem,
    atlas: Atlas,
    prior: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: np.ndarray | None,
) -> Matched:
    """Encoder columns of a problem, matched to the atlas; `prior` holds their mean and variance by name."""

    def there(array: np.ndarray) -> Tensor:
        return as_tensor(array).to(problem.cells.product)

    return match_columns(
        problem.model,
        problem.cells,
        problem.codes,
        atlas,
        labels=labels,
        start={name: problem.start[name] for name in prior},
        fixed=problem.fixed,
        prior={name: (there(mean), there(variance)) for name, (mean, variance) in prior.items()},
        config=problem.config,
    )


def reason_to_skip(trainable: list[Slot], levels: Mapping[str, tuple[str, ...]], config: FitConfig) -> str | None:
    """Why there is nothing to train, in a sentence for the user; None when there is."""
    if not levels:
        return "The query has only batches that the reference knows: their columns stay as they are."
    if config.epochs == 0 or config.max_steps == 0:
        return f"No training was asked for: the new columns keep their start ({config.start})."
    if not trainable:
        return "The model has no numbers that belong to a batch, so there is nothing to train."
    if not config.force and not any(s.role == "encoder" for s in trainable):
        return (
            "The encoder of this reference does not see the batch, so training cannot move the latent: projecting the "
            "cells is the exact answer, and the training was skipped."
        )
    return None


def choose_cells(query: Query, config: FitConfig) -> tuple[np.ndarray, int]:
    """Cells of the fit, at most ``config.fit_cells`` of each batch, and how many of them, from the first on, are held out.

    They come in an order that their names and ``config.seed`` decide, so that the order of the query's cells changes nothing.
    """
    order = order_by_name(query.cells, config.seed)
    codes = query.codes[order, 0]
    members = [np.flatnonzero(codes == code)[: config.fit_cells] for code in np.unique(codes)]
    cells = order[np.sort(np.concatenate(members))]
    return cells, min(int(config.holdout * len(cells)), HELD_OUT_AT_MOST)


def movement(problem: Problem, start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, float]:
    """How far the latent of each batch's fitted cells moved in the fit, in units of the latent's spread."""
    before, _ = embed_cells(problem.model, problem.cells, {**problem.fixed, **start})
    after, _ = embed_cells(problem.model, problem.cells, {**problem.fixed, **end})
    spread = float(np.sqrt(after.var(axis=0).sum())) or 1.0
    distance = np.linalg.norm(after - before, axis=1) / spread
    return {problem.levels[c]: round(float(distance[problem.codes == c].mean()), 4) for c in np.unique(problem.codes)}


def weights_hash(weights: Mapping[str, np.ndarray]) -> str:
    """sha256 of a state dict: names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}{weights[name].shape}{weights[name].dtype}".encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {"scgraft": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
