"""The rule as a formula, cell by cell: markers, distance and score of a cell and its neighbours against the limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.novelty.limits import limit_of
from scgraft.novelty.rule import NoveltyRule

positive = st.floats(0.05, 20)


def rule(markers, farther, *, usual=1.0, limit=2.0):
    return NoveltyRule(np.zeros((len(markers), 4), np.float32), {}, markers, farther, usual, 1.0, limit)


@given(st.integers(0, 10_000), positive, positive, positive)
def test_the_strength_is_markers_times_distance_times_the_fourth_root_of_the_score_over_the_limit(
    seed, score, usual, limit
):
    rng = np.random.default_rng(seed)
    markers, farther, own = rng.random(9), rng.gamma(9, size=9), rng.integers(9, size=(1, 4))
    found = rule(markers, farther, usual=usual, limit=limit).strength(np.array([score]), own)[0]
    mean = sum(markers[i] for i in own[0]) / 4 * sum(farther[i] for i in own[0]) / 4
    assert found == pytest.approx(mean * (score / usual) ** 0.25 / limit, rel=1e-4)


@pytest.mark.parametrize(
    ("own", "held_out", "expected"),
    [(0.01, 0.02, 0.11), (0.07, 0.02, 0.14), (0.5, 0.02, 0.22), (0.01, 0.3, 0.3), (0.5, 0.3, 0.3)],
)
def test_the_limit_is_the_largest_of_three(own, held_out, expected):
    """The least one, twice the query's first quartile within its bound, and what held-out cells have."""
    found = limit_of(np.full(20, own), np.full(100, held_out), 0.05, None)
    assert found == pytest.approx(expected)
