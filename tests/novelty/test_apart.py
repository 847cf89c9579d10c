"""How large the score of a cell would be that is as far from its type as other types are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.novelty.rule import NoveltyRule


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9))
def test_it_is_the_mean_squared_distance_of_the_neighbours_types_times_their_number(seed, k, n):
    """Averaging over k neighbours leaves 1/k of the noise, so a shared difference counts k times; not in a small batch."""
    rng = np.random.default_rng(seed)
    between, neighbours = rng.gamma(1, size=12), rng.integers(12, size=(n, k))
    large, batch = np.array([True, False, True]), rng.integers(3, size=n)
    rule = NoveltyRule(np.zeros((12, 1), np.float32), {}, between, large, 1.0, np.inf)
    slow = [
        sum(between[j] for j in own) / k * k if large[b] else np.inf for own, b in zip(neighbours, batch, strict=True)
    ]
    assert np.allclose(rule.apart(neighbours, batch), slow)


def test_a_shared_difference_between_types_has_the_score_that_it_says():
    """Cells that look like another type, in every gene: noise of one, and the squared difference times the neighbours."""
    rng = np.random.default_rng(0)
    k, n, genes = 15, 300, 400
    difference = rng.standard_normal(genes).astype(np.float32)
    residual = rng.standard_normal((n * k, genes)).astype(np.float32) + difference
    neighbours = np.arange(n * k).reshape(n, k)
    between = np.full(n * k, (difference**2).mean())
    rule = NoveltyRule(residual, {}, between, np.ones(1, bool), 1.0, np.inf)
    batch = np.zeros(n, int)
    assert rule.score(neighbours, batch).mean() == pytest.approx(1 + rule.apart(neighbours, batch)[0], rel=0.01)
