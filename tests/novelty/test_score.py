"""The novelty score against a slow version, one cell and one gene at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from scgraft.novelty.query_graph import QueryGraph, query_graph
from scgraft.novelty.score import (
    at_common_depth,
    batch_centres,
    novelty_score,
    shared_moments,
    shared_residual,
    used_genes,
)

seeds = st.integers(0, 10_000)


def slow_score(residual, neighbours, batch, centres):
    out = []
    for own, code in zip(neighbours, batch, strict=True):
        mean = [sum(residual[j][g] for j in own) / len(own) for g in range(residual.shape[1])]
        taken = [m - centres[code][g] if code in centres else m for g, m in enumerate(mean)]
        out.append(sum(m * m for m in taken) / len(taken) * len(own))
    return np.array(out)


@given(seeds, st.integers(1, 8), st.integers(1, 300))
def test_the_score_is_the_square_of_the_shared_residual_over_what_noise_leaves(seed, k, n):
    rng = np.random.default_rng(seed)
    residual = rng.standard_normal((12, 4)).astype(np.float32)
    neighbours, batch = rng.integers(12, size=(n, k)), rng.integers(3, size=n)
    centres = {0: rng.standard_normal(4).astype(np.float32), 2: rng.standard_normal(4).astype(np.float32)}
    found = shared_residual(residual, neighbours, batch, centres)
    assert np.allclose(found, slow_score(residual, neighbours, batch, centres), rtol=1e-4, atol=1e-6)


def slow_markers(residual, neighbours, batch, centres):
    out = []
    for own, code in zip(neighbours, batch, strict=True):
        r = np.mean([residual[j] for j in own], axis=0) - centres.get(code, 0)
        out.append(sum(x**3 for x in r) / sum(x * x for x in r) ** 1.5)
    return np.array(out)


@given(seeds, st.integers(1, 8), st.integers(1, 300))
def test_markers_are_the_skewness_of_the_shared_residual(seed, k, n):
    rng = np.random.default_rng(seed)
    residual = rng.standard_normal((12, 9)).astype(np.float32)
    neighbours, batch = rng.integers(12, size=(n, k)), rng.integers(3, size=n)
    centres = {0: rng.standard_normal(9).astype(np.float32), 2: rng.standard_normal(9).astype(np.float32)}
    found = shared_moments(residual, neighbours, batch, centres)
    assert np.array_equal(found[0], shared_residual(residual, neighbours, batch, centres))
    assert np.allclose(found[1], slow_markers(residual, neighbours, batch, centres), atol=1e-3)


@given(seeds, st.integers(1, 100), st.floats(0.1, 50))
def test_markers_say_in_how_few_genes_the_errors_are_and_not_how_large_they_are(seed, m, size):
    """`m` genes equally far above what is expected: 1 / sqrt(m), whatever the size; below it: the negative; any order of genes."""
    residual = np.zeros((1, 200), np.float32)
    residual[0, np.random.default_rng(seed).choice(200, m, replace=False)] = size
    alone, batch = np.zeros((1, 1), int), np.zeros(1, int)
    above, below = (shared_moments(sign * residual, alone, batch, {})[1][0] for sign in (1, -1))
    assert above == pytest.approx(m**-0.5, rel=1e-3) and below == pytest.approx(-above)


@given(seeds, st.floats(0.2, 20))
def test_a_misfit_in_many_genes_and_both_directions_has_no_markers(seed, size):
    misfit = (size * np.random.default_rng(seed).standard_normal((1, 1000))).astype(np.float32)
    alone, batch = np.zeros((1, 1), int), np.zeros(1, int)
    assert abs(shared_moments(misfit, alone, batch, {})[1][0]) < 5 * np.sqrt(15 / 1000**2)
    misfit[0, :8] += 20 * size  # eight markers of twenty times the misfit: 8 * 20^3 / (1000 + 8 * 20^2)^1.5 = .235
    assert shared_moments(misfit, alone, batch, {})[1][0] > 0.15


def test_noise_has_a_score_of_one_however_many_neighbours_share_it():
    """Disjoint neighbourhoods of independent residuals: the mean of 20,000 squares, within five standard errors."""
    rng = np.random.default_rng(0)
    for k in (1, 5, 15):
        residual = rng.standard_normal((100 * k, 200)).astype(np.float32)
        score = shared_residual(residual, np.arange(100 * k).reshape(100, k), np.zeros(100, int), {})
        assert score.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / 20_000))


@given(seeds, st.sampled_from([19, 20, 21]))
def test_what_the_best_explained_half_of_a_batch_shares_is_taken_out(seed, n_small):
    """Of a batch of 20 cells and more; the half is that with the lower scores before anything is taken out."""
    rng = np.random.default_rng(seed)
    n = 30 + n_small
    batch, residual = np.repeat([4, 7], [30, n_small]), rng.standard_normal((n, 6)).astype(np.float32)
    neighbours = rng.integers(n, size=(n, 3))
    graph = QueryGraph(np.arange(n), neighbours, np.zeros(n, int))
    centres, misfit = batch_centres(residual, graph, batch)
    first = slow_score(residual, neighbours, batch, {})
    assert misfit == pytest.approx(np.median(first), rel=1e-4)
    assert set(centres) == ({4, 7} if n_small >= 20 else {4})
    for code in centres:
        own = [i for i in range(n) if batch[i] == code]
        best = sorted(own, key=lambda i: first[i])[: len(own) // 2]
        slow = np.mean([residual[j] for i in best for j in neighbours[i]], axis=0)
        assert np.allclose(centres[code], slow, atol=1e-5)
    score, _, same = novelty_score(residual, graph, batch, np.ones(6, bool))
    assert same == misfit and np.allclose(score, slow_score(residual, neighbours, batch, centres), rtol=1e-3, atol=1e-5)


def test_genes_that_the_query_lacks_are_left_out():
    residual = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    present = np.array([True, False, True, True, False])
    graph = QueryGraph(np.arange(40), np.arange(40)[:, None], np.zeros(40, int))
    absurd = np.where(present, residual, 1e6).astype(np.float32)
    one, two = (novelty_score(r, graph, np.zeros(40, int), present)[0] for r in (residual, absurd))
    assert np.array_equal(one, two) and np.array_equal(used_genes(residual, present), residual[:, [0, 2, 3]])


@given(seeds)
def test_deep_cells_are_divided_by_the_root_of_how_much_deeper_than_the_median_they_are(seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(2, 20, size=(9, 1)) * np.ones(6)).astype(np.float32)
    residual = rng.standard_normal((9, 6)).astype(np.float32)
    depth = counts.sum(axis=1)
    slow = [r / np.sqrt(max(d / max(np.median(depth), 1), 1)) for r, d in zip(residual, depth, strict=True)]
    assert np.allclose(at_common_depth(residual, csr_matrix(counts)), slow, rtol=1e-5)


def test_neighbours_of_a_query_are_the_nearest_in_log_normalised_expression():
    """With fewer genes than axes nothing is lost: the 15 nearest by genes on a common scale, itself first."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(2, 3, size=(60, 12))).astype(np.float32)
    counts[counts.sum(axis=1) == 0, 0] = 1
    graph = query_graph(csr_matrix(counts))
    x = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 0.1)
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    near = graph.anchors[graph.neighbours]
    assert near.shape == (60, 15) and np.array_equal(near[:, 0], np.arange(60))
    reached = np.take_along_axis(distance, near, axis=1)
    assert np.allclose(np.sort(reached, axis=1), np.sort(distance, axis=1)[:, :15], rtol=1e-3, atol=1e-3)


def test_communities_of_a_query_are_its_types_the_largest_first():
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.5, size=(3, 60)) * 5
    truth = np.repeat([0, 1, 2], [40, 80, 60])
    counts = csr_matrix(rng.poisson(rate[truth]).astype(np.float32))
    found = query_graph(counts).cluster
    size = np.bincount(found)
    assert (np.diff(size) <= 0).all()
    for community in range(len(size)):
        assert len(set(truth[found == community])) == 1
    again, cluster = query_graph(counts).space.place(counts[:7])
    assert np.array_equal(cluster, found[:7]) and again.shape == (7, 15)
