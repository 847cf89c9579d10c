"""A new type or a new state: what a type shares is a state where the type lies in its place; a further batch sets a limit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scgraft.novelty.limits import further_batch_limit
from scgraft.novelty.place import FARTHEST, HeldOut, place_types, usual_distances
from scgraft.numerics.conformal import threshold_at

seeds = st.integers(0, 10_000)


def held_out(rng, *, n_folds=4, n_types=3, each=60, spread=0.0):
    """Held-out cells of a few types in a few batches, whose distances differ by a factor for each type and batch."""
    n = n_folds * n_types * each
    code, fold = np.repeat(np.arange(n_types), n // n_types), np.arange(n) % n_folds
    factor = np.exp(spread * rng.standard_normal((n_types, n_folds)))
    distance = rng.gamma(60, size=n) / 60 * factor[code, fold]
    return HeldOut(rng.gamma(20, size=n) / 20, distance, code, fold, np.zeros(n))


def query(rng, *, worse=1.0, farther=1.0, each=100, share=1.0):
    """Cells of three types; of the last one a share is explained worse and lies farther away."""
    code = np.repeat([0, 1, 2], each)
    moved = (code == 2) & (np.arange(3 * each) >= 3 * each - share * each)
    score = rng.gamma(20, size=3 * each) / 20 * np.where(moved, worse, 1)
    return score, rng.gamma(60, size=3 * each) / 60 * np.where(moved, farther, 1), code, moved


@pytest.mark.parametrize("worse", [2, 4, 6])
def test_a_type_that_is_explained_badly_in_its_place_is_in_another_state(worse):
    """A further batch of the reference lies beyond its reach in one of 20 cases, and here in no more than three of 40."""
    placed = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        held = held_out(rng, spread=0.05)
        score, distance, code, _ = query(rng, worse=worse)
        placed.append(place_types(score, distance, code, held)[2])
    assert sum(kind.in_place for kind in placed) >= 37 and min(kind.scale for kind in placed) > 0.7 * worse


@given(seeds, st.floats(3, 6), st.floats(1.3, 2))
def test_the_same_errors_farther_away_are_a_new_type(seed, worse, farther):
    rng = np.random.default_rng(seed)
    held = held_out(rng)
    score, distance, code, _ = query(rng, worse=worse, farther=farther)
    assert not place_types(score, distance, code, held)[2].in_place


def scales_of(placed, n):
    """Scale and place of every cell's type."""
    out = np.zeros((n, 3))
    for kind in placed:
        out[kind.rows] = kind.scale, kind.farther, kind.in_place
    return out


@given(seeds, st.permutations([0, 1, 2]))
def test_names_and_order_change_no_place(seed, names):
    rng = np.random.default_rng(seed)
    held = held_out(rng, spread=0.02)
    score, distance, code, _ = query(rng, worse=2.0)
    scales = scales_of(place_types(score, distance, code, held), 300)
    name, order, cells = np.array(names), rng.permutation(300), rng.permutation(len(held.code))
    other = HeldOut(
        held.score[cells], held.distance[cells], name[held.code][cells], 7 - held.fold[cells], held.evidence[cells]
    )
    mixed = place_types(score[order], distance[order], name[code][order], other)
    assert np.allclose(scales_of(mixed, 300), scales[order], rtol=1e-5)


@given(seeds, st.floats(0, 0.3), st.floats(1, 4))
def test_batches_that_differ_more_reach_farther_up_to_a_tenth(seed, spread, more):
    rng = np.random.default_rng(seed)
    held = held_out(rng, spread=spread)
    usual, reach = usual_distances(held)
    centre = np.array([usual[c] for c in held.code])
    wider = replace(held, distance=centre * np.exp(more * np.log(held.distance / centre)))
    assert 1 <= reach <= usual_distances(wider)[1] + 1e-9 <= FARTHEST + 1e-6


@pytest.mark.parametrize("fold", [np.zeros(720, int), np.arange(720)])
def test_without_batches_to_compare_nothing_is_in_its_place(fold):
    rng = np.random.default_rng(0)
    held = replace(held_out(rng), fold=fold)
    score, distance, code, _ = query(rng, worse=4.0)
    assert not any(kind.in_place for kind in place_types(score, distance, code, held))


@settings(max_examples=5)
@given(seeds, st.sampled_from([3, 4, 9]), st.sampled_from([0.1, 0.5]))
def test_a_further_batch_exceeds_the_limit_as_seldom_as_batches_allow(seed, n_batches, spread):
    """Its own limit is above the largest of B others in one of B + 1 cases, however much batches differ."""
    rng, trials, n, above = np.random.default_rng(seed), 300, 200, 0
    fold = np.repeat(np.arange(n_batches), n)
    for _ in range(trials):
        scale = np.exp(spread * rng.standard_normal(n_batches + 1))
        cells = rng.gamma(9, size=(n_batches + 1, n)) * scale[:, None]
        limit = further_batch_limit(cells[:-1].ravel(), 0.05, fold)
        above += threshold_at(cells[-1], 0.05) > limit
    declared = 1 / (n_batches + 1)
    assert above / trials < declared + 5 * np.sqrt(declared * (1 - declared) / trials)


@given(seeds, st.floats(0, 2), st.floats(1, 3))
def test_batches_that_differ_more_widen_the_limit(seed, spread, more):
    rng = np.random.default_rng(seed)
    fold, cells, apart = np.repeat(np.arange(4), 100), rng.gamma(9, size=400), rng.standard_normal(4)
    apart -= apart.mean()
    narrow, wide = (further_batch_limit(cells * np.exp(s * apart[fold]), 0.05, fold) for s in (spread, spread * more))
    together = threshold_at(cells * np.exp(spread * apart[fold]), 0.05)
    assert narrow >= together and wide >= narrow * np.exp(-1e-9) or spread * (more - 1) * np.ptp(apart) < 0.5


def test_a_batch_of_few_cells_sets_no_limit():
    cells = np.concatenate([np.random.default_rng(0).gamma(9, size=400), [1e6] * 10])
    fold = np.repeat([0, 1], [400, 10])
    assert further_batch_limit(cells, 0.05, fold) < 1e3
    assert further_batch_limit(cells[:10], 0.05, fold[:10]) == np.inf
