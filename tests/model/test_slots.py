"""Law 1, and the algebra around it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.graft.start import start_rows
from scgraft.model.slots import numbers_per_level, reference_table, split, widen
from scgraft.values.slot import Slot


@st.composite
def layouts(draw):
    """Tensors with any number of slots, anywhere, with 0, 1 or many levels, and new columns for them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    covariates = draw(st.lists(st.sampled_from(["batch", "covariate:a", "covariate:b"]), min_size=1, unique=True))
    levels = {c: draw(st.integers(1, 4)) for c in covariates}
    n_new = {c: draw(st.integers(0, 3)) for c in covariates}
    weights, slots = {}, []
    for t in range(draw(st.integers(1, 3))):
        axis, one_hot = draw(st.integers(0, 1)), draw(st.booleans())
        start = draw(st.integers(0, 5))
        for covariate in covariates:
            size = 0 if one_hot and levels[covariate] == 1 else levels[covariate]
            slots.append(Slot(f"t{t}", axis, start, size, levels[covariate], covariate, "encoder"))
            start += size
        shape = [draw(st.integers(1, 4)), draw(st.integers(1, 4))]
        shape[axis] = start + draw(st.integers(0, 3))
        weights[f"t{t}"] = rng.standard_normal(shape).astype(np.float32)
    weights["other"] = rng.standard_normal(3).astype(np.float32)
    rows = {}
    for slot in slots:
        if n_new[slot.covariate]:
            shape = list(weights[slot.key].shape)
            shape[slot.axis] = n_new[slot.covariate]
            rows[slot.name] = rng.standard_normal(shape).astype(np.float32)
    return weights, tuple(slots), rows, n_new


def same(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


@given(layouts())
def test_split_undoes_widen_bitwise(layout):
    weights, slots, rows, n_new = layout
    base, back = split(widen(weights, slots, rows), slots, n_new)
    assert same(base, weights)
    assert same(back, rows)


@given(layouts())
def test_every_old_column_keeps_its_level(layout):
    """Widening adds columns after a slot's own; the model's product with one-hot codes of old levels is the same."""
    weights, slots, rows, n_new = layout
    wide = widen(weights, slots, rows)
    shift = dict.fromkeys(weights, 0)
    for slot in sorted(slots, key=lambda s: (s.key, s.start)):
        k = n_new[slot.covariate]
        implicit = slot.levels - slot.size if k else 0
        start = slot.start + shift[slot.key]
        old = np.moveaxis(wide[slot.key], slot.axis, 0)[start : start + slot.size + implicit]
        expected = reference_table(weights, slot)[: slot.size + implicit]
        assert np.array_equal(old, expected)
        shift[slot.key] += implicit + k


def test_a_single_level_becomes_an_explicit_column_of_zeros():
    slot = Slot("w", 1, 2, 0, 1, "batch", "encoder")
    weights = {"w": np.arange(8, dtype=np.float32).reshape(2, 4)}
    wide = widen(weights, (slot,), {slot.name: np.array([[9.0], [9.0]], np.float32)})["w"]
    assert wide.tolist() == [[0, 1, 0, 9, 2, 3], [4, 5, 0, 9, 6, 7]]


@given(layouts())
def test_mean_start_is_the_mean_of_the_levels(layout):
    weights, slots, _, n_new = layout
    rows = start_rows(weights, slots, n_new, start="mean")
    for slot in slots:
        if n_new[slot.covariate]:
            columns = np.moveaxis(rows[slot.name], slot.axis, 0)
            expected = reference_table(weights, slot).mean(axis=0, dtype=np.float64)
            assert np.allclose(columns, expected, atol=1e-6)


def test_random_start_is_seeded_and_bounded():
    slot = Slot("z.fc_layers.Layer 0.0.weight", 1, 98, 2, 2, "batch", "encoder")
    weights = {slot.key: np.zeros((50, 100), np.float32)}
    first = start_rows(weights, (slot,), {"batch": 5}, start="random", seed=1)[slot.name]
    assert np.array_equal(first, start_rows(weights, (slot,), {"batch": 5}, start="random", seed=1)[slot.name])
    assert not np.array_equal(first, start_rows(weights, (slot,), {"batch": 5}, start="random", seed=2)[slot.name])
    bound = 1 / np.sqrt(105)
    assert 0.9 * bound < np.abs(first).max() <= bound


@pytest.mark.parametrize("trainable", [True, False])
def test_numbers_per_level_counts_what_trains(trainable):
    slot = Slot("w", 1, 0, 2, 2, "batch", "encoder", trainable)
    assert numbers_per_level({"w": np.zeros((7, 5))}, (slot,), "batch") == (7 if trainable else 0)
