"""First values of new columns, and the prior that the reference's columns give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from scgraft.model.slots import reference_table
from scgraft.values.names import BATCH
from scgraft.values.query import Query
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    from scgraft.model.slots import Weights

# What two and more batches of trained references showed (0.03 to 0.10): it stands in where a reference has one batch.
SPREAD_OF_ONE = 0.05
PRIOR_COUNT = 3.0  # levels that the mean variance counts as; chosen by eye, not measured


def column_prior(weights: Weights, slot: Slot) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of what a new column may be, judged by the reference's own: an empirical-Bayes prior.

    Each number's variance over the levels is shrunk towards the mean variance of the slot (which counts as three levels),
    because a reference has few batches, and widened for a new draw around an estimated mean.

    Returns
    -------
    mean, variance
        Each with one level on the slot's axis, so that they broadcast against the slot's rows.
    """
    table = reference_table(weights, slot).astype(np.float64)
    n, mean = len(table), table.mean(axis=0)
    if n > 1:
        own = table.var(axis=0, ddof=1)
        variance = ((n - 1) * own + PRIOR_COUNT * own.mean()) / (n - 1 + PRIOR_COUNT) * (1 + 1 / n)
    else:
        variance = np.full_like(mean, SPREAD_OF_ONE**2)
    variance = np.maximum(variance, 1e-8)
    return tuple(np.moveaxis(a[None], 0, slot.axis).astype(np.float32) for a in (mean, variance))  # type: ignore[return-value]


def start_rows(
    weights: Weights,
    slots: Iterable[Slot],
    n_new: Mapping[str, int],
    *,
    start: Literal["mean", "zero", "random"],
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """First values of the new columns.

    ``"mean"`` is the mean of the reference's columns in the slot, a usable mapping before any training.
    ``"random"`` draws as scvi-tools does: uniform within one over the square root of the layer's inputs for a linear
    layer, standard normal for dispersions and embeddings (seeded).
    """
    rng = np.random.default_rng(seed)
    rows = {}
    for slot in slots:
        k = n_new.get(slot.covariate, 0)
        if k == 0:
            continue
        old, table = weights[slot.key], reference_table(weights, slot)
        shape = (k, *table.shape[1:])
        if slot.init == "zero":
            new = np.zeros(shape)
        elif start == "mean":
            new = np.broadcast_to(table.mean(axis=0, dtype=np.float64), shape)
        elif start == "zero":
            new = np.zeros(shape)
        elif "fc_layers" in slot.key:
            bound = 1 / np.sqrt(old.shape[1] + slot.levels - slot.size + k)
            new = rng.uniform(-bound, bound, shape)
        else:
            new = rng.standard_normal(shape)
        rows[slot.name] = np.ascontiguousarray(np.moveaxis(new, 0, slot.axis)).astype(old.dtype)
    return rows


def library_prior_rows(query: Query, slots: tuple[Slot, ...], n_new: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Mean and variance of the log library size in each new batch, where the model has a prior on it."""
    own = [s for s in slots if s.init == "data" and n_new.get(s.covariate)]
    if not own:
        return {}
    log_total = np.log(np.asarray(query.counts.sum(axis=1), dtype=np.float64).ravel())
    order = np.argsort(log_total)  # sums of floats depend on their order, and that of the cells must change nothing
    log_total, codes = log_total[order], query.codes[order, 0]
    first = len(query.levels[BATCH]) - n_new[BATCH]
    groups = [log_total[codes == code] for code in range(first, len(query.levels[BATCH]))]
    groups = [g if len(g) else log_total for g in groups]
    means = np.array([[g.mean() for g in groups]], np.float32)
    # A batch of one cell has no spread of its own: the whole query's is used.
    spread = [g.var() if len(g) > 1 else max(float(log_total.var()), 1e-2) for g in groups]
    variances = np.array([spread], np.float32)
    return {s.name: means if s.key.endswith("means") else variances for s in own}
