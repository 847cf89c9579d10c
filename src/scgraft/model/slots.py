"""Surgery as algebra on named arrays: `widen` inserts a graft's columns, `split` takes them out again.

A slot is a place where columns belong to the levels of one covariate. New columns go to the end of *their slot*,
never to the end of the tensor: the layout is ``[x | batch | covariate 1 | ...]``, and appending would hand every
later column to the wrong level. A covariate with a single level has no column in a scvi-tools file; its implicit
column of zeros becomes explicit as soon as the slot grows.

``split(widen(w, g)) == (w, g)``, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

import numpy as np

from scgraft.values.slot import Slot

Weights = Mapping[str, np.ndarray]


def _by_tensor(slots: Iterable[Slot]) -> list[tuple[str, list[Slot]]]:
    """Slots grouped by tensor, in layout order within each tensor (the order given breaks ties of `start`)."""
    ordered = sorted(slots, key=lambda s: (s.key, s.start))
    return [(key, list(group)) for key, group in groupby(ordered, key=lambda s: s.key)]


def _take(array: np.ndarray, axis: int, start: int, stop: int | None) -> np.ndarray:
    return array[(slice(None),) * axis + (slice(start, stop),)]


def _zeros(array: np.ndarray, axis: int, n: int) -> np.ndarray:
    shape = list(array.shape)
    shape[axis] = n
    return np.zeros(shape, array.dtype)


def widen(weights: Weights, slots: Iterable[Slot], rows: Weights) -> dict[str, np.ndarray]:
    """Insert new columns at their slots.

    Parameters
    ----------
    weights
        State dict of the reference.
    slots
        Slots of the model. A tensor without a slot, and a slot without rows, stay as they are.
    rows
        New columns by slot name; the slot's axis counts the new levels.

    Returns
    -------
    dict
        A new state dict; arrays that do not grow are the same objects.
    """
    wide = dict(weights)
    for key, group in _by_tensor(slots):
        old, pieces, cursor = weights[key], [], 0
        for slot in group:
            new = rows.get(slot.name)
            if new is None or new.shape[slot.axis] == 0:
                continue
            end = slot.start + slot.size
            pieces += [
                _take(old, slot.axis, cursor, end),
                _zeros(old, slot.axis, slot.levels - slot.size),
                new.astype(old.dtype, copy=False),
            ]
            cursor = end
        if pieces:
            axis = group[0].axis
            wide[key] = np.concatenate([*pieces, _take(old, axis, cursor, None)], axis=axis)
    return wide


def split(
    weights: Weights, slots: Iterable[Slot], n_new: Mapping[str, int]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Take the last columns of each slot out again: the inverse of `widen`.

    Parameters
    ----------
    weights
        A widened state dict.
    slots
        Slots of the *reference* (before widening).
    n_new
        Number of new levels by covariate.

    Returns
    -------
    base, rows
        The reference's state dict, and the new columns by slot name.
    """
    base, rows = dict(weights), {}
    for key, group in _by_tensor(slots):
        wide, pieces, cursor, shift = weights[key], [], 0, 0
        for slot in group:
            k = n_new.get(slot.covariate, 0)
            if k == 0:
                continue
            end = slot.start + slot.size + shift
            implicit = slot.levels - slot.size
            pieces.append(_take(wide, slot.axis, cursor, end))
            cursor = end + implicit + k
            rows[slot.name] = np.ascontiguousarray(_take(wide, slot.axis, end + implicit, cursor))
            shift += implicit + k
        if pieces:
            axis = group[0].axis
            base[key] = np.concatenate([*pieces, _take(wide, axis, cursor, None)], axis=axis)
    return base, rows


def reference_table(weights: Weights, slot: Slot) -> np.ndarray:
    """Columns of the reference's levels, implicit zeros included, with the levels moved to the first axis."""
    old = weights[slot.key]
    columns = [_take(old, slot.axis, slot.start, slot.start + slot.size)]
    columns.append(_zeros(old, slot.axis, slot.levels - slot.size))
    return np.ascontiguousarray(np.moveaxis(np.concatenate(columns, axis=slot.axis), slot.axis, 0))


def numbers_per_level(weights: Weights, slots: Iterable[Slot], covariate: str) -> int:
    """How many trainable numbers one new level of `covariate` adds."""
    return sum(
        int(np.prod([n for axis, n in enumerate(weights[s.key].shape) if axis != s.axis]))
        for s in slots
        if s.covariate == covariate and s.trainable
    )
