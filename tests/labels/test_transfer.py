"""Neighbours and labels against the slow obvious version."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.errors import NoLabels
from scgraft.labels.transfer import is_unknown, transfer_labels
from scgraft.numerics.neighbors import local_spacing, nearest
from scgraft.numerics.votes import neighbour_weights, relative_distance
from scgraft.values.reference import BaseId, Latent, Reference, Schema

seeds = st.integers(0, 2**31)


def latent_of(points):
    points = np.asarray(points, np.float32)
    return Latent(points, np.ones_like(points), np.arange(len(points)).astype(str))


def reference_of(points, labels, *, unlabeled=None, declared=()):
    schema = Schema(np.array(["g"]), "b", ("0",), "type", tuple(declared), unlabeled)
    obs = pd.DataFrame({"type": labels}, index=[f"r{i}" for i in range(len(points))])
    return Reference(BaseId("org/name", "local", "0" * 64, "SCVI"), schema, None, {}, latent_of(points), obs)


@given(seeds, st.integers(1, 700), st.integers(1, 40), st.integers(1, 6), st.integers(1, 40), st.booleans())
def test_nearest_equals_brute_force(seed, n, m, d, k, ties):
    rng = np.random.default_rng(seed)
    points, queries = rng.standard_normal((n, d)) + 5, rng.standard_normal((m, d)) + 5
    if ties:
        points = np.round(points)
    points, queries = points.astype(np.float32), queries.astype(np.float32)
    found = nearest(points, queries, k=k)
    exact = np.linalg.norm(queries[:, None].astype(np.float64) - points[None], axis=2)
    expected = np.sort(exact, axis=1)[:, :k]
    assert np.allclose(found.distances, expected, atol=1e-5)
    assert np.allclose(np.take_along_axis(exact, found.indices, 1), found.distances, atol=1e-5)
    assert all(len(set(row)) == len(row) for row in found.indices.tolist())


@pytest.mark.parametrize("n", [1000, 6000, 40_000])  # no, one and two levels of groups of groups
def test_nearest_on_many_points_uses_groups_and_stays_exact(n):
    rng = np.random.default_rng(0)
    points, queries = (rng.standard_normal((m, 20)).astype(np.float32) for m in (n, 60))
    found = nearest(points, queries, k=15)
    exact = np.stack([np.linalg.norm(points.astype(np.float64) - query, axis=1) for query in queries])
    assert np.array_equal(found.indices, np.argsort(exact, axis=1, kind="stable")[:, :15])


def test_identical_points_are_at_distance_zero():
    points = np.random.default_rng(0).standard_normal((100, 5)).astype(np.float32) * 100
    found = nearest(points, points, k=1)
    assert np.array_equal(found.indices[:, 0], np.arange(100)) and not found.distances.any()


@given(seeds, st.integers(2, 60), st.integers(1, 10))
def test_local_spacing_is_the_mean_distance_to_others(seed, n, k):
    points = np.random.default_rng(seed).standard_normal((n, 3)).astype(np.float32)
    exact = np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)[:, 1 : k + 1]
    assert np.allclose(local_spacing(points, k=k), exact.mean(axis=1), atol=1e-5)


def naive_vote(points, labels, query, k):
    """scArches' weighted vote as it is written in its paper and code, one cell at a time."""
    d = np.linalg.norm(points - query, axis=1)
    near = np.argsort(d, kind="stable")[:k]
    sigma = d[near].std()
    weights = np.ones(len(near)) if sigma == 0 else np.exp(-d[near] / (2 / sigma) ** 2)
    share = {}
    for i, w in zip(near, weights / weights.sum(), strict=True):
        share[labels[i]] = share.get(labels[i], 0) + w
    return share


@given(seeds, st.integers(1, 60), st.integers(1, 20))
def test_vote_equals_the_naive_one(seed, n, k):
    rng = np.random.default_rng(seed)
    points, queries = rng.standard_normal((n, 3)).astype(np.float32), rng.standard_normal((5, 3)).astype(np.float32)
    labels = rng.choice(["a", "b", "c"], n)
    found = transfer_labels(reference_of(points, labels), latent_of(queries), k=k)["type"]
    for i, query in enumerate(queries):
        share = naive_vote(points, labels, query, k)
        row = dict(zip(found.classes, found.matrix[i], strict=True))
        assert all(abs(row[c] - share.get(c, 0)) < 1e-5 for c in found.classes)
        assert found.probability[i] == pytest.approx(max(share.values()), abs=1e-5)
        assert share[found.label[i]] == pytest.approx(max(share.values()), abs=1e-5)
    assert np.allclose(found.matrix.sum(axis=1), 1, atol=1e-5)


