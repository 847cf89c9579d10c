"""Where a type lies, in numbers that can be worked out by hand: its better explained half, against its own held-out cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from scgraft.novelty.place import FARTHEST, HeldOut, place_types, usual_distances


def held_out(*cells, score=1.0):
    """Held-out cells from (type, batch, number of cells, distance)."""
    code, fold, number, distance = (np.array(part) for part in zip(*cells, strict=True))
    n = int(number.sum())
    return HeldOut(
        np.full(n, score),
        np.repeat(distance, number).astype(float),
        np.repeat(code, number),
        np.repeat(fold, number),
        np.zeros(n),
    )


def test_the_better_explained_half_of_a_type_is_measured_against_its_own_held_out_cells():
    """Type 1 of 41 cells: the 20 with the smallest scores lie at 3, the others far away; held-out cells of it lie at 2."""
    held = held_out((0, 0, 30, 1.0), (0, 1, 30, 1.0), (1, 0, 12, 2.0), (1, 1, 12, 2.0))
    rng = np.random.default_rng(0)
    rank = rng.permutation(41)
    code, distance = np.repeat([0, 1], [100, 41]), np.concatenate([np.full(100, 1.5), np.where(rank < 20, 3.0, 90.0)])
    score = np.concatenate([np.full(100, 4.0), 10.0 + rank])
    zero, one = place_types(score, distance, code, held)
    assert (zero.code, one.code) == (0, 1) and one.rows.tolist() == list(range(100, 141))
    assert sorted(rank[one.best - 100]) == list(range(20))
    # The query lies 1.5 times as far on the whole (first quartiles), so type 0 is where it was, and so is type 1.
    assert zero.farther == pytest.approx(1.0) and one.farther == pytest.approx(3 / (2 * 1.5))
    assert one.scale == pytest.approx(20.0) and zero.scale == pytest.approx(
        4.0
    )  # first quartiles of 10, 11, ..., 50 and 4 over 1
    assert one.in_place and one.reach == pytest.approx(1.0)  # held-out batches do not differ


def test_a_type_that_lies_farther_than_a_further_batch_may_is_not_in_its_place():
    held = held_out(*((code, fold, 20, 1.0 + code) for code in (0, 1) for fold in (0, 1)))
    distance = np.where(np.arange(80) < 50, 1.0, 2.02)
    zero, one = place_types(np.ones(80), distance, (np.arange(80) >= 50).astype(int), held)
    assert zero.in_place and not one.in_place and one.farther == pytest.approx(1.01)


@pytest.mark.parametrize(("n", "own", "there"), [(20, 10, True), (19, 10, False), (20, 9, False)])
def test_twenty_cells_and_ten_held_out_ones_in_a_batch_are_needed(n, own, there):
    held = held_out((0, 0, 30, 1.0), (0, 1, 30, 1.0), (1, 0, own, 2.0))
    code = np.repeat([0, 1, -1], [40, n, 50])
    placed = place_types(np.ones(len(code)), np.ones(len(code)), code, held)
    assert [kind.code for kind in placed] == ([0, 1] if there else [0])


@given(st.integers(0, 10_000), st.floats(0.001, 0.02), st.integers(2, 5), st.integers(1, 4))
def test_the_usual_distance_and_the_reach_as_formulas(seed, spread, n_folds, n_types):
    """Geometric mean of the batches' medians; Student's prediction interval for one further batch, from all types together."""
    rng = np.random.default_rng(seed)
    medians = np.exp(spread * rng.standard_normal((n_types, n_folds)))
    # Of the last type the first batch has too few cells to have a median.
    few = [(n_types - 1, 0)]
    cells = [
        (c, f, 9 if (c, f) in few else 11, medians[c, f] if (c, f) not in few else 77.0)
        for c in range(n_types)
        for f in range(n_folds)
    ]
    usual, reach = usual_distances(held_out(*cells))
    logs = [[np.log(medians[c, f]) for f in range(n_folds) if (c, f) not in few] for c in range(n_types)]
    assert usual == pytest.approx({c: np.exp(np.mean(own)) for c, own in enumerate(logs)})
    free = sum(len(own) - 1 for own in logs)
    if not free:
        assert reach == 0
        return
    sd = np.sqrt(sum(((np.array(own) - np.mean(own)) ** 2).sum() for own in logs) / free)
    most = max(len(own) for own in logs)
    assert reach == pytest.approx(min(np.exp(t.ppf(0.95, free) * sd * np.sqrt(1 + 1 / most)), FARTHEST))


def test_no_distance_is_worth_less_than_nothing():
    """Cells on top of reference cells: the logarithm of their distance is bounded, and nothing is in its place by accident."""
    usual, _ = usual_distances(held_out((0, 0, 10, 0.0), (0, 1, 10, 0.0)))
    assert usual[0] == pytest.approx(1e-12)
