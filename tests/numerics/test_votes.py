"""Votes of neighbours and relative distances against slow versions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.numerics import votes
from scgraft.numerics.neighbors import Neighbours, nearest
from scgraft.numerics.votes import neighbour_vote, relative_distance

seeds = st.integers(0, 10_000)


def slow_relative_distance(points, queries, k=15):
    """Mean distance to the k nearest over the mean, over these, of each one's mean distance to its own k nearest others."""
    points, queries = points.astype(float), queries.astype(float)

    def ordered(at):
        return np.argsort(np.linalg.norm(points - at, axis=1), kind="stable")

    spacing = np.empty(len(points))
    for i, point in enumerate(points):
        others = [j for j in ordered(point) if j != i][:k]
        spacing[i] = np.mean([np.linalg.norm(points[j] - point) for j in others]) if others else 1.0
    out = []
    for query in queries:
        near = ordered(query)[:k]
        out.append(np.linalg.norm(points[near] - query, axis=1).mean() / max(spacing[near].mean(), 1e-12))
    return np.array(out)


@given(seeds, st.integers(1, 60), st.integers(1, 10), st.floats(0.01, 100))
def test_distance_is_relative_to_the_spacing_of_the_points_there(seed, n, m, scale):
    """The same in any unit: a hundredth of the scale, a hundredth of the spacing."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, 3)).astype(np.float32)
    points[: n // 2] *= 0.1  # a dense half and a sparse half
    queries = rng.standard_normal((m, 3)).astype(np.float32)
    expected = slow_relative_distance(points, queries)
    found = relative_distance(points, nearest(points, queries, k=30))
    assert np.allclose(found, expected, rtol=2e-4)
    if n > 1:
        scaled = relative_distance(scale * points, nearest(scale * points, scale * queries, k=30))
        assert np.allclose(scaled, expected, rtol=2e-3)


def test_in_a_dense_place_the_same_step_is_farther():
    rng = np.random.default_rng(0)
    dense, sparse = 0.1 * rng.standard_normal((200, 2)), 50 + 5 * rng.standard_normal((200, 2))
    points = np.concatenate([dense, sparse]).astype(np.float32)
    step = np.array([[1.0, 0.0], [51.0, 50.0]], np.float32)
    found = relative_distance(points, nearest(points, step, k=30))
    assert found[0] > 5 and 0.5 < found[1] < 2


def test_where_many_neighbours_occur_the_spacing_of_some_is_measured(monkeypatch):
    rng = np.random.default_rng(0)
    points, queries = (rng.standard_normal((n, 3)).astype(np.float32) for n in (400, 300))
    exact = relative_distance(points, nearest(points, queries, k=15))
    monkeypatch.setattr(votes, "SPACING_CELLS", 150)
    some = relative_distance(points, nearest(points, queries, k=15))
    # A third of the spacings is exact, and their mean stands for the others: right on the mean.
    assert not np.array_equal(some, exact) and np.log(some / exact).mean() == pytest.approx(0, abs=0.15)


def test_neighbours_without_a_class_do_not_vote():
    found = Neighbours(np.array([[0, 1, 2], [1, 1, 1]]), np.ones((2, 3), np.float32))
    share = neighbour_vote(np.array([1, -1, 0]), 3, found)
    assert np.allclose(share, [[0.5, 0.5, 0], [0, 0, 0]])


@given(seeds)
def test_nearer_neighbours_weigh_more_where_distances_differ(seed):
    distance = np.sort(np.random.default_rng(seed).gamma(1, size=(1, 6)) * 3, axis=1)
    share = neighbour_vote(np.arange(6), 6, Neighbours(np.arange(6)[None], distance.astype(np.float32)))
    spread = distance.std()
    slow = np.exp(-distance[0] * spread**2 / 4)
    assert np.allclose(share[0], slow / slow.sum(), atol=1e-6) and (np.diff(share[0]) <= 0).all()


def test_a_sparse_type_is_as_near_where_the_spacing_of_few_is_measured(monkeypatch):
    """Cells among a tenth of the points that lie ten times farther apart: at distance one, whichever were measured."""
    rng = np.random.default_rng(1)
    dense, sparse = rng.standard_normal((3600, 3)), 100 + 10 * rng.standard_normal((400, 3))
    points = np.concatenate([dense, sparse]).astype(np.float32)
    queries = np.concatenate([rng.standard_normal((500, 3)), 100 + 10 * rng.standard_normal((100, 3))]).astype(
        np.float32
    )
    found = nearest(points, queries, k=30)
    exact = relative_distance(points, found)
    monkeypatch.setattr(votes, "SPACING_CELLS", 800)
    sampled = relative_distance(points, found)
    assert len(np.unique(found.indices[:, :15])) > 800
    assert (
        abs(np.log(sampled[500:] / exact[500:]).mean()) < 0.2 and abs(np.log(sampled[:500] / exact[:500]).mean()) < 0.1
    )
    assert (sampled[500:] > 3).sum() == (exact[500:] > 3).sum() == 0