@given(seeds)
def test_permuting_the_reference_or_the_query_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    points, queries = rng.standard_normal((50, 3)).astype(np.float32), rng.standard_normal((9, 3)).astype(np.float32)
    labels = rng.choice(["a", "b"], 50)
    one = transfer_labels(reference_of(points, labels), latent_of(queries), k=7)["type"]
    p, q = rng.permutation(50), rng.permutation(9)
    two = transfer_labels(reference_of(points[p], labels[p]), latent_of(queries[q]), k=7)["type"]
    assert np.allclose(one.matrix[q], two.matrix, atol=1e-5) and np.allclose(one.distance[q], two.distance, rtol=1e-4)


def test_categories_without_cells_and_the_unlabeled_one_are_never_predicted():
    points = np.random.default_rng(0).standard_normal((30, 2))
    labels = pd.Categorical(["a"] * 10 + ["Unknown"] * 10 + [None] * 10, categories=["a", "b", "Unknown"])
    reference = reference_of(points, labels, unlabeled="Unknown", declared=("a", "b"))
    found = transfer_labels(reference, latent_of(points[15:]), k=30)["type"]
    assert found.classes == ("a",) and set(found.label) == {"a"} and set(found.runner_up) == {""}
    classifier = np.tile(np.array([[0.2, 0.8]], np.float32), (15, 1))
    both = transfer_labels(reference, latent_of(points[15:]), classifier=classifier)
    assert set(both["type_classifier"].label) == {"a"}
    assert np.allclose(both["type_classifier"].matrix, [[1, 0]])


def test_several_columns_at_once():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((20, 2))
    reference = reference_of(points, ["a"] * 20)
    reference.obs["fine"] = ["a1", "a2"] * 10
    found = transfer_labels(reference, latent_of(points), labels=["type", "fine"], k=1)
    assert list(found) == ["type", "fine"] and found["fine"].label.tolist() == ["a1", "a2"] * 10


def test_one_reference_cell_and_one_query_cell():
    found = transfer_labels(reference_of([[0.0, 0.0]], ["a"]), latent_of([[1.0, 0.0]]))["type"]
    assert found.label.tolist() == ["a"] and found.probability.tolist() == [1.0]


def test_errors_say_what_there_is():
    reference = reference_of(np.zeros((3, 2)), ["a", "b", "c"])
    query = latent_of(np.zeros((1, 2)))
    with pytest.raises(NoLabels, match="no label column 'celltype'.*cells have type"):
        transfer_labels(reference, query, labels=["celltype"])
    bare = replace(reference, latent=None, obs=None)
    with pytest.raises(NoLabels, match="holds no cells with a latent .* SCVI model has no classifier"):
        transfer_labels(bare, query)
    with_classes = replace(bare, schema=replace(bare.schema, labels=("a", "b")))
    found = transfer_labels(with_classes, query, classifier=np.array([[0.1, 0.9]]))["type"]
    assert found.label.tolist() == ["b"] and np.isnan(found.distance).all() and not found.unknown.any()
    with pytest.raises(NoLabels, match=r"no cell.*obs\['type'\]|No cell"):
        transfer_labels(reference_of(np.zeros((2, 2)), [None, None]), query)


def test_far_cells_are_unknown_and_distance_grows_with_them():
    points = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    far = np.array([[s, 0, 0] for s in (0.0, 5.0, 20.0, 100.0)], np.float32)
    found = transfer_labels(reference_of(points, ["a"] * 200), latent_of(far))["type"]
    assert (np.diff(found.distance) > 0).all() and found.unknown.tolist() == [False, True, True, True]
    inside = relative_distance(points, nearest(points, points + 0.01, k=30))
    assert 0.5 < np.median(inside) < 1.2


def test_unknown_rule():
    probability, distance = np.array([0.9, 0.4, 0.9, 0.9]), np.array([1.0, 1.0, 3.0, np.nan])
    assert is_unknown(probability, distance).tolist() == [False, True, True, False]


def test_equal_distances_weigh_equally():
    assert np.allclose(neighbour_weights(np.full((1, 4), 2.0)), 0.25)
